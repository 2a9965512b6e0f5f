#!/usr/bin/env bash
# The job that slurm.sh submits: `python -m vrl_jax.main --distributed ARGUMENTS` on every GPU, or of
# an array, where the arguments begin with --share-of=N, `python -m vrl_jax.compare --share=I/N ...`.
#SBATCH --job-name=vrl_jax
#SBATCH --output=vrl_jax-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=TERM@300
# The last line signals the processes (not this script) to save, five minutes before the time limit.
set -u

# shellcheck source=/dev/null
[ -z "${VRL_VENV:-}" ] || source "$VRL_VENV/bin/activate"
case ${1:-} in
  --share-of=*)
    command=(vrl_jax.compare --jobs=1 --share="$SLURM_ARRAY_TASK_ID/${1#*=}" "${@:2}")
    ;;
  *) command=(vrl_jax.main --distributed "$@") ;;
esac
# srun reads the CPUs of a task from its own flag, not from that of the job.
srun ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} \
  python -m "${command[@]}"
code=$?
[ "$code" != 143 ] || scontrol requeue "$SLURM_JOB_ID" # it has saved; the same command resumes it
exit "$code"
