"""Checks an installation; of other packages it imports none before it knows that they are there."""

import importlib
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterator

from cmtl_jax import version
from cmtl_jax.doctor import cuda
from cmtl_jax.doctor.finding import ERROR, NOTE, OK, WARNING, Finding

_ROOT = pathlib.Path(__file__).resolve().parent.parent.parent  # of a clone
_LEAST_PYTHON = (3, 11)
_PROGRAM = (  # imports everything that the commands need
    "cmtl_jax.training.train", "cmtl_jax.prediction.counter", "cmtl_jax.interop.export",
)  # fmt: skip
_EXTRAS = {
    "torch": "only to run the authors' code",
    "gradio": "a page in the browser",
    "fastapi": "the server",
    "onnx": "--config.export.format=onnx",
    "onnxruntime": "likewise",
}
_OPENCV = ("opencv-python", "opencv-contrib-python", "opencv-python-headless")
_LEAST_MEMORY = 4 * 2**30
_LEAST_FREE = 2 * 2**30  # on a disk with caches
_VARIABLES = ("JAX_", "XLA_", "CMTL_", "CUDA_VISIBLE_DEVICES", "TF_GPU_", "TFDS_DATA_DIR")


def check() -> Iterator[Finding]:
    """Findings on Python, packages, devices, memory, caches, and a small computation."""
    yield from _system()
    packages = list(_packages())
    yield from packages
    if any(finding.mark == ERROR for finding in packages):
        return
    broken = list(_imports())
    yield from broken
    if any(finding.mark == ERROR for finding in broken):
        return
    yield from _tensorflow()
    yield from _devices()
    yield from _kernels()
    yield from _resources()
    yield from _folders()
    yield from _drawing()
    yield from _extras()


def _system() -> Iterator[Finding]:
    yield Finding(OK, "program", version.describe())
    what = f"Python {platform.python_version()} ({sys.executable}) on {platform.platform()}"
    if sys.version_info < _LEAST_PYTHON:
        least = ".".join(map(str, _LEAST_PYTHON))
        yield Finding(ERROR, "python", what, f"Python {least} or newer is needed")
    else:
        yield Finding(OK, "python", what)
    found = {
        name: value for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLES)
    }
    if found:
        what = ", ".join(f"{name}={value}" for name, value in found.items())
        yield Finding(OK, "environment", f"set in the environment: {what}")


def _required() -> list[str]:
    """Requirements as in requirements-cpu.txt: of the clone, else of the installed package."""
    file = _ROOT / "requirements-cpu.txt"
    if file.is_file():
        lines = (line.partition("#")[0].strip() for line in file.read_text().splitlines())
        return [line for line in lines if line and not line.startswith("-")]
    try:
        lines = importlib.metadata.requires("cmtl_jax") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [line for line in lines if "extra ==" not in line]


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _packages() -> Iterator[Finding]:
    """Installed versions against the required ones."""
    required = {re.match(r"[\w.-]+", line)[0]: line for line in _required()}
    found = {name: _installed(name) for name in required}
    missing = [name for name, version_ in found.items() if version_ is None]
    if missing:
        what = f"{len(missing)} of {len(found)} required packages are not installed"
        if len(missing) == len(found) and (_ROOT / ".venv" / "bin" / "activate").is_file():
            advice = "activate the environment: source .venv/bin/activate"
        else:
            advice = "pip install -r requirements-cpu.txt in a clone, else pip install cmtl_jax"
        yield Finding(ERROR, "packages", f"{what} in {sys.prefix}", advice, missing)
        if len(missing) == len(found):
            return
    from packaging.requirements import Requirement  # comes with matplotlib

    wrong = 0
    for name, line in required.items():
        requirement = Requirement(line)
        if found[name] is None or (requirement.marker and not requirement.marker.evaluate()):
            continue
        if not requirement.specifier.contains(found[name], prereleases=True):
            wrong += 1
            lower = [part for part in requirement.specifier if part.operator in (">=", ">", "==")]
            old = any(not part.contains(found[name], prereleases=True) for part in lower)
            what = f"{name} {found[name]} is installed, {requirement.specifier} is needed"
            advice = f'pip install "{name}{requirement.specifier}"'
            yield Finding(ERROR if old else WARNING, "packages", what, advice)
    if not missing and not wrong:
        main = ", ".join(f"{name} {found[name]}" for name in list(found)[:4])
        what = f"all {len(found)} required packages are there in versions that fit: {main}, ..."
        yield Finding(OK, "packages", what)
    opencv = [name for name in _OPENCV if _installed(name)]
    if len(opencv) > 1:
        what = f"{len(opencv)} packages of OpenCV overwrite each other's files"
        advice = f"keep one: pip uninstall {' '.join(opencv)}; pip install opencv-python-headless"
        yield Finding(NOTE, "packages", what, advice, opencv)


def _imports() -> Iterator[Finding]:
    began = time.monotonic()
    for name in _PROGRAM:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001  a broken package may raise anything
            what = f"importing the program fails ({type(error).__name__}: {error})"
            advice = "install the package that is named again: pip install --force-reinstall NAME"
            if "libGL" in str(error):
                advice = "pip uninstall opencv-python; pip install opencv-python-headless"
            yield Finding(ERROR, "imports", what, advice)
            return
    seconds = time.monotonic() - began
    yield Finding(OK, "imports", f"the program and its packages import, in {seconds:.1f} s")


def _tensorflow() -> Iterator[Finding]:
    there = importlib.util.find_spec("tensorflow") is not None
    what = "installed, not used and not needed" if there else "not installed, not needed"
    yield Finding(OK, "tensorflow", f"TensorFlow is {what}")


def _kernels() -> Iterator[Finding]:
    from cmtl_jax.kernels import library  # noqa: PLC0415

    try:
        compiler = library.find_compiler()
    except RuntimeError as error:
        what, _, advice = str(error).partition("; ")
        what = f"{what}: training and counting on the CPU take about twice as long"
        yield Finding(NOTE, "kernels", what, advice)
        return
    yield Finding(OK, "kernels", f"for the CPU, compiled when they are first used, by {compiler}")


def _devices() -> Iterator[Finding]:
    import jax  # noqa: PLC0415

    from cmtl_jax import console  # noqa: PLC0415

    try:
        devices = jax.devices()
    except Exception as error:  # noqa: BLE001  RuntimeError or, of some versions, AssertionError
        what = f"JAX finds no device ({console.one_line(error)})"
        asked = os.environ.get("JAX_PLATFORMS")
        advice = f"JAX_PLATFORMS={asked} asks for it: unset it" if asked else "install jax again"
        yield Finding(ERROR, "devices", what, advice)
        yield from cuda.findings(cuda.look([]))
        return
    kind, limit = devices[0].device_kind, (_memory_of(devices[0]) or 0) / 2**30
    memory = f", {limit:.0f} GiB each" if limit else ""
    what = f"{len(devices)} x {kind} ({devices[0].platform}{memory}), jax {jax.__version__}"
    yield Finding(OK, "devices", what)
    yield from cuda.findings(cuda.look(devices))
    yield _computation()


def _memory_of(device) -> int | None:
    try:
        return (device.memory_stats() or {}).get("bytes_limit")
    except Exception:  # noqa: BLE001  not every backend knows
        return None


def _computation() -> Finding:
    """A small convolution, compiled as the program's are, against the same in NumPy."""
    import jax  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415

    from cmtl_jax.parallel import Parallel  # noqa: PLC0415

    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, 16, 16, 2)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 2, 4)).astype(np.float32)

    def convolve(image, kernel):
        return jax.lax.conv_general_dilated(
            image, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    began = time.monotonic()
    try:
        parallel = Parallel()
        arguments = parallel.replicate((image, kernel))
        result = np.asarray(parallel.once(convolve, *arguments))
    except Exception as error:  # noqa: BLE001  drivers and libraries fail in many ways
        first = (str(error).strip().splitlines() or [""])[0]
        what = f"a small computation fails ({type(error).__name__}: {first[:300]})"
        advice = "JAX_PLATFORMS=cpu computes on the CPU; look at the lines on devices and cuda"
        return Finding(ERROR, "computation", what, advice)
    seconds = time.monotonic() - began
    expected = sum(
        image[:, i : i + 14, j : j + 14] @ kernel[i, j] for i in range(3) for j in range(3)
    )
    error = float(np.abs(result - expected).max() / np.abs(expected).max())
    what = f"a small convolution, compiled in {seconds:.1f} s, agrees with NumPy to {error:.0e}"
    if not error < 1e-4:
        return Finding(ERROR, "computation", what, "install jax and its CUDA packages again")
    return Finding(OK, "computation", what)


def _resources() -> Iterator[Finding]:
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    quota = _cgroup("cpu.max")
    limit = ""
    if quota and quota[0].isdigit():
        share = int(quota[0]) / int(quota[1])
        limit = f", of which this container may use {share:g}" if share < usable else ""
    yield Finding(OK, "processors", f"{usable} of {cores} cores{limit}")
    total, free = _memory()
    if total is None:
        return
    what = f"{total / 2**30:.1f} GiB of memory"
    what += "" if free is None else f", {free / 2**30:.1f} GiB free"
    if total < _LEAST_MEMORY:
        advice = "lower --config.dataset.cache_mib and --config.train.batch_size"
        yield Finding(NOTE, "memory", what, advice)
    else:
        yield Finding(OK, "memory", what)


def _cgroup(name: str) -> list[str]:
    """Words of a limit of this container; none where there is none."""
    try:
        return pathlib.Path("/sys/fs/cgroup", name).read_text().split()
    except OSError:
        return []


def _memory() -> tuple[int | None, int | None]:
    """Bytes in all, and free; None where the system does not say."""
    try:
        text = pathlib.Path("/proc/meminfo").read_text()
        known = {name: int(kib) * 1024 for name, kib in re.findall(r"(\w+): +(\d+) kB", text)}
        total, free = known["MemTotal"], known.get("MemAvailable")
    except (OSError, KeyError):
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), None
        except (AttributeError, OSError, ValueError):  # Windows
            return None, None
    limit = _cgroup("memory.max")
    if limit and limit[0].isdigit() and int(limit[0]) < total:
        total = int(limit[0])
        used = _cgroup("memory.current")
        free = total - int(used[0]) if used else None
    return total, free


def _folders() -> Iterator[Finding]:
    """Where prepared data, compiled programs and raw data lie."""
    import jax  # noqa: PLC0415

    from cmtl_jax import compilation_cache, config  # noqa: PLC0415

    compilation_cache.enable()
    programs = jax.config.jax_compilation_cache_dir
    if programs and jax.config.jax_enable_compilation_cache:
        yield _folder("cache.programs", "compiled programs", programs, "JAX_COMPILATION_CACHE_DIR")
    else:
        yield Finding(NOTE, "cache.programs", "compiled programs are not kept: each run compiles")
    prepared = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")  # TFDS's own rule
    yield _folder("cache.data", "prepared data", prepared, "--config.dataset.tfds_dir")
    raw = config.data_dir()
    there = [name for name in ("ShanghaiTech", "UCF_CC_50") if (raw / name).is_dir()]
    what = f"raw data sets in {raw.absolute()}: {', '.join(there) or 'none'}"
    advice = "$CMTL_DATA_DIR or --config.dataset.raw_dir names another folder"
    yield Finding(OK if there else NOTE, "data", what, "" if there else advice)


def _folder(name: str, what: str, folder: str, variable: str) -> Finding:
    path = pathlib.Path(folder).expanduser().absolute()
    try:
        nearest = next(parent for parent in (path, *path.parents) if parent.exists())
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        free = shutil.disk_usage(nearest).free
    except OSError as error:  # such as a folder that others may not read, or a file just removed
        what = f"{what} go to {path}, which cannot be read ({error.strerror or error})"
        return Finding(NOTE, name, what, f"{variable} names another folder")
    what = f"{what} go to {path}: {size / 2**20:.0f} MiB, {free / 2**30:.1f} GiB free"
    if not os.access(nearest, os.W_OK):
        advice = f"it cannot be written: name another folder with {variable}"
        return Finding(WARNING, name, what, advice)
    if free < _LEAST_FREE:
        return Finding(WARNING, name, what, f"make room, or name another folder with {variable}")
    return Finding(OK, name, what)


def _drawing() -> Iterator[Finding]:
    """Pictures with text, as overlays and reports have, without display or system fonts."""
    import numpy as np  # noqa: PLC0415

    from cmtl_jax.prediction import overlay  # noqa: PLC0415

    try:
        overlay.overlay(np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.float32), count=0.0)
    except Exception as error:  # noqa: BLE001
        what = f"an overlay cannot be drawn ({type(error).__name__}: {error})"
        advice = "pip install --force-reinstall matplotlib pillow"
        yield Finding(ERROR, "drawing", what, advice)
    else:
        shown = "a" if os.environ.get("DISPLAY") else "no"
        what = f"overlays are drawn; {shown} display is there, none is needed, nor fonts"
        yield Finding(OK, "drawing", what)


def _extras() -> Iterator[Finding]:
    found = {name: _installed(name) for name in _EXTRAS}
    there = [f"{name} {version_}" for name, version_ in found.items() if version_]
    absent = [f"{name} ({_EXTRAS[name]})" for name, version_ in found.items() if not version_]
    what = f"installed: {', '.join(there) or 'none'}; not installed: {', '.join(absent) or 'none'}"
    yield Finding(OK, "optional", what)
