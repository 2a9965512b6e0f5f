#!/usr/bin/env bash
# The job that slurm.sh submits: `python -m vrl_jax.main --distributed ARGUMENTS` on every GPU.
#SBATCH --job-name=vrl_jax
#SBATCH --output=vrl_jax-%j.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=TERM@300
# The last line signals the processes (not this script) to save, five minutes before the time limit.
set -u

# shellcheck source=/dev/null
[ -z "${VRL_VENV:-}" ] || source "$VRL_VENV/bin/activate"
# srun reads the CPUs of a task from its own flag, not from that of the job.
srun ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} \
  python -m vrl_jax.main --distributed "$@"
code=$?
[ "$code" != 143 ] || scontrol requeue "$SLURM_JOB_ID" # it has saved; the same command resumes it
exit "$code"
