"""What an annotation program says of one picture, as it says it."""

import dataclasses
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

POINT, BOX, ELLIPSE = "point", "box", "ellipse"


class Mark(NamedTuple):
    """One shape.

    Attributes:
        kind: POINT, BOX, ELLIPSE (a circle, too), or the name of another kind, which is left out.
        values: (x, y) of a point or of an ellipse's centre; (left, top, right, bottom) of a box;
            empty for other kinds.
        label: class of what is marked; empty where the program has none.
    """

    kind: str
    values: tuple[float, ...] = ()
    label: str = ""


@dataclasses.dataclass(frozen=True)
class Marked:
    """One picture with its marks.

    Attributes:
        source: the annotation file.
        marks: in pixels from the upper left corner of the picture, where the first pixel reaches
            from 0 to 1; not checked.
        name: of the picture as the file has it, possibly with folders; empty where `stem` says it.
        stem: of the picture's name, which is looked for where there is no picture `name`.
        size: (height, width) of the picture that was annotated, pixels; None where it is not said.
        shares: whether coordinates are shares of width and height instead of pixels.
        empty: whether no marks mean no people, rather than a picture not annotated yet.
        finished: False where the program says that marks may be missing.
    """

    source: pathlib.Path
    marks: list[Mark]
    name: str = ""
    stem: str = ""
    size: tuple[int, int] | None = None
    shares: bool = False
    empty: bool = False
    finished: bool = True


def box_around(points: Iterable[tuple[float, float]], label: str) -> Mark:
    """The bounding box of a polygon."""
    xs, ys = zip(*points, strict=True)
    return Mark(BOX, (min(xs), min(ys), max(xs), max(ys)), label)
