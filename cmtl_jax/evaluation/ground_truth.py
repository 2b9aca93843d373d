"""The number of people that a picture's count is held against."""

import cv2
import numpy as np

from cmtl_jax.input_pipeline.picture import Picture

RULES = {
    "points": "number of head points",
    "density": "sum of the density map",
    "reference_py2": "sum of the density map resized to a quarter of the sides (bilinear), times "
    "the ratio of the areas rounded down, as the authors' test script under Python 2",
    "reference_py3": "sum of the density map resized to a quarter of the sides (bilinear), times "
    "the ratio of the areas, as the authors' test script would under Python 3",
}


def count(rule: str, picture: Picture) -> float:
    """People in a picture, by one of RULES.

    The reference's rules lose people: where the map is resized, bilinear interpolation leaves
    pixels out, and under Python 2 a ratio such as 16.3 becomes 16.

    Args:
        rule: 'points'; 'density'; 'reference_py2' or 'reference_py3' (authors' test.py, where its
            data loader is asked for maps of a quarter of the sides).
        picture: as it was read, not resized.
    """
    if rule == "points":
        return len(picture.points)
    if rule == "density":
        return float(picture.density.sum(dtype=np.float64))
    height, width = picture.density.shape
    small = max(width // 4, 1), max(height // 4, 1)
    resized = cv2.resize(picture.density, small, interpolation=cv2.INTER_LINEAR)
    ratio = width * height / (small[0] * small[1])
    if rule == "reference_py2":
        ratio = int(ratio)
    return float(resized.sum(dtype=np.float64) * ratio)
