#!/usr/bin/env bash
# Runs the tests on the CPU; creates the environment first if needed. Arguments go to pytest.
#
#   bash launch/test.sh                      # all but the slow tests
#   bash launch/test.sh -m slow              # the slow ones
#   bash launch/test.sh tests/test_losses.py -k mask
#
#   CMTL_TEST_WORKERS  test processes at a time (default 2)
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
CMTL_PLATFORM=cpu cmtl_environment test
cd -- "$CMTL_ROOT"
# One thread for each BLAS call: several test processes share the cores.
export JAX_PLATFORMS=cpu OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
exec python -m pytest -n "${CMTL_TEST_WORKERS:-2}" --dist=loadfile --timeout=600 "$@"
