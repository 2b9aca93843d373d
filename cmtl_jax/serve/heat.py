"""The density map as a layer that a page lays over the picture."""

import dataclasses
import functools
import io

import matplotlib
import numpy as np
from PIL import Image

from cmtl_jax.prediction import overlay

MAX_SIDE = 1600  # pixels; pages show pictures smaller
_CLEAR = 80  # of the 256 colours fade in, as networks leave a faint background


@dataclasses.dataclass(frozen=True)
class Heat:
    """A layer and its scale.

    Attributes:
        png: colours of `overlay.OVERLAY_COLORMAP` over the square root of the density, clear where
            there is none; at most MAX_SIDE pixels a side.
        top: density of the last colour, in `overlay.UNIT`.
        clipped: whether some of the map is denser than that.
    """

    png: bytes
    top: float
    clipped: bool


def layer(density: np.ndarray) -> Heat:
    """The layer of a density map [H, W], people per pixel."""
    shape = overlay.fit(*density.shape, MAX_SIDE)
    per_patch = np.maximum(overlay.mean_density(density, shape), 0) * overlay.PATCH_SIDE**2
    top = overlay.scale_top(per_patch)
    index = (np.sqrt(np.minimum(per_patch / top, 1)) * 255).round().astype(np.uint8)
    return Heat(_encode(index), top, bool(per_patch.max() > top))


@functools.cache
def scale() -> bytes:
    """The colours of a layer from none to most: a PNG of 256x1 pixels."""
    return _encode(np.arange(256, dtype=np.uint8)[None])


def _encode(index: np.ndarray) -> bytes:
    image = Image.fromarray(index)
    colors = matplotlib.colormaps[overlay.OVERLAY_COLORMAP](np.arange(256))[:, :3]
    image.putpalette((colors * 255).round().astype(np.uint8).tobytes())
    alpha = np.minimum(np.arange(256) / _CLEAR, 1) * 255
    file = io.BytesIO()
    image.save(file, "PNG", transparency=alpha.round().astype(np.uint8).tobytes())
    return file.getvalue()
