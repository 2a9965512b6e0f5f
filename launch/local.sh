#!/usr/bin/env bash
# This machine: one process, on the CPU or on GPUs; or several, as on several hosts.
#
#   local.sh [FLAGS] -- --config=configs/... [--workdir=...] [--config.a.b=value]
#
# Flags, before `--`; what follows it is given to `python -m vrl_jax.main`:
#   --gpus=0,1        the GPUs to use, by their numbers; several processes share them out
#   --processes=N     by default 1
#   --port=PORT       where several processes meet; by default 12355
#   --dry-run         print the commands, execute nothing
# SIGTERM or Ctrl-C is passed on: the run saves and leaves with 143; the same command continues it.

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
    *) die "unknown flag $1: see --help; what is for vrl_jax.main comes after --" ;;
  esac
  shift
done

start() { # NUMBER ARGUMENTS: be this process of them
  local command=(python -m vrl_jax.main "${@:2}") first=$(($1 * share + 1)) ours
  if [ "$processes" -gt 1 ]; then
    command+=(--coordinator_address="127.0.0.1:$port" --num_processes="$processes" --process_id="$1")
  fi
  if [ -n "$gpus" ]; then
    ours=$(cut -d, -f"$first-$((first + share - 1))" <<<"$gpus")
    command=(env CUDA_VISIBLE_DEVICES="$ours" "${command[@]}")
  fi
  if $dry_run; then echo "$(quoted "${command[@]}") &"; else exec "${command[@]}"; fi
}

need python "activate the environment that vrl_jax is installed in"
[[ $processes =~ ^[1-9][0-9]*$ ]] || die "processes must be a number of at least 1, got '$processes'"
configured "$@"
share=0 # of the GPUs, for each process
if [ -n "$gpus" ]; then
  [[ $gpus =~ ^[0-9]+(,[0-9]+)*$ ]] || die "gpus must be numbers like 0,1, got '$gpus'"
  need nvidia-smi "there is no driver of a GPU here"
  count=$(tr , '\n' <<<"$gpus" | wc -l)
  [ $((count % processes)) = 0 ] || die "$count GPUs cannot be shared out to $processes processes"
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
  ! $signalled || kill -TERM "$!" 2>/dev/null || true # the signal came before it was known
  ! $dry_run || wait # so that they print in order
done
! $dry_run || exit 0

code=0 # an error if there is one, else 143 if there is one
for peer in "${peers[@]}"; do
  while :; do
    signalled=false status=0
    wait "$peer" || status=$?
    $signalled || break # a signal ends the wait, not the process
  done
  case $status in
    0) ;;
    143) [ "$code" != 0 ] || code=143 ;;
    *) code=$status ;;
  esac
done
exit "$code"
