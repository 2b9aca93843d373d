"""Counts of a video, smoothed over time."""

import math

import numpy as np


class Smoother:
    """A running mean in which a count's weight falls by e with each `seconds` of its age.

    It looks back only, so it works live, and does not start from zero. Ours.
    """

    def __init__(self, seconds: float):
        """Args: seconds: more than 0."""
        self._seconds = seconds
        self._sum = self._weight = 0.0
        self._last: float | None = None

    def __call__(self, counts: np.ndarray, seconds: float) -> np.ndarray:
        """The mean so far.

        Args:
            counts: [N], of one frame.
            seconds: when it was taken, at least that of the frame before.
        """
        age = 0.0 if self._last is None else max(seconds - self._last, 0.0)
        self._last = seconds
        keep = math.exp(-age / self._seconds)
        self._sum = self._sum * keep + np.asarray(counts, np.float64)
        self._weight = self._weight * keep + 1
        return self._sum / self._weight
