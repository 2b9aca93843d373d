"""Inputs that both sides read: made, and the same for the same numbers."""

from typing import NamedTuple

import numpy as np

from cmtl_jax.benchmark.settings import GROUPS

CLASS_WEIGHTS = np.linspace(0.5, 1.5, GROUPS).astype(np.float32)
GROUP_WEIGHT = 0.02
DENSITY_SCALE = 100.0
LEARNING_RATE = 1e-5


class Crops(NamedTuple):
    """A batch of crops of one size.

    Attributes:
        image: float32 [B, H, W], normalised.
        density: float32 [B, H, W], people per pixel.
        group: int32 [B].
    """

    image: np.ndarray
    density: np.ndarray
    group: np.ndarray


def crops(batch: int, height: int, width: int) -> Crops:
    """Noise: the time of a step does not depend on what a picture shows."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=(batch, height, width)).astype(np.float32)
    density = 1e-3 * rng.random((batch, height, width), np.float32)
    return Crops(image, density, rng.integers(GROUPS, size=batch).astype(np.int32))


class Convolution(NamedTuple):
    """What a convolution and its gradients are taken of.

    Attributes:
        x: float32 [B, H, W, Ci].
        kernel: float32 [K, K, Ci, Co].
        gradient: of the output, float32 [B, H, W, Co].
    """

    x: np.ndarray
    kernel: np.ndarray
    gradient: np.ndarray


def convolution(
    batch: int, height: int, width: int, kernel: int, channels: tuple[int, int]
) -> Convolution:
    """Numbers of mean 1, so that sums over them tell a right result from a wrong one."""
    rng = np.random.default_rng(2)
    return Convolution(
        *(
            1 + rng.standard_normal(shape, np.float32)
            for shape in (
                (batch, height, width, channels[0]),
                (kernel, kernel, *channels),
                (batch, height, width, channels[1]),
            )
        )
    )


def picture(height: int, width: int) -> np.ndarray:
    """uint8 [H, W] grey levels, noise likewise."""
    return np.random.default_rng(1).integers(256, size=(height, width), dtype=np.uint8)
