#!/usr/bin/env bash
# Runs on this machine, on all its GPUs or on the CPU; creates the environment first if needed.
#
#   bash launch/local.sh --config=configs/synthetic.py
#
# Relative paths count from the repository root, wherever it is called from.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
cmtl_environment
cd -- "$CMTL_ROOT"
exec python -m cmtl_jax.main "$@"
