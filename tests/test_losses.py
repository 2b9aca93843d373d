"""The losses against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cmtl_jax import losses

SIZE = np.array([[4, 6], [3, 2], [4, 6]])


def maps(seed):
    x = np.random.default_rng(seed).random((3, 4, 6, 1)).astype(np.float32)
    for i, (h, w) in enumerate(SIZE):
        x[i, h:] = x[i, :, w:] = 0
    return x


def test_density_loss_is_the_mean_over_valid_pixels_of_real_examples():
    predicted, target = maps(0), maps(1)
    total, count = losses.density_loss(
        predicted, target, jnp.asarray(SIZE), jnp.array([1.0, 1.0, 0.0]), scale=10.0
    )
    squared = [(10 * (predicted[i] - target[i])) ** 2 for i in (0, 1)]
    valid = np.concatenate([squared[0].ravel(), squared[1][:3, :2].ravel()])
    assert count == len(valid) == 4 * 6 + 3 * 2
    np.testing.assert_allclose(total / count, valid.mean(), rtol=1e-6)


def test_density_loss_of_the_paper_counts_examples():
    predicted, target = maps(0), maps(1)
    total, count = losses.density_loss(
        predicted, target, jnp.asarray(SIZE), jnp.array([1.0, 0.0, 1.0]), reduction="sum"
    )
    norms = [np.square(predicted[i] - target[i]).sum() for i in (0, 2)]
    np.testing.assert_allclose(total / count, np.mean(norms), rtol=1e-6)


@pytest.mark.parametrize("side", [2, 4, 5])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_block_loss_is_that_of_the_averages_over_blocks(side, reduction):
    predicted, target = maps(0), maps(1)
    total, count = losses.block_loss(
        predicted, target, jnp.asarray(SIZE), jnp.array([1.0, 1.0, 0.0]), side=side, scale=10.0,
        reduction=reduction,
    )  # fmt: skip
    expected = 0.0
    for error in 10 * (predicted - target)[:2, :, :, 0]:
        for top in range(0, 4, side):
            for left in range(0, 6, side):
                average = error[top : top + side, left : left + side].sum() / side**2
                expected += side**2 * average**2
    assert count == (2 if reduction == "sum" else 4 * 6 + 3 * 2)
    np.testing.assert_allclose(total, expected, rtol=1e-5)


def test_blocks_of_one_pixel_are_the_density_loss():
    about = (maps(0), maps(1), jnp.asarray(SIZE), jnp.array([1.0, 0.0, 1.0]))
    np.testing.assert_allclose(
        losses.block_loss(*about, side=1), losses.density_loss(*about), rtol=1e-6
    )


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_large_block_errors_count_linearly(scale):
    block = np.zeros((1, 4, 4, 1), np.float32)
    block[0, 2:, 2:] = 1 / 4

    def loss(people, linear):
        """Of so many people too many in one block of 2x2."""
        return losses.block_loss(
            people * block, 0 * block, jnp.array([[4, 4]]), jnp.ones(1),
            side=2, scale=scale, linear=linear,
        ).sum  # fmt: skip

    np.testing.assert_allclose(loss(0.01, 3.0), loss(0.01, 0.0), rtol=1e-4)
    # Proportional from far beyond 3 people on, with the slope of the square at 3.
    slope = (loss(4000.0, 3.0) - loss(3000.0, 3.0)) / 1000
    np.testing.assert_allclose(slope, 2 * 3 * (scale / 2) ** 2, rtol=1e-3)
    np.testing.assert_allclose(loss(3.0, 3.0), (2**0.5 - 1) * 2 * (3 * scale / 2) ** 2, rtol=1e-5)
    gradient = jax.grad(loss)(0.0, 3.0)
    assert gradient == 0


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("kind", ["softmax_ce", "softmax_bce", "sigmoid_bce"])
def test_group_loss_equals_its_formula(kind):
    rng = np.random.default_rng(0)
    logits, class_weights = rng.normal(size=(4, 10)), rng.random(10)
    group, weight = np.array([0, 3, 9, 5]), np.array([1.0, 1.0, 0.0, 1.0])
    total, count = losses.group_loss(
        jnp.asarray(logits), jnp.asarray(group), jnp.asarray(weight), jnp.asarray(class_weights),
        kind=kind,
    )  # fmt: skip
    if kind == "softmax_ce":
        p = softmax(logits)
        each = [-class_weights[y] * np.log(p[i, y]) for i, y in enumerate(group)]
        expected = np.mean([each[0], each[1], each[3]])
    else:
        p = softmax(logits) if kind == "softmax_bce" else 1 / (1 + np.exp(-logits))
        y = np.eye(10)[group]
        each = -class_weights * (y * np.log(p) + (1 - y) * np.log(1 - p))
        expected = each[[0, 1, 3]].mean()
    np.testing.assert_allclose(total / count, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["softmax_ce", "softmax_bce", "sigmoid_bce"])
def test_group_loss_of_hopeless_logits_is_finite_and_has_a_finite_gradient(kind):
    logits = jnp.array([[300.0] + [-300.0] * 9])

    def loss(logits):
        return losses.group_loss(logits, jnp.array([4]), jnp.ones(1), jnp.ones(10), kind=kind).sum

    value, gradient = jax.value_and_grad(loss)(logits)
    assert np.isfinite(value)
    assert value > 1
    assert np.isfinite(gradient).all()
