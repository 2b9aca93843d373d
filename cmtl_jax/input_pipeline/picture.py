"""One annotated picture."""

from typing import NamedTuple

import numpy as np


class Picture(NamedTuple):
    """One annotated picture.

    Attributes:
        id: name within its data set.
        image: uint8 [H, W, C].
        points: float32 [N, 2], head points (x, y), all inside.
        density: float32 [H, W], people per pixel.
    """

    id: str
    image: np.ndarray
    points: np.ndarray
    density: np.ndarray

    @property
    def num_bytes(self) -> int:
        return self.image.nbytes + self.points.nbytes + self.density.nbytes
