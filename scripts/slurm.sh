#!/usr/bin/env bash
# Trains on several machines under Slurm: sbatch scripts/slurm.sh FOLDER [KEY=VALUE ...]
# FOLDER is the run's folder, on a file system that all machines see. One process a machine, with all its GPUs (or its
# CPU). Where a machine is lost, or the time is up, the job is queued again and goes on from its last checkpoint.
#SBATCH --job-name=descent
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
set -uo pipefail

folder=$1
shift
# sbatch runs a copy of this script: the checkout is where the job was submitted from.
cd "${SLURM_SUBMIT_DIR:-.}" || exit 2

srun --kill-on-bad-exit=1 --wait=60 \
  "${PYTHON:-.venv/bin/python}" train.py strategy=multi_worker resume=auto "hydra.run.dir=$folder" "$@"
code=$?

# 0 completed, 2 a mistake in the command, 3 halted, 4 failed: not to be tried again. 5: a worker was lost; 130: stopped
# before the end of the time; and what a signal ended.
case $code in
  0 | 2 | 3 | 4) exit $code ;;
esac
if [ ! -e "$folder/done.json" ] && command -v scontrol > /dev/null; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
