"""Pictures that somebody sent."""

import pathlib

import numpy as np

from cmtl_jax import pictures
from cmtl_jax.errors import UserError

# How files of pictures.SUFFIXES begin; Pillow reads others, too, some by calling other programs.
_STARTS = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF8",
    b"RIFF",
    b"BM",
    *(b"P%d" % kind for kind in range(1, 7)),
    *(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
)
_LEAST_SIDE = 64  # networks see pictures padded to this
_LONGEST_NAME = 120


class FormatError(UserError):
    """A file of a kind that is not read."""


class SizeError(UserError):
    """A picture with more pixels than are counted."""


def file_name(name: str | None) -> str:
    """What to call a file: without folders and what cannot be printed."""
    name = pathlib.PureWindowsPath(name or "").name  # it knows both kinds of separators
    name = "".join(c for c in name if c.isprintable()).strip()
    return name[-_LONGEST_NAME:] or "picture"


def decode(data: bytes, name: str, channels: int, max_pixels: int) -> np.ndarray:
    """Decodes a picture's file; what must not be decoded is refused by its first bytes.

    Args:
        data: the file.
        name: for messages.
        channels: 1 for grey, 3 for RGB.
        max_pixels: a side shorter than 64 counts as 64.

    Returns:
        uint8 [H, W, channels].

    Raises:
        FormatError: of a kind that is not in `pictures.SUFFIXES`.
        SizeError: too many pixels.
        UserError: truncated or not a picture.
    """
    if not data.startswith(_STARTS):
        raise FormatError(f"{name} is none of {', '.join(pictures.SUFFIXES)}; save it as JPEG")
    height, width = pictures.size(data, name)
    if max(height, _LEAST_SIDE) * max(width, _LEAST_SIDE) > max_pixels:
        raise SizeError(
            f"{name} declares {width} x {height} pixels, more than the limit of {max_pixels:,}; "
            "make it smaller"
        )
    return pictures.decode(data, name, channels, max_pixels)
