#!/usr/bin/env bash
# Run on TPU slices of a GKE cluster created with XPK (https://github.com/AI-Hypercomputer/xpk).
#
#   gke_xpk.sh run     send the committed source and queue the run; after a preemption it resumes
#                      from the last checkpoint
#   gke_xpk.sh logs    follow the log of the first host
#   gke_xpk.sh wait    wait until the run ends and report whether it succeeded
#   gke_xpk.sh delete  stop and delete the run; the cluster remains and is still billed
#
# Flags, before `--`; all arguments after it go to `python -m vrl_jax.main`:
#   --cluster=CLUSTER      the cluster
#   --name=NAME            name of the workload; default: vrl-jax
#   --type=TYPE            type of each slice: v5litepod-16, v5p-8, v6e-16, tpu7x-8, ...
#   --slices=N             number of slices in the job; default: 1
#   --bucket=BUCKET        the run's folder is gs://BUCKET/runs/NAME, unless --workdir=gs://... is
#                          passed; default: $VRL_BUCKET
#   --restarts=N           maximum number of restarts; default: 50; an error of the run is final
#   --project=PROJECT      default: $GOOGLE_CLOUD_PROJECT
#   --zone=ZONE            default: $CLOUDSDK_COMPUTE_ZONE
#   --dry-run              print the commands without running them

# shellcheck source=base.sh
source "$(dirname "$0")/base.sh"

action=${1:-}
cluster='' name=vrl-jax type='' slices=1 restarts=50 bucket=${VRL_BUCKET:-}
project=${GOOGLE_CLOUD_PROJECT:-} zone=${CLOUDSDK_COMPUTE_ZONE:-}

submit() { # ARGUMENTS
  make_scratch
  pack "$folder/vrl_jax.tar.gz"
  run mkdir "$folder/vrl_jax"
  run tar -xzf "$folder/vrl_jax.tar.gz" -C "$folder/vrl_jax"
  # XPK signals the child of its shell. With exec that is Python, which then saves.
  run xpk workload create --workload="$name" "${location[@]}" --tpu-type="$type" \
    --num-slices="$slices" --max-restarts="$restarts" \
    --termination-grace-period-seconds=120 --base-docker-image=python:3.12 \
    --script-dir="$folder/vrl_jax" \
    --command="pip install --quiet -c constraints.txt -e '.[tpu,gcs]' && exec $(
      quote python -m vrl_jax.main --distributed "$@"
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
  *) die "the action must be run, logs, wait or delete, got '$action': see --help" ;;
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
    *) die "unknown flag $1: see --help; flags of vrl_jax.main come after --" ;;
  esac
  shift
done

require_value cluster "$cluster" "--cluster=..."
check_name "$name"
require_value project "$project" "--project=... or set GOOGLE_CLOUD_PROJECT"
require_value zone "$zone" "--zone=... or set CLOUDSDK_COMPUTE_ZONE"
location=(--cluster="$cluster" --project="$project" --zone="$zone")
if [ "$action" = logs ]; then
  require_program gcloud "https://cloud.google.com/sdk/docs/install"
  require_program kubectl "gcloud components install kubectl"
else
  require_program xpk "pip install xpk"
fi
if [ "$action" = run ]; then
  require_value "TPU type" "$type" "--type=..., for example v5litepod-16"
  [[ $slices =~ ^[1-9][0-9]*$ ]] || die "slices must be an integer of at least 1, got '$slices'"
  require_config "$@"
  workdir=$(workdir_flag "$bucket" "$name" "$@")
  set -- "$@" ${workdir:+"$workdir"}
elif [ $# -gt 0 ]; then
  die "'$action' takes no arguments after --, got '$*'"
fi
case $action in
  run) submit "$@" ;;
  logs) follow ;;
  wait) run xpk workload list "${location[@]}" --wait-for-job-completion="$name" ;;
  delete) run xpk workload delete --workload="$name" "${location[@]}" --force ;;
esac
