#!/usr/bin/env bash
# Cloud TPU VM slices, by queued resources: one slice or several, on demand or spot.
#
#   tpu.sh up      create or reuse, install, run, watch; after a preemption all of it again, which
#                  goes on where the last checkpoint was; delete the slices when it has finished
#   tpu.sh create  wait in the queue until the slices are ready
#   tpu.sh install send the committed source to all hosts and install it
#   tpu.sh run     start the run on all hosts; it does not need this machine any more
#   tpu.sh logs    follow the log of the first host
#   tpu.sh status  what Google and what the hosts say
#   tpu.sh stop    ask the run to save and leave
#   tpu.sh delete  delete the slices, which ends their costs
#
# Flags, before `--`; what follows it is given to `python -m vrl_jax.main`:
#   --name=NAME            of the queued resource; by default vrl-jax
#   --type=TYPE            of each slice: v2-8, v3-8, v4-8, v5litepod-16, v5p-8, v6e-16, ...
#   --slices=N             so many of them in one job; by default 1
#   --spot                 cheaper, may be preempted
#   --bucket=BUCKET        the run's folder is gs://BUCKET/runs/NAME, unless --workdir=gs://... says
#                          otherwise; by default $VRL_BUCKET
#   --project=PROJECT      by default $GOOGLE_CLOUD_PROJECT
#   --zone=ZONE            by default $CLOUDSDK_COMPUTE_ZONE
#   --create-flag=FLAG     another of `gcloud compute tpus queued-resources create`, repeatable
#   --keep                 `up` leaves the slices when it has finished; they cost until deleted
#   --dry-run              print the commands, execute nothing

# shellcheck source=base.sh
source "$(dirname "$0")/base.sh"

action=${1:-}
name=vrl-jax type='' slices=1 spot=() keep=false create_flags=()
bucket=${VRL_BUCKET:-} project=${GOOGLE_CLOUD_PROJECT:-} zone=${CLOUDSDK_COMPUTE_ZONE:-}

state() { # print READY, ABSENT, UNKNOWN or what Google says of the first part that is not ready
  local node found
  found=$(describe ACTIVE queued-resources 'value(state.state)' "$name")
  if [ "$found" != ACTIVE ]; then
    echo "$found"
    return
  fi
  for node in "${nodes[@]}"; do
    found=$(describe READY tpu-vm 'value(state)' "$node")
    [ "$found" != ABSENT ] || found=SUSPENDED # the request is there, and makes no other node
    [ "$found" = READY ] || break
  done
  echo "$found"
}

describe() { # ANSWER KIND FORMAT NAME: ask Google; in a dry run ANSWER, once it has created
  local said
  if said=$(ask "${assumed:-$1}" gcloud compute tpus "$2" describe "$4" "${place[@]}" \
    --format="$3" 2>&1); then
    grep -xE '[A-Z_]+' <<<"$said" | tail -n 1 # beside it there may be warnings
  elif [[ $said == *NOT_FOUND* ]]; then
    echo ABSENT
  else
    say "$said"
    echo UNKNOWN
  fi
}

ready() { # create or reuse; set fresh where it had to create
  local found
  fresh=false
  while :; do
    found=$(state)
    case $found in
      UNKNOWN) $answered || die "gcloud does not say what $name is" && pause && continue ;;
      READY) answered=true && return ;;
      ABSENT) attempt create ;;
      PREEMPTED | TERMINATED | SUSPENDED) say "$name is $found: again" && attempt delete ;;
      CREATING | ACCEPTED | WAITING_FOR_RESOURCES | PROVISIONING | ACTIVE | STARTING | RESTARTING | \
        REIMAGING | REPAIRING | SUSPENDING | DELETING)
        say "$name is $found: waiting" && pause
        ;;
      *) die "$name is $found: see 'tpu.sh status', or 'tpu.sh delete' and begin anew" ;;
    esac
    answered=true
  done
}

attempt() { # create or delete; where that fails after Google has answered, wait for a better time
  "$1" || { $answered || exit 1; pause; }
}

create() {
  local number=(--node-id="$name")
  [ "$slices" = 1 ] || number=(--node-count="$slices" --node-prefix="$name")
  run gcloud compute tpus queued-resources create "$name" "${place[@]}" "${number[@]}" \
    --accelerator-type="$type" --runtime-version="$(runtime)" "${spot[@]}" \
    "${create_flags[@]}" || return
  fresh=true assumed=''
}

runtime() { # print the image of the type
  case $type in
    v[234]-*) echo tpu-ubuntu2204-base ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
  esac
}

delete() {
  run gcloud compute tpus queued-resources delete "$name" "${place[@]}" --force --quiet
}

ssh_to() { # NODE WORKER COMMAND: set words to what runs COMMAND there
  words=(gcloud compute tpus queued-resources ssh "$name" "${place[@]}" --quiet
    --node="$1" --worker="$2" --command="$3")
}

on() { # NODE WORKER WORDS: run worker.sh there
  local words
  ssh_to "$1" "$2" "bash vrl_jax/launch/worker.sh $(quoted "${@:3}")"
  run "${words[@]}" </dev/null
}

install() ( # in a shell of its own, with which its files go
  scratch
  file=$folder/vrl_jax.tar.gz
  ssh_to all all 'rm -rf vrl_jax && mkdir vrl_jax && tar -xzf vrl_jax.tar.gz -C vrl_jax'
  pack "$file" &&
    run gcloud compute tpus queued-resources scp "$file" "$name:vrl_jax.tar.gz" "${place[@]}" \
      --quiet --node=all --worker=all &&
    run "${words[@]}" </dev/null &&
    on all all install
)

progress() { # print what each host says: running, exited CODE, gone; nothing unless all answer
  local words said
  ssh_to all all "if [ -e vrl_jax/launch/worker.sh ]; then bash vrl_jax/launch/worker.sh state; \
else echo gone; fi"
  if said=$(ask "exited 0" "${words[@]}" </dev/null 2>&1) && [[ $said != *"Could not prepare"* ]]; then
    grep -xE 'running|exited [0-9]+|gone' <<<"$said" || true
  else
    say "not all hosts of $name answer: $said"
  fi
}

outcome() { # watch until the run ends; print its exit code, or LOST with its machines
  local found
  while :; do
    case $(state) in
      READY | UNKNOWN) ;;
      *) echo LOST && return ;;
    esac
    found=$(progress)
    case $found in
      '' | *running*) pause ;;
      *gone*) echo LOST && return ;;
      *) worst "$found" && return ;;
    esac
  done
}

worst() { # LINES: print the exit code that tells most: an error, else 143, else 0
  local code verdict=0
  while read -r _ code; do
    case $code in
      0) ;;
      143) [ "$verdict" != 0 ] || verdict=143 ;;
      *) verdict=$code && break ;;
    esac
  done <<<"$1"
  echo "$verdict"
}

up() { # ARGUMENTS
  local code found
  while :; do
    ready
    found=gone
    $fresh || found=$(progress)
    case $found in
      '') pause && continue ;;
      *running*) code=$(outcome) ;;
      *) if install && on all all start "$@"; then code=$(outcome); else code=1; fi ;;
    esac
    case $code in
      0) break ;;
      143 | LOST) say "interrupted ($code): once more, from the last checkpoint" ;;
      *) lost_meanwhile || die "it failed with exit code $code; see 'tpu.sh logs'. The slices are \
still there and cost: 'tpu.sh delete' ends that" ;;
    esac
  done
  say "finished"
  $keep || delete
}

lost_meanwhile() { # a preempted host shows as an error of the others before Google says so
  pause
  case $(state) in READY | UNKNOWN) return 1 ;; esac
}

status() {
  run gcloud compute tpus queued-resources describe "$name" "${place[@]}"
  on all all state
}

case $action in
  up | create | install | run | logs | status | stop | delete) shift ;;
  --help) usage ;;
  *) die "the first word must be up, create, install, run, logs, status, stop or delete," \
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
    *) die "unknown flag $1: see --help; what is for vrl_jax.main comes after --" ;;
  esac
  shift
done

need gcloud "https://cloud.google.com/sdk/docs/install"
named "$name"
given project "$project" "--project=... or set GOOGLE_CLOUD_PROJECT"
given zone "$zone" "--zone=... or set CLOUDSDK_COMPUTE_ZONE"
[[ $slices =~ ^[1-9][0-9]*$ ]] || die "slices must be a number of at least 1, got '$slices'"
if [[ $action =~ ^(up|create)$ ]]; then
  given "type of TPU" "$type" "--type=v5litepod-16 or the like"
  [[ $type =~ ^(v[234]|v5litepod|v5p|v6e)-[1-9][0-9]*$ ]] ||
    die "type must be like v4-8, v5litepod-16, v5p-8 or v6e-16, got '$type'"
fi
if [[ $action =~ ^(up|run)$ ]]; then
  configured "$@"
  workdir=$(outlasting "$bucket" "$name" "$@")
  set -- "$@" ${workdir:+"$workdir"}
elif [ $# -gt 0 ]; then
  die "'$action' takes nothing after --, got '$*'"
fi

place=(--project="$project" --zone="$zone")
nodes=("$name")
[ "$slices" = 1 ] || mapfile -t nodes < <(seq -f "$name-%.0f" 0 $((slices - 1)))
answered=false assumed=''
if [[ $action =~ ^(up|create)$ ]]; then assumed=ABSENT; fi # what a dry run begins with
case $action in
  create) ready ;;
  run) on all all start "$@" ;;
  logs) on 0 0 logs ;;
  stop) on all all stop ;;
  *) "$action" "$@" ;;
esac
