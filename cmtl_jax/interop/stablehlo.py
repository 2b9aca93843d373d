"""Trained weights as one StableHLO program (jax.export), which jax alone runs.

The file is what jax.export.deserialize reads, and behind that a last line of JSON, which says what
the program wants and gives. One file serves CPU and CUDA, and batches of all sizes.
"""

import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import export

from cmtl_jax.interop import description
from cmtl_jax.models import cmtl
from cmtl_jax.models.layers import STRIDE
from cmtl_jax.trained_model import TrainedModel

PLATFORMS = ("cpu", "cuda")

_INPUTS = (
    "image uint8 [b, 4h, 4w, {channels}]: pictures in the upper left corners, whatever values "
    "beside them; size int32 [b, 2]: height and width of each picture, at least 1"
)
_OUTPUTS = (
    "a dict: density float32 [b, 4h, 4w, 1], exactly 0 beside the pictures; count float32 [b]"
)
_USE = (
    "jax.export.deserialize(bytearray(open(FILE, 'rb').read())).call(image, size); needs jax and "
    "flatbuffers"
)


def encode(trained: TrainedModel, *, precision: str = "float32") -> bytes:
    """The content of a program file.

    Args:
        trained: the weights.
        precision: of convolutions of float32 arrays, see Parallel.
    """
    about = description.describe(trained) | {
        "inputs": _INPUTS.format(channels=trained.config.input.channels),
        "outputs": _OUTPUTS,
        "use": _USE,
        "platforms": list(PLATFORMS),
        "jax": jax.__version__,
    }
    program = bytes(build(trained, precision=precision).serialize())
    return program + b"\n" + json.dumps(about).encode() + b"\n"


def build(trained: TrainedModel, *, precision: str = "float32") -> export.Exported:
    """The program: (image uint8 [b, 4h, 4w, C], size int32 [b, 2]) -> {density, count}.

    Preprocessing and the scale of the density are part of it, and the fully connected head only
    where the density needs it (prior_fusion 'film').
    """
    c = trained.config
    modulated = c.model.name == "cmtl" and c.model.prior_fusion == "film"
    params = jax.tree.map(np.asarray, trained.params)  # constants of the program
    mean, std = np.float32(c.input.mean), np.float32(c.input.std)

    def count_people(image: jax.Array, size: jax.Array) -> dict[str, jax.Array]:
        x, seen = image.astype(jnp.float32), size
        if c.input.resize == "multiple_of_4":
            # Both sides of a picture with one below 4 stay as they are (see resize.size).
            small = (size < STRIDE).any(axis=1, keepdims=True)
            seen = jnp.where(small, size, size // STRIDE * STRIDE)
            x = _along_both_sides(_bilinear, x, size, seen)
        with contextlib.nullcontext() if modulated else nn.intercept_methods(_without_head):
            density = trained.model.apply({"params": params}, (x - mean) / std, seen).density
        if c.input.resize == "multiple_of_4":
            density = _along_both_sides(_spread, density, seen, size)
        return {"density": density, "count": density.sum((1, 2, 3))}

    b, h, w, channels = export.symbolic_shape(f"b, 4*h, 4*w, {c.input.channels}")
    image = jax.ShapeDtypeStruct((b, h, w, channels), jnp.uint8)
    size = jax.ShapeDtypeStruct((b, 2), jnp.int32)
    with jax.default_matmul_precision(precision), _no_locations():
        return export.export(jax.jit(count_people), platforms=PLATFORMS)(image, size)


class Program:
    """A program file, run on pictures one at a time.

    Attributes:
        about: what the file says of itself.
    """

    def __init__(self, path: pathlib.Path):
        """Reads a file of what `encode` gives."""
        data = path.read_bytes()
        self._call = jax.jit(export.deserialize(bytearray(data)).call)
        self.about: dict[str, Any] = json.loads(data.rstrip(b"\n").rpartition(b"\n")[2])

    def __call__(self, picture: np.ndarray) -> tuple[np.ndarray, float]:
        """uint8 [H, W, C] -> density float32 [H, W], count."""
        height, width, channels = picture.shape
        sides = [-(-side // STRIDE) * STRIDE for side in (height, width)]
        image = np.zeros((1, *sides, channels), np.uint8)
        image[0, :height, :width] = picture
        result = self._call(image, np.array([[height, width]], np.int32))
        density = np.asarray(result["density"])[0, :height, :width, 0]
        return density, float(result["count"][0])


def _without_head(call, args, kwargs, context):
    """The groups are not asked for."""
    return None if isinstance(context.module, cmtl.GroupHead) else call(*args, **kwargs)


@contextlib.contextmanager
def _no_locations() -> Iterator[None]:
    """Programs lowered inside do not hold the paths of the files of this machine."""
    key = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, key)
    jax.config.update(key, 0)
    try:
        yield
    finally:
        jax.config.update(key, before)


def _along_both_sides(weights, x: jax.Array, old: jax.Array, new: jax.Array) -> jax.Array:
    """x [B, H, W, C] of sizes old on the grids of sizes new, both int32 [B, 2]."""
    _, height, width, _ = x.shape
    x = jnp.einsum("bij,bjwc->biwc", weights(old[:, 0], new[:, 0], height), x)
    return jnp.einsum("bij,bhjc->bhic", weights(old[:, 1], new[:, 1], width), x)


def _bilinear(old: jax.Array, new: jax.Array, length: int) -> jax.Array:
    """Weights [B, length, length] of old pixels for each new one; centres are matched.

    Counted in 1 / (2 new) pixels, so that whole numbers say exactly where a new pixel looks.
    """
    old, new = old[:, None, None], new[:, None, None]
    i, j = jnp.arange(length)[:, None], jnp.arange(length)[None, :]
    place = jnp.clip((2 * i + 1) * old - new, 0, 2 * new * (old - 1))
    return jnp.maximum(2 * new - jnp.abs(place - 2 * new * j), 0) / (2 * new)


def _spread(old: jax.Array, new: jax.Array, length: int) -> jax.Array:
    """Shares [B, length, length] of each old pixel that lie in a new one; they keep the sum."""
    old, new = old[:, None, None], new[:, None, None]
    i, j = jnp.arange(length)[:, None], jnp.arange(length)[None, :]
    stop, start = jnp.minimum((i + 1) * old, (j + 1) * new), jnp.maximum(i * old, j * new)
    return jnp.maximum(stop - start, 0) / new
