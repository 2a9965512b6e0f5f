#!/usr/bin/env bash
# Run on GPUs under SLURM, one process each. A run that is preempted or reaches its time limit
# saves, is requeued and resumes.
#
#   slurm.sh --nodes=2 --gpus=8 [FLAGS] -- --config=configs/... --workdir=... [--config.a.b=value]
#   slurm.sh --array=12 --gpus=1 [FLAGS] -- configs/... --out=... [-- --config.a.b=value]
#
# Flags, before `--`; all arguments after it go to `python -m vrl_jax.main`, or with --array to
# `python -m vrl_jax.compare`:
#   --nodes=N      default: 1
#   --gpus=N       GPUs per node; default: 1
#   --array=N[%M]  a comparison as N tasks on a node each, at most M at a time; each has its share
#   --dry-run      print the command without running it
#   others         go to sbatch: --partition=..., --account=..., --time=..., --cpus-per-task=...
# The runs of an array are tabulated by `vrl compare ARGUMENTS --table`.
# Python is the one on PATH, or that of the environment in $VRL_VENV.

# shellcheck source=base.sh
source "$(dirname "$0")/base.sh"

nodes=1 gpus=1 array='' others=()
while [ $# -gt 0 ]; do
  case $1 in
    --nodes=*) nodes=${1#*=} ;;
    --gpus=*) gpus=${1#*=} ;;
    --array=*) array=${1#*=} ;;
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
tasks=$gpus # one process a GPU
if [ -n "$array" ]; then
  [[ $array =~ ^[1-9][0-9]*(%[1-9][0-9]*)?$ ]] || die "array must be like 12 or 12%4, got '$array'"
  [ "$nodes" = 1 ] || die "a task of --array has one node, got --nodes=$nodes"
  [ $# -gt 0 ] || die "no configs: pass -- configs/... [--seeds=0,1,2] [--out=...]"
  [[ " $*" != *" --config="* ]] || die "a comparison takes config files without --config="
  count=${array%\%*}
  others+=(--array="0-$((count - 1))${array#"$count"}")
  set -- "--share-of=$count" "$@"
  tasks=1
else
  require_config "$@"
fi
# JAX assigns the n-th GPU to the n-th process of a node, so each process must see all GPUs. Hence
# not --gpus-per-task.
run sbatch --nodes="$nodes" --ntasks-per-node="$tasks" --gpus-per-node="$gpus" \
  "${others[@]}" "$root/launch/slurm_job.sh" "$@"
