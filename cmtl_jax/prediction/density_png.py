"""Density maps as 16-bit PNG files, with the scale that turns them back into people."""

import io

import numpy as np
from PIL import Image, PngImagePlugin

_TOP = 65535
_KEY = "people_per_level"


def people_per_level(density: np.ndarray) -> float:
    """What one of the 65,535 grey levels stands for, in people per pixel.

    Args:
        density: [H, W] people per pixel; its largest value is the brightest level.
    """
    top = float(density.max(initial=0.0))
    return (top if 0 < top < np.inf else 1.0) / _TOP


def encode(density: np.ndarray) -> bytes:
    """A 16-bit grey PNG file: people per pixel = level x people_per_level.

    The scale stands in its text chunk `people_per_level`, with all digits. A pixel is rounded to
    the nearest level, and negative densities, which only weights without a last ReLU have, to 0.

    Args:
        density: [H, W] people per pixel.
    """
    scale = people_per_level(density)
    levels = np.empty(density.shape, np.uint16)
    for row, people in zip(levels, density, strict=True):  # all at once would take much memory
        row[:] = np.clip(np.rint(np.divide(people, scale, dtype=np.float64)), 0, _TOP)
    text = PngImagePlugin.PngInfo()
    text.add_text(_KEY, repr(scale))
    text.add_text("Description", f"density map; people per pixel = level * {_KEY}")
    with io.BytesIO() as file:
        Image.fromarray(levels).save(file, "PNG", pnginfo=text)
        return file.getvalue()


def decode(data: bytes) -> np.ndarray:
    """The density map of `encode`, to half a level: float32 [H, W], people per pixel.

    Raises:
        ValueError: no PNG file with that scale.
    """
    with Image.open(io.BytesIO(data)) as picture:
        if _KEY not in picture.info:
            raise ValueError(f"no text chunk {_KEY!r}: not a density map of this program")
        return (np.asarray(picture) * float(picture.info[_KEY])).astype(np.float32)
