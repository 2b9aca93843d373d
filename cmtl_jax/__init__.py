"""Crowd counting with cascaded multi-task learning (CMTL) in JAX.

counter = cmtl_jax.load("runs/sha-recommended")
result = counter("photo.jpg")
result.count, result.density, result.overlay()
"""


def load(weights, checkpoint="best"):
    """A counter with trained weights; see cmtl_jax.prediction.counter.load."""
    from cmtl_jax.prediction import counter  # noqa: PLC0415  importing JAX takes a second

    return counter.load(weights, checkpoint)
