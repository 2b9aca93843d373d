"""The user's cache folder: what a later run on the same machine need not make again."""

import hashlib
import os
import pathlib
import platform
import re


def folder(name: str) -> pathlib.Path:
    """$XDG_CACHE_HOME/cmtl_jax/NAME (or ~/.cache/...), one below it for each kind of processor.

    What is made for one kind may not run on another that shares the home folder.

    Raises:
        OSError: it cannot be made.
        RuntimeError: there is no home folder.
    """
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    path = pathlib.Path(base) / "cmtl_jax" / name / _processor()
    path.mkdir(parents=True, exist_ok=True)
    return path


def _processor() -> str:
    """Eight letters for this kind of processor and what it can do."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text()
        about = "".join(sorted(set(re.findall(r"(?m)^(?:model name|flags|Features).*$", text))))
    except OSError:  # not Linux
        about = platform.processor()  # starts a process on Linux
    return hashlib.sha256((platform.machine() + about).encode()).hexdigest()[:8]
