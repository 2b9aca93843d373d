"""How strong the fine detail of a picture is: its own level, and the picture at another level.

Cameras and programs sharpen and soften pictures, and a network of few pictures takes strong detail
for more heads: twice the detail gave up to twice the people. So all pictures may be brought to one
level before they are seen (ours; key input.detail).
"""

import cv2
import numpy as np

_SIGMA = 2.0  # pixels; what a Gaussian of this width takes away is detail
_WINDOW = (13, 13)
_BLOCK = 32  # pixels; side of the blocks whose detail is measured
_PERCENTILE = 75  # of the blocks: a crowd fills a quarter of a picture, a sky may fill half
# More than this, and the texture of an empty street becomes a crowd: 198 people, instead of 5.
_LEAST, _MOST = 0.5, 1.4


def level(image: np.ndarray) -> float:
    """Level of detail of a picture [H, W, C] uint8, grey levels.

    The 75th percentile, over blocks of 32x32 pixels, of the root mean square of what a Gaussian of
    2 pixels takes away; of colours the mean is measured.
    """
    return _level(_detail(image))


def at(image: np.ndarray, wanted: float) -> np.ndarray:
    """A picture [H, W, C] uint8 with its detail brought close to the level `wanted`, within 0..255.

    Detail is multiplied by wanted / level everywhere, by 0.5 at least and by 1.4 at most. Some of
    what is added is coarse enough to be no detail itself, so that the level is met within a sixth.
    """
    detail = _detail(image)
    factor = np.clip(wanted / max(_level(detail), 1e-6), _LEAST, _MOST)
    detail *= np.float32(factor - 1)
    detail += image
    np.rint(detail, out=detail)
    return np.clip(detail, 0, 255, out=detail).astype(np.uint8)


def _detail(image: np.ndarray) -> np.ndarray:
    """float32 [H, W, C]."""
    values = image.astype(np.float32)
    blurred = cv2.GaussianBlur(values, _WINDOW, _SIGMA, borderType=cv2.BORDER_REPLICATE)
    values -= blurred.reshape(values.shape)  # OpenCV drops a single channel
    return values


def _level(detail: np.ndarray) -> float:
    height, width, channels = detail.shape
    squares = np.square(detail[..., 0] if channels == 1 else detail.mean(axis=-1))
    blocks = max(width // _BLOCK, 1), max(height // _BLOCK, 1)
    means = cv2.resize(squares, blocks, interpolation=cv2.INTER_AREA)
    return float(np.sqrt(np.percentile(means, _PERCENTILE)))
