"""Weights of ours in one safetensors file, with all that belongs to them in its metadata.

A tensor is named by its path in the parameters, such as `shared/conv1/conv/kernel`, in our layout.
Each entry of the metadata is JSON: the config with its preprocessing, the count groups, and where
the weights come from. Any program that knows safetensors reads both; nothing is unpickled.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from cmtl_jax import work_folder
from cmtl_jax.errors import UserError

PyTree = Any

SUFFIX = ".safetensors"
NEEDED = ("config", "groups", "data", "train_ids_sha256", "step")  # to use the weights

_FORMAT = "cmtl_jax 1"
_LONGEST_HEADER = 100_000_000  # bytes, the format's own limit


def write(
    path: str | os.PathLike, params: PyTree, about: Mapping[str, Any], dtype: str = "float32"
) -> None:
    """Writes a file whole or not at all; makes its folder.

    Args:
        path: of the file.
        params: nested dict of arrays.
        about: what a checkpoint says of itself, with its training step: at least the entries
            NEEDED, each a value that JSON holds. Folders of this machine in it are written, too.
        dtype: of the file, 'float32' or 'float16' (half the size; weights keep 11 bits).

    Raises:
        UserError: no room, or weights that float16 cannot hold.
        ValueError: another dtype, or an entry is missing.
    """
    if dtype not in ("float32", "float16"):
        raise ValueError(f"weights are stored as float32 or float16, not {dtype!r}")
    missing = [key for key in NEEDED if key not in about]
    if missing:
        raise ValueError(f"weights without {', '.join(missing)} could not be used again")
    arrays = {}
    for name, x in traverse_util.flatten_dict(params, sep="/").items():
        wide = np.asarray(x, np.float32)
        with np.errstate(over="ignore"):  # told below
            # The format knows no strides.
            arrays[name] = np.ascontiguousarray(wide.astype(dtype)).reshape(wide.shape)
        if np.isfinite(wide).all() and not np.isfinite(arrays[name]).all():
            raise UserError(f"{path}: {name} is beyond what float16 holds; store float32")
    metadata = {key: json.dumps(value) for key, value in about.items()}
    data = safetensors.numpy.save(arrays, {"format": _FORMAT, **metadata})
    try:
        work_folder.write(path, data)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}; make room or choose another") from error


def read(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads a file of `write`.

    Returns:
        params: nested dict of float32 arrays.
        about: as it was given.

    Raises:
        UserError: no such file, damaged, or a safetensors file of something else.
    """
    try:
        with safetensors.safe_open(os.fspath(path), "numpy") as file:
            metadata = file.metadata() or {}
            names = sorted(file.keys())
            if metadata.get("format") != _FORMAT:
                raise UserError(f"{path} {_what_else(metadata, names)}")
            arrays = {name: file.get_tensor(name).astype(np.float32) for name in names}
        about = {key: json.loads(text) for key, text in metadata.items() if key != "format"}
        missing = [key for key in NEEDED if key not in about]
        if missing:
            raise ValueError(f"it does not say {', '.join(missing)}")
        return traverse_util.unflatten_dict(arrays, sep="/"), about
    # safe_open raises OSError and its own error, and TypeError for types that NumPy lacks.
    except (OSError, safetensors.SafetensorError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read as weights in a safetensors file: {error}; copy or export it "
            "again"
        ) from error


def is_one(path: pathlib.Path) -> bool:
    """Whether a file begins as safetensors files do, whatever its name and whoever's it is.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            first = file.read(9)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from error
    return first[8:] == b"{" and int.from_bytes(first[:8], "little") <= _LONGEST_HEADER


def _what_else(metadata: Mapping[str, str], names: list[str]) -> str:
    """What a safetensors file is that holds no weights of ours."""
    if metadata.get("format", "").startswith("cmtl_jax"):
        return f"is of another version ({metadata['format']}, here {_FORMAT}); update cmtl_jax"
    says = f", says format {metadata['format']!r}" if "format" in metadata else ""
    first = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return (
        f"is a safetensors file, but not of cmtl_jax's weights{says}: it holds "
        f"{first or 'no tensors'}; name weights of this program"
    )
