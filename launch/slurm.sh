#!/usr/bin/env bash
# Run on GPUs under SLURM, one process each. A run that is preempted or reaches its time limit
# saves, is requeued and resumes.
#
#   slurm.sh --nodes=2 --gpus=8 [FLAGS] -- --config=configs/... --workdir=... [--config.a.b=value]
#
# Flags, before `--`; all arguments after it go to `python -m vrl_jax.main`:
#   --nodes=N    default: 1
#   --gpus=N     GPUs per node; default: 1
#   --dry-run    print the command without running it
#   others       go to sbatch: --partition=..., --account=..., --time=..., --cpus-per-task=...
# Python is the one on PATH, or that of the environment in $VRL_VENV.

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
    --config* | --workdir* | --data*) die "$1 is a flag of vrl_jax.main: it comes after --" ;;
    -*) others+=("$1") ;;
    *) die "unknown argument '$1': see --help; write flags of sbatch with =" ;;
  esac
  shift
done

require_program sbatch "run this script on a login node of the cluster"
[[ $nodes =~ ^[1-9][0-9]*$ ]] || die "nodes must be an integer of at least 1, got '$nodes'"
[[ $gpus =~ ^[1-9][0-9]*$ ]] || die "gpus must be an integer of at least 1, got '$gpus'"
require_config "$@"
# JAX assigns the n-th GPU to the n-th process of a node, so each process must see all GPUs. Hence
# not --gpus-per-task.
run sbatch --nodes="$nodes" --ntasks-per-node="$gpus" --gpus-per-node="$gpus" \
  "${others[@]}" "$root/launch/slurm_job.sh" "$@"
