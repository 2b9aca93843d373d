#!/usr/bin/env bash
# Runs under SLURM, one task to a GPU. Submit from the repository root; a job submitted again with
# the same --workdir goes on from its last checkpoint, and so does one that was requeued.
#
#   sbatch launch/slurm.sh --config=configs/sha.py --workdir=runs/sha
#   sbatch --nodes=2 --gpus-per-node=4 --ntasks-per-node=4 launch/slurm.sh --config=...
#
# jax gives task i of a node the node's GPU i, so ask for as many tasks as GPUs and do not bind
# GPUs to tasks. Where compute nodes have no network, first run on the login node:
#   CMTL_PLATFORM=cuda bash launch/environment.sh
#
#SBATCH --job-name=cmtl
#SBATCH --nodes=1
#SBATCH --gpus-per-node=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
# Time to save before the limit; a preempted job is put back into the queue.
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail
# SLURM runs a copy of this file from its own folder.
cd -- "${SLURM_SUBMIT_DIR:?submit this with sbatch}"
if [[ ! -f launch/environment.sh ]]; then
  echo "cmtl_jax: $PWD has no launch/environment.sh; submit from the repository root" >&2
  exit 1
fi
source launch/environment.sh
cmtl_environment
export CMTL_DISTRIBUTED=auto
exec srun --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
  python -m cmtl_jax.main "$@"
