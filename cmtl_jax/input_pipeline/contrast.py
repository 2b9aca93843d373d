"""The contrast of a picture, and the picture with another.

A network of few pictures counts fewer people in faded ones and in fog; so all pictures may be
brought to one contrast before they are seen (ours; key input.contrast).
"""

import numpy as np

_LEAST, _MOST = 0.5, 1.4  # pictures in one colour are not blown up to noise


def at(image: np.ndarray, wanted: float) -> np.ndarray:
    """A picture [H, W, C] uint8 whose values have the standard deviation `wanted`, within 0..255.

    Distances from the mean are multiplied by 0.5 at least and by 1.4 at most.
    """
    values = image.astype(np.float32)
    mean, deviation = values.mean(dtype=np.float64), values.std(dtype=np.float64)
    factor = np.clip(wanted / max(deviation, 1e-6), _LEAST, _MOST)
    values -= np.float32(mean)
    values *= np.float32(factor)
    values += np.float32(mean)
    np.rint(values, out=values)
    return np.clip(values, 0, 255, out=values).astype(np.uint8)
