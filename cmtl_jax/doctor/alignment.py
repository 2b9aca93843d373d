"""Whether head points lie where the pictures have texture, as crowds do, or would if moved.

Whatever looks at the sides of a picture alone cannot tell that x and y are swapped in a square
picture, that points belong to the mirrored picture, or to another one. Ours; measured on
ShanghaiTech and UCF_CC_50 in docs/doctor.md.
"""

import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import scipy.stats

LEAST_POINTS = 5  # of a picture that has a say
LEAST_SCENES = 5  # different pictures for a verdict on a mirror image
LEAST_OTHERS = 20  # different pictures for a verdict on other pictures' points
CERTAIN = 3.0  # standard errors by which points fit better where they were moved to
DOUBTFUL = 2.0  # standard errors by which they must fit better than another picture's

_SIDE = 512  # pictures are reduced to this, pixels
_BLUR = 8.0  # of the gradient there, pixels
_CELLS = 128  # longest side of the result

_Move = Callable[[np.ndarray, int, int], np.ndarray]

# Where points of [height, width] pictures come to lie; the names are for people.
MOVES: dict[str, _Move] = {
    "swapped": lambda points, height, width: points[:, ::-1],
    "mirrored": lambda points, height, width: (width, 0) + points * (-1, 1),
    "upside down": lambda points, height, width: (0, height) + points * (1, -1),
    "turned by 180 degrees": lambda points, height, width: (width, height) - points,
}


def texture(grey: np.ndarray) -> np.ndarray:
    """How much texture each part of a picture has, compared with its other parts.

    Args:
        grey: uint8 [H, W].

    Returns:
        uint8 [h, w], at most 128 a side: the rank of the blurred gradient, 0 least to 255 most.
    """
    small = _reduced(grey, _SIDE).astype(np.float32)
    gradient = np.hypot(cv2.Sobel(small, cv2.CV_32F, 1, 0), cv2.Sobel(small, cv2.CV_32F, 0, 1))
    cells = _reduced(cv2.GaussianBlur(gradient, (0, 0), _BLUR), _CELLS)
    ranks = scipy.stats.rankdata(cells) - 0.5  # equal cells share their mean rank
    return (ranks.reshape(cells.shape) * 256 / cells.size).astype(np.uint8)


def _reduced(picture: np.ndarray, side: int) -> np.ndarray:
    scale = min(1.0, side / max(picture.shape))
    height, width = (max(1, round(n * scale)) for n in picture.shape)
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def inside(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Which points lie in the picture, bool [N]."""
    return ((points >= 0) & (points < (width, height))).all(axis=1)


def fit(texture: np.ndarray, points: np.ndarray, height: int, width: int) -> float:
    """Mean rank of the texture at points inside a [height, width] picture: 0 to 1, by chance 0.5.

    Points outside are left out; NaN where fewer than LEAST_POINTS remain.
    """
    points = points[inside(points, height, width)]
    if len(points) < LEAST_POINTS:
        return math.nan
    rows, columns = texture.shape
    cells = np.floor(points * (columns / width, rows / height)).astype(int)
    return float(texture[cells[:, 1], cells[:, 0]].mean() + 0.5) / 256


def gain(texture: np.ndarray, points: np.ndarray, height: int, width: int, move: _Move) -> float:
    """How much better points fit as they are than moved; of those inside both ways."""
    moved = move(points, height, width)
    both = inside(points, height, width) & inside(moved, height, width)
    as_is = fit(texture, points[both], height, width)
    return as_is - fit(texture, moved[both], height, width)


def standard_errors(gains: Sequence[float]) -> float:
    """Mean of one number a picture in standard errors of that mean; NaN for fewer than two."""
    gains = np.asarray(gains, np.float64)
    if len(gains) < 2:
        return math.nan
    # A rank is known to about 1/256: a few equal gains are not infinitely certain.
    return float(gains.mean() / (gains.std(ddof=1) / math.sqrt(len(gains)) + 1e-3))
