"""The batch: what the input pipeline hands to training and evaluation."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np


class Batch(NamedTuple):
    """Pictures of different sizes in one padded shape; H and W are a bucket's, multiples of 4.

    Attributes:
        image: float32 [B, H, W, C], normalised grey levels or colours, 0 outside size.
        density: float32 [B, H, W, 1], people per pixel, 0 outside size.
        size: int32 [B, 2], valid height and width.
        count: float32 [B], number of head points inside.
        group: int32 [B], crowd-count group.
        weight: float32 [B], 1, or 0 for a filler example.
    """

    image: np.ndarray
    density: np.ndarray
    size: np.ndarray
    count: np.ndarray
    group: np.ndarray
    weight: np.ndarray


def shaped(shape: tuple[int, int], batch_size: int, channels: int) -> Batch:
    """What stands for any batch of that shape, without its numbers: jax.ShapeDtypeStructs."""

    def of(*sides: int, dtype=np.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((batch_size, *sides), dtype)

    return Batch(
        image=of(*shape, channels),
        density=of(*shape, 1),
        size=of(2, dtype=np.int32),
        count=of(),
        group=of(dtype=np.int32),
        weight=of(),
    )


class Crop(NamedTuple):
    """One example before it joins a batch; a whole picture is a crop, too.

    Attributes:
        image: uint8 or float32 [h, w, C], grey levels 0..255.
        density: float32 [h, w], people per pixel.
        points: float32 [N, 2], head points (x, y) inside.
    """

    image: np.ndarray
    density: np.ndarray
    points: np.ndarray


def collate(
    crops: Sequence[Crop],
    groups: Sequence[int],
    shape: tuple[int, int],
    batch_size: int,
    *,
    mean: float,
    std: float,
    channels: int = 1,
) -> Batch:
    """Normalises and pads crops into a batch; missing examples become fillers of weight 0.

    Args:
        crops: at most batch_size, none larger than shape.
        groups: crowd-count group of each.
        shape: (H, W) of the bucket.
        batch_size: B.
        mean: grey level that becomes 0.
        std: grey levels that become 1.
        channels: C of a batch of fillers alone; otherwise the crops tell.

    Raises:
        ValueError: more crops than batch_size, or not one group for each crop.
    """
    height, width = shape
    if len(crops) > batch_size:
        raise ValueError(f"{len(crops)} examples for a batch of {batch_size}")
    channels = crops[0].image.shape[2] if crops else channels
    batch = Batch(
        image=np.zeros((batch_size, height, width, channels), np.float32),
        density=np.zeros((batch_size, height, width, 1), np.float32),
        size=np.full((batch_size, 2), 4, np.int32),  # not 0: a filler is computed, too
        count=np.zeros(batch_size, np.float32),
        group=np.zeros(batch_size, np.int32),
        weight=np.zeros(batch_size, np.float32),
    )
    for i, (crop, group) in enumerate(zip(crops, groups, strict=True)):
        h, w = crop.image.shape[:2]
        batch.image[i, :h, :w] = normalise(crop.image, mean, std)
        batch.density[i, :h, :w, 0] = crop.density
        batch.size[i] = h, w
        batch.count[i] = len(crop.points)
        batch.group[i] = group
        batch.weight[i] = 1
    return batch


def normalise(image: np.ndarray, mean: float, std: float) -> np.ndarray:
    """Grey levels 0..255 -> float32 (image - mean) / std."""
    return (image.astype(np.float32) - np.float32(mean)) / np.float32(std)
