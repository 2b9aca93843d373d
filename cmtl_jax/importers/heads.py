"""Marks of one picture to head points."""

import collections
import dataclasses
import pathlib
from collections.abc import Collection

import numpy as np
from PIL import ExifTags, Image

from cmtl_jax import pictures
from cmtl_jax.datasets import annotations
from cmtl_jax.errors import UserError
from cmtl_jax.importers.marked import BOX, ELLIPSE, POINT, Mark, Marked

BOX_POINTS = ("top", "centre")  # of its upper edge, of the whole


@dataclasses.dataclass(frozen=True, eq=False)
class Heads:
    """The head points of one picture.

    Attributes:
        points: float64 [N, 2] (x, y), pixels of the upright picture, 0-based, finite.
        shapes: number of marks of each kind but POINT; BOX and ELLIPSE are among the points, others
            are left out.
        not_finite: number of points left out as a coordinate is missing or infinite.
        outside: number of points outside the picture, among `points`.
        duplicates: number of points that stand where another stands, among `points`.
        orientation: EXIF, 1 upright to 8.
        turned: whether the points were turned with the picture, as it was annotated lying.
    """

    points: np.ndarray
    shapes: collections.Counter[str]
    not_finite: int
    outside: int
    duplicates: int
    orientation: int
    turned: bool


def of(
    marked: Marked,
    picture: pathlib.Path,
    labels: Collection[str] | None = None,
    box_point: str = BOX_POINTS[0],
) -> Heads:
    """The head points of a picture.

    Args:
        marked: the picture's marks.
        picture: the picture file; its header alone is read.
        labels: of the marks to take; None takes all.
        box_point: one of BOX_POINTS, the point that a box becomes; moved into the picture where the
            box is not wholly outside.

    Raises:
        UserError: an unreadable picture, one of another size than the one annotated, or x and y
            swapped.
    """
    marks = [mark for mark in marked.marks if labels is None or mark.label in labels]
    size = height, width = pictures.size(picture)
    turned = _is_turned(marked, picture, size)
    used = [mark for mark in marks if mark.kind in (POINT, BOX, ELLIPSE)]
    corners = np.array([_corners(mark) for mark in used], np.float64).reshape(-1, 2)
    if marked.shares:
        corners = corners * (width, height)
    if turned:
        corners = turn(corners, orientation(picture), *marked.size)
    corners = corners.reshape(-1, 2, 2)
    finite = np.isfinite(corners).all(axis=(1, 2))
    boxes = np.array([mark.kind == BOX for mark in used], bool)[finite]
    first, last = corners[finite].min(axis=1), corners[finite].max(axis=1)
    points = (first + last) / 2
    if box_point == "top":
        points[:, 1] = np.where(boxes, first[:, 1], points[:, 1])
    inside = boxes & (last > 0).all(axis=1) & (first < (width, height)).all(axis=1)
    points[inside] = points[inside].clip(0, (width - 0.5, height - 0.5))
    name = f"{marked.source} ({picture})"
    return Heads(
        points=points,
        shapes=collections.Counter(mark.kind for mark in marks if mark.kind != POINT),
        not_finite=int((~finite).sum()),
        outside=annotations.check_points(points, height, width, name),
        duplicates=len(points) - len(np.unique(points, axis=0)),
        orientation=orientation(picture),
        turned=turned,
    )


def _corners(mark: Mark) -> tuple[float, ...]:
    """Two opposite corners; of a point twice itself."""
    return mark.values if mark.kind == BOX else mark.values * 2


def _is_turned(marked: Marked, picture: pathlib.Path, size: tuple[int, int]) -> bool:
    """Whether a program that does not know EXIF orientations saw the picture lying."""
    if marked.size is None or marked.size == size:
        return False
    if marked.size == size[::-1] and orientation(picture) >= 5:
        return True
    raise UserError(
        f"{picture} has {size[1]} x {size[0]} pixels, but {marked.source} is of a picture of "
        f"{marked.size[1]} x {marked.size[0]}; give the picture that was annotated"
    )


def orientation(picture: pathlib.Path) -> int:
    """EXIF orientation of a picture file; 1, upright, where it is missing or damaged."""
    try:
        with Image.open(picture, formats=pictures.FORMATS) as opened:
            value = opened.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001  Pillow raises many kinds for a damaged block
        return 1
    return value if value in range(1, 9) else 1


def turn(points: np.ndarray, orientation: int, height: int, width: int) -> np.ndarray:
    """Points of the stored picture to points of the upright one.

    Args:
        points: [N, 2] (x, y), pixels from the upper left corner.
        orientation: EXIF, 1 to 8.
        height: of the stored picture, pixels.
        width: of the stored picture, pixels.
    """
    x, y = points[:, 0], points[:, 1]
    right, down = width - x, height - y
    turned = {
        1: (x, y), 2: (right, y), 3: (right, down), 4: (x, down),
        5: (y, x), 6: (down, x), 7: (down, right), 8: (y, right),
    }  # fmt: skip
    return np.stack(turned[orientation], axis=1)
