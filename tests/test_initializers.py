"""Initial values: ours are alive, the authors' often are not.

Dead, on real crops: no variation over the density map, or no gradient in the first layer.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from initial_parameters import initial_parameters

from cmtl_jax import pictures
from cmtl_jax.datasets import scenes
from cmtl_jax.input_pipeline.batch import Batch, normalise
from cmtl_jax.models import registry, whitening
from cmtl_jax.training import state as state_lib
from cmtl_jax.training import steps as steps_lib

SIDE = 32


def crops(shared, number):
    """Crops of part A's training pictures, some with many heads, some with few."""
    folder = shared / "data/ShanghaiTech/part_A_final/train_data/images"
    found = []
    for i in range(1, number + 1):
        grey = pictures.read(folder / f"IMG_{i}.jpg")
        h, w = grey.shape[0] // 2, grey.shape[1] // 2
        found.append(grey[h - SIDE // 2 : h + SIDE // 2, w - SIDE // 2 : w + SIDE // 2])
    return np.stack(found)


def drawn_crops(number):
    """The same of drawn crowds, for machines without the research data."""
    return np.stack(
        [scenes.render_scene(i, 96, 96).picture[32:64, 32:64, 1:2] for i in range(number)]
    )


def batch_of(grey, mean, std):
    number = len(grey)
    density = np.zeros((number, SIDE, SIDE, 1), np.float32)
    density[:, 8:20, 6:26] = 0.005
    return Batch(
        image=normalise(grey, mean, std),
        density=density,
        size=np.full((number, 2), SIDE, np.int32),
        count=np.full(number, 4.0, np.float32),
        group=np.arange(number, dtype=np.int32) % 10,
        weight=np.ones(number, np.float32),
    )


def make_step(model, density_scale, learning_rate):
    objective = steps_lib.Objective(jnp.ones(10), 0.02, "softmax_ce", "mean", density_scale)
    tx = optax.adam(learning_rate)
    step = steps_lib.make_train_step(model, tx, ema_decay=0.0, seed=0)
    return tx, jax.jit(lambda state, batch: step(state, batch, objective))


def look(metrics):
    """(dead, standard deviation over mean) of the density of a step's batch."""
    mean, square = (float(metrics[k].sum / metrics[k].count) for k in ("density", "density_square"))
    variation = np.sqrt(max(square - mean**2, 0)) / max(mean, 1e-30)
    return variation < 1e-3 or float(metrics["first_layer_grad_norm"]) == 0, variation


def dead_seeds(grey, seeds, *, steps, init, mean, std, scale, learning_rate=1e-3):
    """Seeds dead at the start, and dead after so many steps."""
    model = registry.build("cmtl", init=init, density_scale=scale)
    tx, step = make_step(model, scale, learning_rate)
    batch = jax.tree.map(jnp.asarray, batch_of(grey, mean, std))

    fit = jax.jit(whitening.fit, static_argnums=0)

    def create(seed):
        params = initial_parameters(model, seed, 1)
        if init == "whitened":
            params = fit(model, params, batch.image, batch.size, batch.density)
        return params

    at_start, after = [], []
    for seed in seeds:
        state = state_lib.create(create(seed), tx, ema=False)
        state, metrics = step(state, batch)
        if look(metrics)[0]:
            at_start.append(seed)
        for _ in range(steps):
            state, metrics = step(state, batch)
        if steps and look(metrics)[0]:
            after.append(seed)
    return at_start, after


OURS = {"init": "whitened", "mean": 113.0, "std": 64.0, "scale": 100.0}
RELEASED = {"init": "released", "mean": 0.0, "std": 1.0, "scale": 1.0}


@pytest.mark.slow
def test_ours_starts_alive_and_the_released_one_is_often_dead():
    grey = drawn_crops(2)
    assert dead_seeds(grey, range(12), steps=0, **OURS)[0] == []
    dead = dead_seeds(grey, range(12), steps=0, **RELEASED)[0]
    assert 1 <= len(dead) <= 11


def test_ours_stays_alive():
    assert dead_seeds(drawn_crops(2), range(2), steps=30, **OURS) == ([], [])


@pytest.mark.slow
def test_0_of_200_seeds_are_dead_at_the_start_or_after_100_steps_on_real_crops(shared):
    assert dead_seeds(crops(shared, 2), range(200), steps=100, **OURS) == ([], [])
