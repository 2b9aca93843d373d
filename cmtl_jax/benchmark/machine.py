"""The machine that a measurement was made on, and whether it was quiet."""

import os
import pathlib
import platform
import re
from typing import Any

BUSY_LOAD = 0.5  # processes that wanted to run in the minute before; more disturb what is measured


def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load() -> float | None:
    """Mean number of processes that wanted to run in the last minute; None where nobody counts."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def describe() -> dict[str, Any]:
    """Processor, cores, memory, system, Python and the load."""
    return {
        "processor": _processor(),
        "instructions": _instructions(),
        "cores": cores(),
        "memory_bytes": memory_bytes("MemTotal"),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_before": load(),
    }


def memory_bytes(name: str) -> int | None:
    """A line of /proc/meminfo, such as MemTotal or MemAvailable; None where there is none."""
    found = re.search(rf"(?m)^{name}:\s+(\d+) kB", _read("/proc/meminfo"))
    return int(found[1]) * 1024 if found else None


def _processor() -> str:
    found = re.search(r"(?m)^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"))
    return found[1].strip() if found else platform.processor() or platform.machine()


def _instructions() -> list[str]:
    """The widest vector and matrix instructions that the processor says it has."""
    flags = set(re.findall(r"\w+", _read("/proc/cpuinfo")))
    known = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16", "asimd", "sve")
    return [name for name in known if name in flags]


def _read(path: str) -> str:
    try:
        return pathlib.Path(path).read_text()
    except OSError:  # not Linux
        return ""
