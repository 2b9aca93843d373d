#!/usr/bin/env bash
# Writes the API reference, HTML made of the docstrings, to build/api (or to the folder named).
#
#   pip install -r requirements-docs.txt
#   bash launch/docs.sh [DIR]
#
# PYTHON names another interpreter than the first python on the path.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python}
if ! "$python" -c 'import pdoc' 2>/dev/null; then
  echo "error: pdoc is missing; pip install -r requirements-docs.txt" >&2
  exit 1
fi
folder=${1:-build/api}
# Left out: commands, and what needs packages of its own (PyTorch, ONNX, FastAPI).
exec "$python" -m pdoc --docformat google --output-directory "$folder" cmtl_jax \
  '!cmtl_jax\..*__main__' '!cmtl_jax\.benchmark.*' '!cmtl_jax\.serve.*' \
  '!cmtl_jax\.interop\.onnx_file'
