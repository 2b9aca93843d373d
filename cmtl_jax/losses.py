"""The losses of the cascade, each a (sum, count) pair that is divided once, at the very end."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


class SumCount(NamedTuple):
    """A sum and what it is to be divided by; both add up over examples, devices and processes."""

    sum: jax.Array
    count: jax.Array


def density_loss(
    predicted: jax.Array,
    target: jax.Array,
    size: jax.Array,
    weight: jax.Array,
    *,
    scale: float = 1.0,
    reduction: str = "mean",
) -> SumCount:
    """Euclidean loss of the density map (paper, Eq. 2).

    Args:
        predicted: float32 [B, H, W, 1], people per pixel, 0 outside size.
        target: the same of the ground truth.
        size: int32 [B, 2], valid height and width.
        weight: float32 [B], 0 for fillers.
        scale: both maps are multiplied by it.
        reduction: 'mean' counts valid pixels (authors' code), 'sum' counts examples (paper).
    """
    squared = jnp.square((predicted - target) * scale).sum(axis=(1, 2, 3))
    return SumCount((weight * squared).sum(), _density_count(size, weight, reduction))


def block_loss(
    predicted: jax.Array,
    target: jax.Array,
    size: jax.Array,
    weight: jax.Array,
    *,
    side: int,
    linear: float = 0.0,
    scale: float = 1.0,
    reduction: str = "mean",
) -> SumCount:
    """Euclidean loss of the people in blocks of side x side pixels (ours).

    That of maps in which each pixel has the average of its block. Most of density_loss is where
    within a few pixels heads lie, which no count depends on; here such errors cancel out. The idea
    is that of DSNet's multi-scale density level consistency loss (Dai et al., 2019).

    Squares are ruled by the few blocks of the densest crowds. With `linear`, the loss is a
    pseudo-Huber one: the square of small errors, proportional to large ones.

    Args:
        predicted: float32 [B, H, W, 1], people per pixel, 0 outside size.
        target: the same of the ground truth.
        size: int32 [B, 2], valid height and width.
        weight: float32 [B], 0 for fillers.
        side: of a block, pixels; blocks begin at the upper left corner.
        linear: people in a block from which on errors count linearly; 0: never.
        scale: both maps are multiplied by it.
        reduction: as for density_loss.
    """
    height, width = predicted.shape[1:3]
    error = jnp.pad(
        (predicted - target)[..., 0] * scale, ((0, 0), (0, -height % side), (0, -width % side))
    )
    rows, columns = (n // side for n in error.shape[1:])
    blocks = error.reshape(-1, rows, side, columns, side).sum(axis=(2, 4)) / side
    each = jnp.square(blocks)
    if linear:
        bend = linear * scale / side
        each = each * 2 / (1 + jnp.sqrt(1 + each / bend**2))
    return SumCount((weight * each.sum(axis=(1, 2))).sum(), _density_count(size, weight, reduction))


def _density_count(size: jax.Array, weight: jax.Array, reduction: str) -> jax.Array:
    pixels = size[:, 0].astype(jnp.float32) * size[:, 1].astype(jnp.float32)
    return (weight * (pixels if reduction == "mean" else jnp.ones_like(pixels))).sum()


def group_loss(
    logits: jax.Array,
    group: jax.Array,
    weight: jax.Array,
    class_weights: jax.Array,
    *,
    kind: str = "softmax_ce",
) -> SumCount:
    """Weighted cross-entropy of the crowd-count group (paper, Eq. 1, which lacks a logarithm).

    Args:
        logits: float32 [B, G].
        group: int32 [B], the true group.
        weight: float32 [B], 0 for fillers.
        class_weights: float32 [G].
        kind: 'softmax_ce': -w_y log p_y, counted by example. 'softmax_bce' (authors' code): binary
            cross-entropy of every softmax output, weighted by w, counted by output. 'sigmoid_bce'
            (paper: a sigmoid layer): the same with sigmoids.
    """
    truth = jax.nn.one_hot(group, logits.shape[-1])
    if kind == "softmax_ce":
        each = optax.softmax_cross_entropy(logits, truth) * class_weights[group]
        return SumCount((weight * each).sum(), weight.sum())
    if kind == "softmax_bce":
        probability = jax.nn.softmax(logits)
        certain = probability >= 1
        # That framework bounds each logarithm at -100.
        log_p = jnp.maximum(jax.nn.log_softmax(logits), -100.0)
        log_not_p = jnp.where(certain, -100.0, jnp.log1p(-jnp.where(certain, 0.5, probability)))
        each = -(truth * log_p + (1 - truth) * log_not_p)
    else:
        each = optax.sigmoid_binary_cross_entropy(logits, truth)
    total = (weight[:, None] * class_weights * each).sum()
    return SumCount(total, weight.sum() * logits.shape[-1])
