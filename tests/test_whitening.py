"""The start fitted to the pictures: what it promises of every layer, whatever the padding."""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from initial_parameters import initial_parameters

from cmtl_jax.datasets import scenes
from cmtl_jax.models import layers, registry, whitening

SIDE = 48

# Compiled once for all tests.
fit = jax.jit(whitening.fit, static_argnums=0)


@pytest.fixture(scope="module")
def crops():
    """Image, size and density of drawn crowds; the last crop is smaller than the batch's shape."""
    rendered = [scenes.render_scene(i, SIDE, SIDE) for i in range(6)]
    image = (np.stack([s.picture[..., 1:2] for s in rendered]).astype(np.float32) - 113) / 64
    size = np.full((6, 2), SIDE, np.int32)
    size[-1] = 33, 26
    density = np.full((6, SIDE, SIDE, 1), 0.004, np.float32)
    density[-1, 33:] = density[-1, :, 26:] = 0
    return image, size, density


def fitted(crops, seed=0, **architecture):
    model = registry.build("cmtl", init="whitened", density_scale=100.0, **architecture)
    params = initial_parameters(model, seed, crops[0].shape[-1])
    return model, params, fit(model, params, *crops)


def responses(model, params, image, size):
    """What each masked convolution puts out, by path, with the mask of its valid part."""
    found = {}

    def keep(call, args, kwargs, context):
        y = call(*args, **kwargs)
        if isinstance(context.module, layers.MaskedConv | layers.MaskedConvTranspose):
            mask = np.asarray(layers.valid_mask(args[1], *y.shape[1:3]))
            found["/".join(context.module.path)] = np.asarray(y), mask[..., 0]
        return y

    with flax.linen.intercept_methods(keep):
        model.apply({"params": params}, image, size)
    return found


def test_every_channel_has_mean_0_and_variance_1_before_its_activation(crops):
    model, _, params = fitted(crops)
    found = responses(model, params, *crops[:2])
    assert len(found) == 2 + 4 + 1 + 4 + 2 + 2 + 1
    for path, (y, mask) in found.items():
        if path != "decoder/output":
            values = y[mask]
            np.testing.assert_allclose(values.mean(0), 0, atol=2e-3, err_msg=path)
            np.testing.assert_allclose(values.std(0), 1, atol=2e-3, err_msg=path)


def test_the_first_density_has_as_many_people_as_the_true_one(crops):
    model, _, params = fitted(crops)
    density = model.apply({"params": params}, *crops[:2]).density
    np.testing.assert_allclose(density.sum(), crops[2].sum(), rtol=1e-4)


def test_the_first_filters_see_texture_where_random_ones_see_brightness(crops):
    _, before, after = fitted(crops)
    rng = np.random.default_rng(0)
    windows = []
    for _ in range(3000):
        i, y, x = rng.integers(5), *rng.integers(SIDE - 9, size=2)
        windows.append(crops[0][i, y : y + 9, x : x + 9, 0].ravel())
    windows = np.array(windows) - np.mean(windows, 0)

    def correlation(params):
        """Mean absolute correlation of different filters' answers."""
        answers = windows @ np.asarray(params["shared"]["conv1"]["conv"]["kernel"]).reshape(81, 16)
        return np.abs(np.corrcoef(answers.T) - np.eye(16)).sum() / (16 * 15)

    assert correlation(after) < 0.15 < 0.3 < correlation(before)


def test_padding_and_order_change_nothing(crops):
    image, size, density = crops
    padded = (
        np.pad(image, ((0, 0), (0, 12), (0, 8), (0, 0)), constant_values=7.0)[::-1].copy(),
        size[::-1].copy(),
        np.pad(density, ((0, 0), (0, 12), (0, 8), (0, 0)))[::-1].copy(),
    )
    whole = [np.where(layers.valid_mask(size, SIDE, SIDE), image, 0), size, density]
    # Filters are right up to the last bits of an eigenvalue problem.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-2, atol=2e-3),
        fitted(whole)[2], fitted(padded)[2],
    )  # fmt: skip


def test_seeds_differ(crops):
    first, second = (
        fitted(crops, seed)[2]["shared"]["conv1"]["conv"]["kernel"] for seed in (0, 1)
    )
    assert float(jnp.abs(first - second).max()) > 0.1


def test_pictures_without_anything_in_them_leave_finite_parameters(crops):
    blank = [np.zeros_like(crops[0]), crops[1], np.zeros_like(crops[2])]
    _, _, params = fitted(blank)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))


def test_colour_and_the_single_stage(crops):
    colour = [np.repeat(crops[0], 3, axis=-1), *crops[1:]]
    model = registry.build("single_stage", init="whitened", density_scale=100.0)
    params = fit(model, initial_parameters(model, 0, 3), *colour)
    density = model.apply({"params": params}, *colour[:2]).density
    np.testing.assert_allclose(density.sum(), colour[2].sum(), rtol=1e-4)
