#!/usr/bin/env bash
# Runs on this machine, on all its GPUs or on the CPU; creates the environment first if needed.
#
#   bash launch/local.sh --config=configs/synthetic.py
#
#   CMTL_DETERMINISTIC=1  on a GPU, bit-equal repeats and resumes, somewhat slower
#
# Relative paths count from the repository root, wherever it is called from.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
cmtl_environment
cd -- "$CMTL_ROOT"
if [[ -n ${CMTL_DETERMINISTIC:-} ]]; then
  export XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_deterministic_ops=true"
fi
exec python -m cmtl_jax.main "$@"
