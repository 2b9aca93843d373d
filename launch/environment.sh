#!/usr/bin/env bash
# Finds Python, creates the virtual environment once, and puts it on PATH. Other scripts source
# this file and call `cmtl_environment`; running it directly only prepares the environment.
#
#   PYTHON         the Python (>= 3.11) to build with; otherwise the newest tested one on PATH
#   CMTL_VENV      the environment's folder; otherwise .venv in the repository. An existing
#                  environment that already holds the requirements is used as it is.
#   CMTL_PLATFORM  cpu or cuda: what to install jax for; otherwise cuda where an NVIDIA driver
#                  answers, else cpu

CMTL_ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)

cmtl_error() {
  echo "cmtl_jax: $*" >&2
  return 1
}

# cmtl_platform: prints cuda or cpu.
cmtl_platform() {
  case ${CMTL_PLATFORM:-} in
    cpu | cuda) echo "$CMTL_PLATFORM" ;;
    "") if nvidia-smi -L >/dev/null 2>&1; then echo cuda; else echo cpu; fi ;;
    *) cmtl_error "CMTL_PLATFORM is '$CMTL_PLATFORM'; it must be cpu or cuda" ;;
  esac
}

# cmtl_requirements PLATFORM [test]: prints the requirement files to install, one a line.
cmtl_requirements() {
  if [[ $1 == cuda ]]; then echo requirements.txt; else echo requirements-cpu.txt; fi
  if [[ ${2:-} == test ]]; then echo requirements-test.txt; fi
}

# cmtl_python_fits PYTHON: whether it runs and is at least 3.11.
cmtl_python_fits() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# cmtl_python: prints the Python to build the environment with, or one line saying what to do.
cmtl_python() {
  local candidate incomplete=""
  local candidates=(python3.13 python3.12 python3.11 python3 python)
  if [[ -n ${PYTHON:-} ]]; then
    candidates=("$PYTHON")
  fi
  for candidate in "${candidates[@]}"; do
    cmtl_python_fits "$candidate" || continue
    # Debian and Ubuntu ship Python without ensurepip unless python3-venv is installed.
    if "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
      echo "$candidate"
      return 0
    fi
    incomplete=${incomplete:-$candidate}
  done
  if [[ -n $incomplete ]]; then
    cmtl_error "$incomplete cannot create environments: install its venv module" \
      "(Debian, Ubuntu: apt install python3-venv) or set PYTHON to another Python >= 3.11"
  elif [[ -n ${PYTHON:-} ]]; then
    cmtl_error "PYTHON=$PYTHON does not run or is older than 3.11; set it to a Python >= 3.11"
  else
    cmtl_error "no Python >= 3.11 on PATH; install one or set PYTHON to it"
  fi
}

# cmtl_fingerprint VENV FILE: prints what FILE and those it includes ask of this environment.
# A file's stamp in the environment holds it once everything in FILE is installed.
cmtl_fingerprint() {
  local files=("$CMTL_ROOT/$2")
  if [[ $2 == requirements.txt ]]; then
    files+=("$CMTL_ROOT/requirements-cpu.txt")
  fi
  echo "$("$1/bin/python" -V 2>&1) $(cat -- "${files[@]}" | cksum)"
}

# cmtl_ready VENV FILE: whether the environment is known to hold FILE's requirements.
cmtl_ready() {
  local stamp="$1/.cmtl-$2"
  if [[ -f $stamp && $(<"$stamp") == "$(cmtl_fingerprint "$1" "$2")" ]]; then
    return 0
  fi
  # With the CUDA packages the CPU's are there too (a cluster's login node, for one).
  [[ $2 == requirements-cpu.txt ]] && cmtl_ready "$1" requirements.txt
}

# cmtl_all_ready VENV FILE...: cmtl_ready for every FILE.
cmtl_all_ready() {
  local venv=$1 file
  shift
  for file in "$@"; do
    cmtl_ready "$venv" "$file" || return 1
  done
}

# cmtl_stamp VENV FILE...: records what is installed; harmless where the folder is read-only.
cmtl_stamp() {
  local venv=$1 file
  shift
  for file in "$@"; do
    cmtl_fingerprint "$venv" "$file" 2>/dev/null >"$venv/.cmtl-$file" || true
  done 2>/dev/null
}

# cmtl_satisfied VENV ARGS...: whether the environment already holds what ARGS (-r FILE ...) ask
# for, by its own packages alone.
cmtl_satisfied() {
  local venv=$1
  shift
  PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS="" PIP_DISABLE_PIP_VERSION_CHECK=1 \
    "$venv/bin/python" -m pip install --dry-run --no-index "$@" >/dev/null 2>&1
}

# cmtl_create VENV LOG: leaves a working Python >= 3.11 with pip in VENV, whatever was there of it.
cmtl_create() {
  local python
  if "$1/bin/python" -c '' 2>/dev/null; then
    if ! cmtl_python_fits "$1/bin/python"; then
      cmtl_error "$1 holds a Python older than 3.11; remove it or set CMTL_VENV to another folder"
    elif ! "$1/bin/python" -m pip --version >/dev/null 2>&1 &&
      ! "$1/bin/python" -m ensurepip >"$2" 2>&1; then
      cmtl_error "$1 has no pip and ensurepip fails; set CMTL_VENV to another folder"
    fi
    return
  fi
  if [[ -e $1/bin && ! -e $1/pyvenv.cfg ]]; then
    cmtl_error "$1 is not a Python environment; set CMTL_VENV to another folder"
    return
  fi
  python=$(cmtl_python) || return 1
  # venv keeps a link to a Python that is gone; --clear would remove the lock held here.
  rm -rf -- "$1/bin"
  "$python" -m venv "$1" >"$2" 2>&1 || cmtl_error "$python could not create $1; see $2"
}

# cmtl_install VENV FILE...: creates the environment where needed and installs the FILEs.
cmtl_install() {
  local venv=$1 file log="$1/cmtl-install.log"
  local arguments=()
  shift
  for file in "$@"; do
    arguments+=(-r "$CMTL_ROOT/$file")
  done
  if cmtl_python_fits "$venv/bin/python" && cmtl_satisfied "$venv" "${arguments[@]}"; then
    cmtl_stamp "$venv" "$@"
    return 0
  fi
  cmtl_create "$venv" "$log" || return 1
  echo "cmtl_jax: installing $* into $venv (once; takes some minutes)" >&2
  if ! PIP_DISABLE_PIP_VERSION_CHECK=1 "$venv/bin/python" -m pip install "${arguments[@]}" \
    >"$log" 2>&1; then
    grep '^ERROR' "$log" | tail -n 3 >&2
    cmtl_error "installing $* failed; the whole output is in $log; run again to continue"
    return 1
  fi
  cmtl_stamp "$venv" "$@"
}

# cmtl_environment [test]: prepares the environment, with the tests' packages if asked, and puts
# it first on PATH.
cmtl_environment() {
  local platform file venv=${CMTL_VENV:-$CMTL_ROOT/.venv}
  local files=()
  platform=$(cmtl_platform) || return 1
  while read -r file; do
    files+=("$file")
  done < <(cmtl_requirements "$platform" "${1:-}")
  if ! cmtl_all_ready "$venv" "${files[@]}" 2>/dev/null; then
    if ! mkdir -p -- "$venv"; then
      cmtl_error "cannot create $venv; set CMTL_VENV to a folder you can write to"
      return 1
    fi
    # The lock makes a second start wait; a subshell, so that it ends with the installation.
    (
      if command -v flock >/dev/null && { exec 9>"$venv/.cmtl-lock"; } 2>/dev/null; then
        flock 9 || true
      fi
      cmtl_all_ready "$venv" "${files[@]}" 2>/dev/null || cmtl_install "$venv" "${files[@]}"
    ) || return 1
  fi
  venv=$(cd -- "$venv" && pwd)
  export CMTL_VENV=$venv VIRTUAL_ENV=$venv PATH="$venv/bin:$PATH"
  unset PYTHONHOME
  # An environment with CUDA packages on a machine without a driver: jax would complain at length.
  if [[ $platform == cpu && -f $venv/.cmtl-requirements.txt ]]; then
    export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
  fi
}

# cmtl_port: prints a port of this machine on which nothing listens.
cmtl_port() {
  local port
  while port=$((20000 + RANDOM % 12000)); (exec 9<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    continue
  done
  echo "$port"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  cmtl_environment "$@"
fi
