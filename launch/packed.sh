#!/usr/bin/env bash
# Trains on a data set that was carried here as one file, for as long as this machine is lent, and
# leaves weights and their card; run again, it goes on.
#
#   python -m cmtl_jax.main --config=configs/sha.py --mode=pack --workdir=runs/sha    # where the data is
#   CMTL_MINUTES=25 bash launch/packed.sh sha.zip --config=configs/sha.py --workdir=runs/sha
#
#   CMTL_MINUTES  training ends after so many minutes, with a checkpoint; otherwise with its steps
#
# The file is unpacked beside itself, once. Keep the work folder: it holds all that goes on, and
# export/ the best weights so far.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
if [[ $# -lt 2 || ! -f $1 || $1 != *.zip ]]; then
  cmtl_error "say the data first, a file that --mode=pack wrote: bash launch/packed.sh sha.zip --config=configs/sha.py"
  exit 1
fi
if [[ ! ${CMTL_MINUTES:-1} =~ ^[0-9]+(\.[0-9]+)?$ ]]; then
  cmtl_error "CMTL_MINUTES is '$CMTL_MINUTES'; it must be a number of minutes"
  exit 1
fi
pack=$(realpath -- "$1")
data=${pack%.zip}
shift
cmtl_environment
cd -- "$CMTL_ROOT"
if [[ ! -d $data ]]; then
  rm -rf -- "$data.partial"
  python -m zipfile -e "$pack" "$data.partial"
  mv -- "$data.partial" "$data"
fi
limit=()
if [[ -n ${CMTL_MINUTES:-} ]]; then
  limit=(timeout --preserve-status --signal=TERM "${CMTL_MINUTES}m")
fi
status=0
"${limit[@]}" python -m cmtl_jax.main "$@" --config.dataset.raw_dir="$data" || status=$?
# 143: stopped by the time limit, with a checkpoint.
if [[ $status != 0 && $status != 143 ]]; then
  exit "$status"
fi
python -m cmtl_jax.main "$@" --mode=export --config.export.format=safetensors
exit "$status"
