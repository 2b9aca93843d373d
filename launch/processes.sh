#!/usr/bin/env bash
# Runs N cooperating processes on this machine, each with its share of the GPUs (on the CPU: each
# with the whole CPU); creates the environment first if needed.
#
#   bash launch/processes.sh N --config=configs/sha.py --workdir=runs/sha
#
# SIGTERM and SIGINT reach every process, which then save and end in their own time. When one fails
# unasked, the others are ended, after CMTL_GRACE_SECONDS (default 10) by force. The exit status is
# the worst of those that ended by themselves.
set -euo pipefail
source "$(dirname -- "${BASH_SOURCE[0]}")/environment.sh"
if [[ ! ${1:-} =~ ^[1-9][0-9]*$ ]]; then
  cmtl_error "the first argument must be the number of processes, not '${1:-}'" || exit 1
fi
count=$1
shift
cmtl_environment
cd -- "$CMTL_ROOT"

gpus=0
if [[ $(cmtl_platform) == cuda && ${JAX_PLATFORMS:-cuda} != cpu ]]; then
  if [[ -n ${CUDA_VISIBLE_DEVICES:-} ]]; then
    gpus=$(tr , '\n' <<<"$CUDA_VISIBLE_DEVICES" | wc -l)
  else
    gpus=$(nvidia-smi -L | wc -l)
  fi
  if ((gpus < count)); then
    cmtl_error "$count processes need as many GPUs, there are $gpus;" \
      "ask for fewer, or set JAX_PLATFORMS=cpu" || exit 1
  fi
fi
export CMTL_COORDINATOR="127.0.0.1:$(cmtl_port)" CMTL_NUM_PROCESSES=$count

# run INDEX ARGS...: becomes one process.
run() {
  export CMTL_PROCESS_ID=$1
  if ((gpus > 0)); then
    local share=$((gpus / count))
    JAX_LOCAL_DEVICE_IDS=$(seq -s , $(($1 * share)) $(($1 * share + share - 1)))
    export JAX_LOCAL_DEVICE_IDS
  fi
  shift
  exec python -m cmtl_jax.main "$@"
}

pids=()
stopping=
# signal NAME: to every process. Forced, also to what it started.
signal() {
  local pid
  for pid in ${pids[@]+"${pids[@]}"}; do
    if [[ $1 == KILL ]]; then pid=-$pid; fi
    kill -s "$1" -- "$pid" 2>/dev/null || true
  done
}
trap 'stopping=1; signal TERM' TERM
trap 'stopping=1; signal INT' INT

# With job control each process has its own group and SIGINT's default action; without, bash
# starts background processes deaf to SIGINT.
set -m
for ((index = 0; index < count; index++)); do
  run "$index" "$@" </dev/null &
  pids+=($!)
done
set +m

worst=0
deadline=
while ((${#pids[@]} > 0)); do
  running=()
  for pid in "${pids[@]}"; do
    if kill -0 "$pid" 2>/dev/null; then
      running+=("$pid")
      continue
    fi
    status=0
    wait "$pid" || status=$?
    if [[ -z $deadline ]] && ((status > worst)); then
      worst=$status
    fi
  done
  pids=(${running[@]+"${running[@]}"})
  if [[ -z $stopping ]] && ((worst > 0)); then
    if [[ -z $deadline ]]; then
      deadline=$((SECONDS + ${CMTL_GRACE_SECONDS:-10}))
      signal TERM
    elif ((SECONDS >= deadline)); then
      signal KILL
    fi
  fi
  if ((${#pids[@]} > 0)); then
    sleep 0.1 || true
  fi
done
exit "$worst"
