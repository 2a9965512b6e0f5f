#!/usr/bin/env bash
# Run on this machine: one process on the CPU or on GPUs, or several processes as on several hosts.
#
#   local.sh [FLAGS] -- --config=configs/... [--workdir=...] [--config.a.b=value]
#
# Flags, before `--`; all arguments after it go to `python -m vrl_jax.main`:
#   --gpus=0,1        numbers of the GPUs; several processes divide them
#   --processes=N     default: 1
#   --port=PORT       port of the coordinator of several processes; default: 12355
#   --dry-run         print the commands without running them
# SIGTERM and Ctrl-C are passed on: the run saves and exits with 143; the same command resumes it.

# shellcheck source=base.sh
source "$(dirname "$0")/base.sh"

gpus='' processes=1 port=12355
while [ $# -gt 0 ]; do
  case $1 in
    --gpus=*) gpus=${1#*=} ;;
    --processes=*) processes=${1#*=} ;;
    --port=*) port=${1#*=} ;;
    --dry-run) dry_run=true ;;
    --help) usage ;;
    --) shift && break ;;
    *) die "unknown flag $1: see --help; flags of vrl_jax.main come after --" ;;
  esac
  shift
done

start() { # NUMBER ARGUMENTS: become the process of this number
  local command=(python -m vrl_jax.main "${@:2}") first=$(($1 * share + 1)) devices
  if [ "$processes" -gt 1 ]; then
    command+=(--coordinator_address="127.0.0.1:$port" --num_processes="$processes" --process_id="$1")
  fi
  if [ -n "$gpus" ]; then
    devices=$(cut -d, -f"$first-$((first + share - 1))" <<<"$gpus")
    command=(env CUDA_VISIBLE_DEVICES="$devices" "${command[@]}")
  fi
  if $dry_run; then echo "$(quote "${command[@]}") &"; else exec "${command[@]}"; fi
}

require_program python "activate the environment that contains vrl_jax"
[[ $processes =~ ^[1-9][0-9]*$ ]] || die "processes must be an integer of at least 1, got '$processes'"
require_config "$@"
share=0 # GPUs per process
if [ -n "$gpus" ]; then
  [[ $gpus =~ ^[0-9]+(,[0-9]+)*$ ]] || die "gpus must be numbers like 0,1, got '$gpus'"
  require_program nvidia-smi "this machine has no GPU driver"
  count=$(tr , '\n' <<<"$gpus" | wc -l)
  [ $((count % processes)) = 0 ] || die "$count GPUs cannot be divided among $processes processes"
  share=$((count / processes))
  run env CUDA_VISIBLE_DEVICES="$gpus" python -c 'import jax; jax.devices("gpu")' ||
    die "JAX finds no GPU: pip install -c constraints.txt -e '.[cuda]'"
fi

peers=()
signalled=false
trap 'signalled=true; kill -TERM "${peers[@]}" 2>/dev/null' TERM INT
for ((number = 0; number < processes; number++)); do
  start "$number" "$@" &
  peers+=($!)
  ! $signalled || kill -TERM "$!" 2>/dev/null || true # the signal came before it was in the list
  ! $dry_run || wait # print in order
done
! $dry_run || exit 0

code=0 # of an error, if any; else 143, if any
for peer in "${peers[@]}"; do
  while :; do
    signalled=false status=0
    wait "$peer" || status=$?
    $signalled || break # a signal interrupts the wait, not the process
  done
  case $status in
    0) ;;
    143) [ "$code" != 0 ] || code=143 ;;
    *) code=$status ;;
  esac
done
exit "$code"
