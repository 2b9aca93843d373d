"""Whether JAX computes on the NVIDIA GPUs of this machine, and why not."""

import dataclasses
import importlib.metadata
import os
import pathlib
import subprocess
from collections.abc import Iterator, Mapping, Sequence

from cmtl_jax.doctor.finding import NOTE, OK, WARNING, Finding

_LEAST_DRIVER = {12: 525, 13: 580}  # that NVIDIA asks for, by CUDA's major version
_PLUGINS = {12: "jax-cuda12-plugin", 13: "jax-cuda13-plugin"}


@dataclasses.dataclass(frozen=True)
class Seen:
    """What is known of this machine's GPUs.

    Attributes:
        gpus: names by nvidia-smi; None where there is no such program.
        driver: its version; '' where it is not known.
        complaint: of nvidia-smi, where it fails.
        platform: JAX's: 'cpu', 'gpu', 'tpu'; '' where it has no device.
        devices: how many it has.
        jax: version.
        plugins: version of JAX's CUDA plugin by CUDA's major version.
        environment: variables.
        device_files: whether the system has files of an NVIDIA driver.
    """

    gpus: Sequence[str] | None
    driver: str
    complaint: str
    platform: str
    devices: int
    jax: str
    plugins: Mapping[int, str]
    environment: Mapping[str, str]
    device_files: bool


def look(devices: Sequence) -> Seen:
    """Asks nvidia-smi and the environment; devices are JAX's."""
    gpus, driver, complaint = _nvidia_smi()
    return Seen(
        gpus,
        driver,
        complaint,
        devices[0].platform if devices else "",
        len(devices),
        importlib.metadata.version("jax"),
        _plugins(),
        dict(os.environ),
        any(pathlib.Path(path).exists() for path in ("/dev/nvidia0", "/proc/driver/nvidia")),
    )


def _nvidia_smi() -> tuple[list[str] | None, str, str]:
    """Names of the GPUs, version of the driver, and what went wrong."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        return None, "", ""
    except (OSError, subprocess.SubprocessError) as error:
        return [], "", f"{type(error).__name__}: {error}"
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    if done.returncode or not lines or "," not in lines[0]:
        said = (done.stdout.strip() or done.stderr.strip()).splitlines()
        return [], "", said[0] if said else f"exit status {done.returncode}"
    rows = [[cell.strip() for cell in line.rsplit(",", 1)] for line in lines]
    return [name for name, _ in rows], rows[0][1], ""


def _plugins() -> dict[int, str]:
    found = {}
    for major, name in _PLUGINS.items():
        try:
            found[major] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def findings(seen: Seen) -> Iterator[Finding]:
    """One line, or two, on what is used and why not more."""
    if seen.gpus is None:
        yield _without_smi(seen)
    elif not seen.gpus:
        what = f"nvidia-smi is there but fails ({seen.complaint})"
        advice = "restart the machine, or install the NVIDIA driver again"
        yield Finding(WARNING, "cuda", what, advice)
    elif seen.platform == "gpu":
        what = f"{seen.devices} of {_named(seen)} used"
        if seen.devices < len(seen.gpus):
            chosen = seen.environment.get("CUDA_VISIBLE_DEVICES")
            advice = "" if chosen is None else f"CUDA_VISIBLE_DEVICES={chosen} says so"
            yield Finding(NOTE, "cuda", what, advice)
        else:
            yield Finding(OK, "cuda", what)
    else:
        yield _unused(seen)


def _named(seen: Seen) -> str:
    return f"{len(seen.gpus)} x {seen.gpus[0]} (driver {seen.driver})"


def _without_smi(seen: Seen) -> Finding:
    if seen.platform not in ("cpu", ""):
        return Finding(OK, "cuda", f"no nvidia-smi here; JAX computes on {seen.platform}")
    if seen.device_files:
        what = "this machine has an NVIDIA driver, but nvidia-smi is not on PATH"
        advice = "in a container, start it with the GPUs (docker run --gpus all)"
        return Finding(WARNING, "cuda", what, advice)
    if seen.plugins:
        what = "no NVIDIA driver here, though JAX's CUDA packages are installed"
        return Finding(NOTE, "cuda", what, "JAX_PLATFORMS=cpu keeps JAX from complaining")
    return Finding(OK, "cuda", "no NVIDIA GPU here")


def _unused(seen: Seen) -> Finding:
    on = f"computes on {seen.platform}" if seen.platform else "has no device"
    what = f"{_named(seen)} found, but JAX {on}: "
    environment = seen.environment
    platforms = environment.get("JAX_PLATFORMS", "")
    driver = int(seen.driver.split(".")[0]) if seen.driver.split(".")[0].isdigit() else 0
    fitting = max((cuda for cuda, least in _LEAST_DRIVER.items() if driver >= least), default=0)
    install = f'pip install "jax[cuda{fitting}]=={seen.jax}"'
    update = f"update the NVIDIA driver to {_LEAST_DRIVER[12]} or newer"
    if platforms and not {"cuda", "gpu"} & set(platforms.split(",")):
        return Finding(
            NOTE, "cuda", f"{what}JAX_PLATFORMS={platforms} says so", "unset it to use the GPU"
        )
    if environment.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        chosen = environment["CUDA_VISIBLE_DEVICES"]
        return Finding(
            NOTE, "cuda", f"{what}CUDA_VISIBLE_DEVICES={chosen} hides it", "unset it to use the GPU"
        )
    if not fitting:
        return Finding(WARNING, "cuda", f"{what}the driver is too old for CUDA 12", update)
    if not seen.plugins:
        return Finding(WARNING, "cuda", f"{what}its CUDA packages are not installed", install)
    cuda, version = max(seen.plugins.items())
    if driver < _LEAST_DRIVER[cuda]:
        what += f"the driver is too old for CUDA {cuda}, which asks for {_LEAST_DRIVER[cuda]}"
        advice = f"update it, or pip uninstall {_PLUGINS[cuda]} and {install}"
        return Finding(WARNING, "cuda", what, advice)
    if version != seen.jax:
        what += f"{_PLUGINS[cuda]} {version} does not fit jax {seen.jax}"
        return Finding(WARNING, "cuda", what, install)
    what += "it does not say why in short"
    advice = "python -c 'import jax; jax.devices(\"cuda\")' tells at length"
    if environment.get("LD_LIBRARY_PATH"):
        advice += "; try it with LD_LIBRARY_PATH unset, which may name another CUDA"
    return Finding(WARNING, "cuda", what, advice)
