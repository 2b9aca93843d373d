#!/usr/bin/env bash
# Runs N processes with Open MPI 4 or newer, one to a GPU; creates the environment first if needed.
#
#   bash launch/openmpi.sh N --config=configs/sha.py --workdir=runs/sha
#   CMTL_MPIRUN="mpirun --hostfile hosts" bash launch/openmpi.sh 8 --config=...
#
# Process 0 runs on the host that starts this (list it first in the host file); repository and
# environment lie in the same place on every host. jax finds its place by itself only with
# Open MPI 4, or with 5 and mpi4py; so it is told here.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
if [[ ! ${1:-} =~ ^[1-9][0-9]*$ ]]; then
  cmtl_error "the first argument must be the number of processes, not '${1:-}'" || exit 1
fi
count=$1
shift
cmtl_environment
cd -- "$CMTL_ROOT"
export CMTL_COORDINATOR="${CMTL_COORDINATOR:-$(hostname):$(cmtl_port)}"
exec ${CMTL_MPIRUN:-mpirun} -np "$count" -x PATH -x CMTL_COORDINATOR bash -c '
  export CMTL_NUM_PROCESSES=$OMPI_COMM_WORLD_SIZE CMTL_PROCESS_ID=$OMPI_COMM_WORLD_RANK
  export JAX_LOCAL_DEVICE_IDS=$OMPI_COMM_WORLD_LOCAL_RANK
  exec python -m cmtl_jax.main "$@"' bash "$@"
