#!/usr/bin/env bash
# GPUs under SLURM, one process each. A run that is preempted or comes to the end of its time saves,
# is queued again and goes on.
#
#   slurm.sh --nodes=2 --gpus=8 [FLAGS] -- --config=configs/... --workdir=... [--config.a.b=value]
#
# Flags, before `--`; what follows it is given to `python -m vrl_jax.main`:
#   --nodes=N    by default 1
#   --gpus=N     of each node; by default 1
#   --dry-run    print the command, execute nothing
#   any other    goes to sbatch: --partition=..., --account=..., --time=..., --cpus-per-task=...
# Python is the one on PATH, or that of the environment which $VRL_VENV names.

# shellcheck source=base.sh
source "$(dirname "$0")/base.sh"

nodes=1 gpus=1 others=()
while [ $# -gt 0 ]; do
  case $1 in
    --nodes=*) nodes=${1#*=} ;;
    --gpus=*) gpus=${1#*=} ;;
    --dry-run) dry_run=true ;;
    --help) usage ;;
    --) shift && break ;;
    --config* | --workdir* | --data*) die "$1 is for vrl_jax.main: it comes after --" ;;
    -*) others+=("$1") ;;
    *) die "unknown argument '$1': see --help; write the flags of sbatch with =" ;;
  esac
  shift
done

need sbatch "start this on a login node of the cluster"
[[ $nodes =~ ^[1-9][0-9]*$ ]] || die "nodes must be a number of at least 1, got '$nodes'"
[[ $gpus =~ ^[1-9][0-9]*$ ]] || die "gpus must be a number of at least 1, got '$gpus'"
configured "$@"
# JAX gives the n-th process of a node its n-th GPU, so each must see all: not --gpus-per-task.
run sbatch --nodes="$nodes" --ntasks-per-node="$gpus" --gpus-per-node="$gpus" \
  "${others[@]}" "$root/launch/slurm_job.sh" "$@"
