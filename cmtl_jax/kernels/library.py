"""The compiled kernels: built once for a machine, then loaded from its cache folder.

`in_use` says which programs may call them: those of one CPU, whose arrays XLA does not split.
"""

import contextlib
import contextvars
import ctypes
import functools
import hashlib
import logging
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from cmtl_jax import cache_folder

SWITCH = "CMTL_JAX_KERNELS"  # environment: 0 leaves the kernels alone

_FOLDER = pathlib.Path(__file__).parent
_TARGETS = tuple(
    f"cmtl_{name}{part}"
    for name in ("fft_convolution", "prelu_pool", "shallow_convolution")
    for part in ("", "_gradients")
)
_FLAGS = ("-std=c++17", "-O2", "-fPIC", "-shared", "-pthread", "-w")
_LONGEST = 300  # seconds that compiling may take
_in_use = contextvars.ContextVar("kernels_in_use", default=False)


@contextlib.contextmanager
def in_use(wanted: bool = True) -> Iterator[None]:
    """Programs traced in here are for one CPU and take the kernels where there are any."""
    token = _in_use.set(wanted and available())
    try:
        yield
    finally:
        _in_use.reset(token)


def used(*arrays: jax.Array) -> bool:
    """Whether the program traced now may call kernels for these arrays: float32, of known shape."""
    return _in_use.get() and all(
        a.dtype == jnp.float32 and all(isinstance(n, int) and n > 0 for n in a.shape)
        for a in arrays
    )


def available() -> bool:
    """Whether the kernels are there; compiles them at the first call on a machine.

    Without them everything works, slower: `why_not` says what is missing.
    """
    return not why_not()


@functools.cache
def why_not() -> str:
    """Why there are no kernels, in one line; empty where there are."""
    if os.environ.get(SWITCH, "1") == "0":
        return f"{SWITCH} is 0"
    if sys.platform not in ("linux", "darwin"):
        return "they are built on Linux and macOS alone"
    try:
        library = ctypes.CDLL(str(_built()))
        for target in _TARGETS:
            capsule = jax.ffi.pycapsule(getattr(library, target))
            jax.ffi.register_ffi_target(target, capsule, platform="cpu")
    except (OSError, RuntimeError, AttributeError, ValueError) as error:
        reason = " ".join(str(error).split())
        logging.info("convolutions are XLA's: %s", reason)
        return reason
    return ""


def _built() -> pathlib.Path:
    """The library's file, compiled unless it is there.

    Raises:
        RuntimeError: there is no compiler, or it fails.
        OSError: nothing can be written.
    """
    compiler = find_compiler()
    command = [compiler, *_FLAGS, *_tuning(), "-I", jax.ffi.include_dir()]
    about = [jax.__version__, os.path.realpath(compiler), *command]
    digest = hashlib.sha256("\0".join(about).encode())
    for source in sorted((*_FOLDER.glob("*.h"), *_FOLDER.glob("*.cc"))):
        digest.update(source.read_bytes())
    folder = cache_folder.folder("kernels")
    library = folder / f"kernels-{digest.hexdigest()[:16]}.so"
    if library.exists():
        return library
    import filelock  # loading alone asks for no more than JAX

    with filelock.FileLock(folder / "lock", timeout=2 * _LONGEST):
        if not library.exists():
            logging.info("compiling kernels for this processor, once")
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                made = pathlib.Path(scratch) / library.name
                _run([*command, "-o", str(made), str(_FOLDER / "kernels.cc")])
                os.replace(made, library)
    return library


def find_compiler() -> str:
    """The C++ compiler that builds the kernels: $CXX, or one on PATH.

    Raises:
        RuntimeError: there is none, with what to do.
    """
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
    for name in names:
        if (path := shutil.which(name)) is not None:
            return path
    raise RuntimeError(f"no C++ compiler ({', '.join(names)}); install g++ or set CXX")


def _tuning() -> tuple[str, ...]:
    """What makes a compiler use all that this processor has."""
    if platform.machine() in ("x86_64", "AMD64"):
        return ("-march=native", "-mprefer-vector-width=512")
    return ("-mcpu=native",)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_LONGEST, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{command[0]} took more than {_LONGEST} s") from error
    if done.returncode:
        said = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()
        first = next((line for line in said if "error" in line), said[0])
        raise RuntimeError(f"{command[0]} cannot compile the kernels: {first}")
