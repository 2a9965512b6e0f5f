#!/usr/bin/env bash
# Run on Cloud TPU VM slices through queued resources: one slice or several, on demand or spot.
#
#   tpu.sh up      create or reuse slices, install, run and watch; after a preemption, repeat all of
#                  this and resume from the last checkpoint; delete the slices when the run is done
#   tpu.sh create  request the slices and wait until they are ready
#   tpu.sh install send the committed source to all hosts and install it
#   tpu.sh run     start the run on all hosts; it no longer needs this machine
#   tpu.sh logs    follow the log of the first host
#   tpu.sh status  print the state of the resources and of the hosts
#   tpu.sh stop    make the run save and exit
#   tpu.sh delete  delete the slices, which ends their billing
#
# Flags, before `--`; all arguments after it go to `python -m vrl_jax.main`:
#   --name=NAME            name of the queued resource; default: vrl-jax
#   --type=TYPE            type of each slice: v2-8, v3-8, v4-8, v5litepod-16, v5p-8, v6e-16, ...
#   --slices=N             number of slices in the job; default: 1
#   --spot                 spot capacity: cheaper, may be preempted
#   --bucket=BUCKET        the run's folder is gs://BUCKET/runs/NAME, unless --workdir=gs://... is
#                          passed; default: $VRL_BUCKET
#   --project=PROJECT      default: $GOOGLE_CLOUD_PROJECT
#   --zone=ZONE            default: $CLOUDSDK_COMPUTE_ZONE
#   --create-flag=FLAG     extra flag of `gcloud compute tpus queued-resources create`, repeatable
#   --keep                 `up` keeps the slices when the run is done; they are billed until deleted
#   --dry-run              print the commands without running them

# shellcheck source=base.sh
source "$(dirname "$0")/base.sh"

action=${1:-}
name=vrl-jax type='' slices=1 spot=() keep=false create_flags=()
bucket=${VRL_BUCKET:-} project=${GOOGLE_CLOUD_PROJECT:-} zone=${CLOUDSDK_COMPUTE_ZONE:-}

state() { # print READY, ABSENT, UNKNOWN, or the state of the first part that is not ready
  local node result
  result=$(describe ACTIVE queued-resources 'value(state.state)' "$name")
  if [ "$result" != ACTIVE ]; then
    echo "$result"
    return
  fi
  for node in "${nodes[@]}"; do
    result=$(describe READY tpu-vm 'value(state)' "$node")
    [ "$result" != ABSENT ] || result=SUSPENDED # the request exists but creates no other node
    [ "$result" = READY ] || break
  done
  echo "$result"
}

describe() { # ANSWER KIND FORMAT NAME: query the cloud; in a dry run ANSWER, once created
  local response
  if response=$(query "${assumed:-$1}" gcloud compute tpus "$2" describe "$4" "${location[@]}" \
    --format="$3" 2>&1); then
    grep -xE '[A-Z_]+' <<<"$response" | tail -n 1 # there may be warnings as well
  elif [[ $response == *NOT_FOUND* ]]; then
    echo ABSENT
  else
    log "$response"
    echo UNKNOWN
  fi
}

ensure_ready() { # create or reuse the slices; set fresh if they had to be created
  local status
  fresh=false
  while :; do
    status=$(state)
    case $status in
      UNKNOWN) $answered || die "gcloud does not report the state of $name" && pause && continue ;;
      READY) answered=true && return ;;
      ABSENT) attempt create ;;
      PREEMPTED | TERMINATED | SUSPENDED) log "$name is $status: recreating it" && attempt delete ;;
      CREATING | ACCEPTED | WAITING_FOR_RESOURCES | PROVISIONING | ACTIVE | STARTING | RESTARTING | \
        REIMAGING | REPAIRING | SUSPENDING | DELETING)
        log "$name is $status: waiting" && pause
        ;;
      *) die "$name is $status: see 'tpu.sh status', or start over after 'tpu.sh delete'" ;;
    esac
    answered=true
  done
}

attempt() { # create or delete; if that fails after an earlier answer, wait and retry
  "$1" || { $answered || exit 1; pause; }
}

create() {
  local number=(--node-id="$name")
  [ "$slices" = 1 ] || number=(--node-count="$slices" --node-prefix="$name")
  run gcloud compute tpus queued-resources create "$name" "${location[@]}" "${number[@]}" \
    --accelerator-type="$type" --runtime-version="$(runtime)" "${spot[@]}" \
    "${create_flags[@]}" || return
  fresh=true assumed=''
}

runtime() { # print the VM image for the type
  case $type in
    v[234]-*) echo tpu-ubuntu2204-base ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
  esac
}

delete() {
  run gcloud compute tpus queued-resources delete "$name" "${location[@]}" --force --quiet
}

ssh_to() { # NODE WORKER COMMAND: set command to the ssh call that runs COMMAND there
  command=(gcloud compute tpus queued-resources ssh "$name" "${location[@]}" --quiet
    --node="$1" --worker="$2" --command="$3")
}

on() { # NODE WORKER WORDS: run worker.sh there
  local command
  ssh_to "$1" "$2" "bash vrl_jax/launch/worker.sh $(quote "${@:3}")"
  run "${command[@]}" </dev/null
}

install() ( # in a subshell, which removes its files on exit
  make_scratch
  file=$folder/vrl_jax.tar.gz
  ssh_to all all 'rm -rf vrl_jax && mkdir vrl_jax && tar -xzf vrl_jax.tar.gz -C vrl_jax'
  pack "$file" &&
    run gcloud compute tpus queued-resources scp "$file" "$name:vrl_jax.tar.gz" "${location[@]}" \
      --quiet --node=all --worker=all &&
    run "${command[@]}" </dev/null &&
    on all all install
)

progress() { # print the state of each host: running, exited CODE, gone; nothing unless all answer
  local command response
  ssh_to all all "if [ -e vrl_jax/launch/worker.sh ]; then bash vrl_jax/launch/worker.sh state; \
else echo gone; fi"
  if response=$(query "exited 0" "${command[@]}" </dev/null 2>&1) &&
    [[ $response != *"Could not prepare"* ]]; then
    grep -xE 'running|exited [0-9]+|gone' <<<"$response" || true
  else
    log "not all hosts of $name answer: $response"
  fi
}

outcome() { # watch until the run ends; print its exit code, or LOST if its machines are gone
  local states
  while :; do
    case $(state) in
      READY | UNKNOWN) ;;
      *) echo LOST && return ;;
    esac
    states=$(progress)
    case $states in
      '' | *running*) pause ;;
      *gone*) echo LOST && return ;;
      *) worst_code "$states" && return ;;
    esac
  done
}

worst_code() { # LINES: print the most severe exit code: an error, else 143, else 0
  local code worst=0
  while read -r _ code; do
    case $code in
      0) ;;
      143) [ "$worst" != 0 ] || worst=143 ;;
      *) worst=$code && break ;;
    esac
  done <<<"$1"
  echo "$worst"
}

up() { # ARGUMENTS
  local code states
  while :; do
    ensure_ready
    states=gone
    $fresh || states=$(progress)
    case $states in
      '') pause && continue ;;
      *running*) code=$(outcome) ;;
      *) if install && on all all start "$@"; then code=$(outcome); else code=1; fi ;;
    esac
    case $code in
      0) break ;;
      143 | LOST) log "interrupted ($code): resuming from the last checkpoint" ;;
      *) machines_lost || die "the run failed with exit code $code; see 'tpu.sh logs'. The slices \
still exist and are billed: 'tpu.sh delete' ends that" ;;
    esac
  done
  log "finished"
  $keep || delete
}

machines_lost() { # a preempted host shows up as an error of the others before its state changes
  pause
  case $(state) in READY | UNKNOWN) return 1 ;; esac
}

status() {
  run gcloud compute tpus queued-resources describe "$name" "${location[@]}"
  on all all state
}

case $action in
  up | create | install | run | logs | status | stop | delete) shift ;;
  --help) usage ;;
  *) die "the action must be up, create, install, run, logs, status, stop or delete," \
    "got '$action': see --help" ;;
esac
while [ $# -gt 0 ]; do
  case $1 in
    --name=*) name=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --slices=*) slices=${1#*=} ;;
    --spot) spot=(--spot) ;;
    --bucket=*) bucket=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --create-flag=*) create_flags+=("${1#*=}") ;;
    --keep) keep=true ;;
    --dry-run) dry_run=true ;;
    --help) usage ;;
    --) shift && break ;;
    *) die "unknown flag $1: see --help; flags of vrl_jax.main come after --" ;;
  esac
  shift
done

require_program gcloud "https://cloud.google.com/sdk/docs/install"
check_name "$name"
require_value project "$project" "--project=... or set GOOGLE_CLOUD_PROJECT"
require_value zone "$zone" "--zone=... or set CLOUDSDK_COMPUTE_ZONE"
[[ $slices =~ ^[1-9][0-9]*$ ]] || die "slices must be an integer of at least 1, got '$slices'"
if [[ $action =~ ^(up|create)$ ]]; then
  require_value "TPU type" "$type" "--type=..., for example v5litepod-16"
  [[ $type =~ ^(v[234]|v5litepod|v5p|v6e)-[1-9][0-9]*$ ]] ||
    die "type must have the form v4-8, v5litepod-16, v5p-8 or v6e-16, got '$type'"
fi
if [[ $action =~ ^(up|run)$ ]]; then
  require_config "$@"
  workdir=$(workdir_flag "$bucket" "$name" "$@")
  set -- "$@" ${workdir:+"$workdir"}
elif [ $# -gt 0 ]; then
  die "'$action' takes no arguments after --, got '$*'"
fi

location=(--project="$project" --zone="$zone")
nodes=("$name")
[ "$slices" = 1 ] || mapfile -t nodes < <(seq -f "$name-%.0f" 0 $((slices - 1)))
answered=false assumed=''
if [[ $action =~ ^(up|create)$ ]]; then assumed=ABSENT; fi # the initial state in a dry run
case $action in
  create) ensure_ready ;;
  run) on all all start "$@" ;;
  logs) on 0 0 logs ;;
  stop) on all all stop ;;
  *) "$action" "$@" ;;
esac
