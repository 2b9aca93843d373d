"""Crowd counting with cascaded multi-task learning (CMTL) in JAX.

counter = cmtl_jax.load()  # or load("runs/sha-recommended")
result = counter("photo.jpg")
result.count, result.density, result.overlay()
"""

import os
import typing

if typing.TYPE_CHECKING:
    from cmtl_jax.prediction.counter import Counter


DEFAULT_WEIGHTS = "auto"  # of those that come along: streets, and close crowds where they are


def load(weights: str | os.PathLike = DEFAULT_WEIGHTS, checkpoint: str | int = "best") -> "Counter":
    """A counter with trained weights: a work folder, a file, or a name of shipped weights.

    See cmtl_jax.prediction.counter.load.
    """
    from cmtl_jax.prediction import counter  # importing JAX takes a second

    return counter.load(weights, checkpoint)
