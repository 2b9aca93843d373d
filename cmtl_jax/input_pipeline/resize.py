"""Resizing that keeps the people: points move along, a density map keeps its sum.

Whole pictures may be resized down to sides that 4 divides (authors' test code); all pictures may be
scaled down before anything else (ours), which costs less and sees more of the scene at once.
"""

import typing
from collections.abc import Sequence

import cv2
import numpy as np

from cmtl_jax.input_pipeline.batch import Crop
from cmtl_jax.input_pipeline.picture import Picture

if typing.TYPE_CHECKING:  # counting a picture needs no data sets
    from cmtl_jax.datasets.prepare import IndexEntry

_STEP = 4
_STRIP = 2**20  # pixels of a density map resized at a time


def size(height: int, width: int) -> tuple[int, int]:
    """The next lower multiple of 4 of both sides; a picture with a side below 4 stays as it is."""
    if min(height, width) < _STEP:
        return height, width
    return height // _STEP * _STEP, width // _STEP * _STEP


def image(pixels: np.ndarray) -> np.ndarray:
    """A picture [H, W, C] resized bilinearly to `size`: float32, 0..255.

    As the authors' test code does: pixels' centres are matched and nothing is smoothed before. A
    picture that has its size already is returned as it is.
    """
    height, width = size(*pixels.shape[:2])
    if (height, width) == pixels.shape[:2]:
        return pixels
    resized = cv2.resize(
        pixels.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR
    )
    return resized.reshape(height, width, pixels.shape[2])  # OpenCV drops a single channel


def scaled_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Both sides times scale, rounded, at least 1 pixel."""
    return max(round(height * scale), 1), max(round(width * scale), 1)


def scaled_image(pixels: np.ndarray, scale: float) -> np.ndarray:
    """A picture [H, W, C] uint8 of `scaled_size`: area averages where it shrinks, else bicubic."""
    return _image_of(pixels, scaled_size(*pixels.shape[:2], scale))


def _image_of(pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    if tuple(shape) == pixels.shape[:2]:
        return pixels
    shrinks = shape[0] * shape[1] < pixels.shape[0] * pixels.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cv2.resize(pixels, shape[::-1], interpolation=how).reshape(*shape, -1)


def crop(original: Crop, shape: tuple[int, int]) -> Crop:
    """A crop with uint8 pixels resized to `shape`; its people are kept."""
    old = original.image.shape[:2]
    return Crop(
        _image_of(original.image, shape),
        density(original.density, shape),
        points(original.points, old, tuple(shape)),
    )


def points(heads: np.ndarray, old: tuple[int, int], new: tuple[int, int]) -> np.ndarray:
    """Head points float32 [N, 2] of a picture of `old` height and width, resized to `new`."""
    if old == new:
        return heads
    moved = heads * (np.array(new[::-1], np.float32) / np.array(old[::-1], np.float32))
    # Rounding must not push a point of the last pixel out.
    return np.minimum(moved, np.nextafter(np.array(new[::-1], np.float32), np.float32(0)))


def density(people: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A density map [H, W], people per pixel, on another grid of pixels: float32, the same sum.

    Each pixel's people are taken as spread evenly over it. The authors' code interpolates the map
    and multiplies by the ratio of the areas, which loses people.
    """
    if people.shape == tuple(shape):
        return people
    for axis, (number, dtype) in enumerate(zip(shape, (np.float64, np.float32), strict=True)):
        sides = list(people.shape)
        sides[axis] = number
        result = np.empty(sides, dtype)
        # In strips: what is summed up in between is many times the size of a large map.
        along = max(_STRIP // max(people.shape[axis], number), 1)
        for start in range(0, sides[1 - axis], along):
            strip = [slice(None)] * 2
            strip[1 - axis] = slice(start, start + along)
            result[tuple(strip)] = _spread(people[tuple(strip)], axis, number)
        people = result
    return people


def _spread(people: np.ndarray, axis: int, number: int) -> np.ndarray:
    """`density` along one axis: float64."""
    total = np.cumsum(people, axis=axis, dtype=np.float64)
    total = np.insert(total, 0, 0.0, axis=axis)
    edges = np.arange(number + 1) * (people.shape[axis] / number)
    lower = np.minimum(edges.astype(np.int64), people.shape[axis] - 1)
    part = np.expand_dims(edges - lower, 1 - axis)
    below, above = (np.take(total, lower + i, axis=axis) for i in (0, 1))
    return np.diff(below + part * (above - below), axis=axis)


def picture(original: Picture) -> Picture:
    """An annotated picture resized; the number of head points and the map's sum are kept."""
    return annotated(original, image(original.image))


def annotated(original: Picture, pixels: np.ndarray) -> Picture:
    """The picture with other pixels [H, W, C]; points and map move along to their size."""
    old, new = original.image.shape[:2], pixels.shape[:2]
    if new == old:
        return original._replace(image=pixels)
    moved = points(original.points, old, new)
    return Picture(original.id, pixels, moved, density(original.density, new))


class ResizedPictures:
    """Pictures resized as they are read: a sequence like Pictures; doing it twice does nothing."""

    def __init__(self, pictures):
        """Nothing is read."""
        self._pictures = pictures
        self.channels = pictures.channels

    def subset(self, positions: Sequence[int]) -> "ResizedPictures":
        """The pictures at these positions."""
        return ResizedPictures(self._pictures.subset(positions))

    @property
    def index(self) -> "list[IndexEntry]":
        """Id, resized height and width, and count of each picture, without reading it."""
        entries = self._pictures.index
        resized = [size(entry.height, entry.width) for entry in entries]
        return [e._replace(height=h, width=w) for e, (h, w) in zip(entries, resized, strict=True)]

    def points(self, position: int) -> np.ndarray:
        """Head points float32 [N, 2] of a resized picture."""
        return self[position].points

    def original(self, position: int) -> Picture:
        """The picture before it is resized."""
        return self._pictures.original(position)

    def pixels_size(self, position: int) -> tuple[int, int]:
        """Height and width of the picture itself, before anything is done to it."""
        return self._pictures.pixels_size(position)

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, position: int) -> Picture:
        """A picture; its image is float32 where it was resized.

        Raises:
            UserError: the picture is damaged.
            IndexError: there is no such position.
        """
        return picture(self._pictures[position])
