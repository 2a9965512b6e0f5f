#!/usr/bin/env bash
# TPU slices of a GKE cluster that was made with XPK (https://github.com/AI-Hypercomputer/xpk).
#
#   gke_xpk.sh run     send the committed source and queue the run; after a preemption it goes on
#                      where the last checkpoint was
#   gke_xpk.sh logs    follow the log of the first host
#   gke_xpk.sh wait    until it ends, and say whether it succeeded
#   gke_xpk.sh delete  end the run and forget it; the cluster stays, and costs
#
# Flags, before `--`; what follows it is given to `python -m vrl_jax.main`:
#   --cluster=CLUSTER      where to run
#   --name=NAME            of the workload; by default vrl-jax
#   --type=TYPE            of each slice: v5litepod-16, v5p-8, v6e-16, tpu7x-8, ...
#   --slices=N             so many of them in one job; by default 1
#   --bucket=BUCKET        the run's folder is gs://BUCKET/runs/NAME, unless --workdir=gs://... says
#                          otherwise; by default $VRL_BUCKET
#   --restarts=N           at most so many; by default 50; none after an error of the run itself
#   --project=PROJECT      by default $GOOGLE_CLOUD_PROJECT
#   --zone=ZONE            by default $CLOUDSDK_COMPUTE_ZONE
#   --dry-run              print the commands, execute nothing

# shellcheck source=base.sh
source "$(dirname "$0")/base.sh"

action=${1:-}
cluster='' name=vrl-jax type='' slices=1 restarts=50 bucket=${VRL_BUCKET:-}
project=${GOOGLE_CLOUD_PROJECT:-} zone=${CLOUDSDK_COMPUTE_ZONE:-}

submit() { # ARGUMENTS
  scratch
  pack "$folder/vrl_jax.tar.gz"
  run mkdir "$folder/vrl_jax"
  run tar -xzf "$folder/vrl_jax.tar.gz" -C "$folder/vrl_jax"
  # XPK signals its shell's child; with exec that is Python, which saves.
  run xpk workload create --workload="$name" "${place[@]}" --tpu-type="$type" \
    --num-slices="$slices" --max-restarts="$restarts" \
    --termination-grace-period-seconds=120 --base-docker-image=python:3.11 \
    --script-dir="$folder/vrl_jax" \
    --command="pip install --quiet -c constraints.txt -e '.[tpu,gcs]' && exec $(
      quoted python -m vrl_jax.main --distributed "$@"
    )"
}

follow() {
  local set=jobset.sigs.k8s.io
  run gcloud container clusters get-credentials "$cluster" --project="$project" \
    --location="${zone%-?}"
  run kubectl logs --follow --tail=-1 --container=jax-tpu \
    --selector="$set/jobset-name=$name,$set/job-index=0,batch.kubernetes.io/job-completion-index=0"
}

case $action in
  run | logs | wait | delete) shift ;;
  --help) usage ;;
  *) die "the first word must be run, logs, wait or delete, got '$action': see --help" ;;
esac
while [ $# -gt 0 ]; do
  case $1 in
    --cluster=*) cluster=${1#*=} ;;
    --name=*) name=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --slices=*) slices=${1#*=} ;;
    --bucket=*) bucket=${1#*=} ;;
    --restarts=*) restarts=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --dry-run) dry_run=true ;;
    --help) usage ;;
    --) shift && break ;;
    *) die "unknown flag $1: see --help; what is for vrl_jax.main comes after --" ;;
  esac
  shift
done

given cluster "$cluster" "--cluster=..."
named "$name"
given project "$project" "--project=... or set GOOGLE_CLOUD_PROJECT"
given zone "$zone" "--zone=... or set CLOUDSDK_COMPUTE_ZONE"
place=(--cluster="$cluster" --project="$project" --zone="$zone")
if [ "$action" = logs ]; then
  need gcloud "https://cloud.google.com/sdk/docs/install"
  need kubectl "gcloud components install kubectl"
else
  need xpk "pip install xpk"
fi
if [ "$action" = run ]; then
  given "type of TPU" "$type" "--type=v5litepod-16 or the like"
  [[ $slices =~ ^[1-9][0-9]*$ ]] || die "slices must be a number of at least 1, got '$slices'"
  configured "$@"
  workdir=$(outlasting "$bucket" "$name" "$@")
  set -- "$@" ${workdir:+"$workdir"}
elif [ $# -gt 0 ]; then
  die "'$action' takes nothing after --, got '$*'"
fi
case $action in
  run) submit "$@" ;;
  logs) follow ;;
  wait) run xpk workload list "${place[@]}" --wait-for-job-completion="$name" ;;
  delete) run xpk workload delete --workload="$name" "${place[@]}" --force ;;
esac
