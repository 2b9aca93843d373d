"""What is trained by Adam and what by Muon, and how far a step goes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from cmtl_jax import config as base_config
from cmtl_jax.training import optimizer

SHAPES = {
    "shared": {"first": (3, 3, 1, 4), "kernel": (3, 3, 4, 6), "bias": (6,)},
    "head": {"kernel": (130, 80)},  # large
    "decoder": {"wide": (1, 1, 4, 30), "output": (1, 1, 6, 1)},
}


def settings(**values):
    c = base_config.base().optimizer
    c.update({"schedule": "constant", "warmup_steps": 0, "learning_rate": 0.01} | values)
    return c


def draw(seed, dtype=np.float32):
    rng = np.random.default_rng(seed)
    leaves, tree = jax.tree.flatten(SHAPES, is_leaf=lambda x: isinstance(x, tuple))
    return tree.unflatten([rng.normal(size=shape).astype(dtype) for shape in leaves])


def updates(config, number=3, dtype=np.float32):
    """Of so many steps by fixed gradients."""
    tx = optimizer.build(config, 100)
    params, results = draw(0, dtype), []
    state = tx.init(params)
    for i in range(number):
        update, state = jax.jit(tx.update)(draw(i + 1, dtype), state, params)
        results.append(jax.device_get(update))
    return results


def test_adam_is_that_of_optax():
    tx = optax.adam(0.01)
    state = tx.init(draw(0))
    for i, got in enumerate(updates(settings(name="adam", head_factor=1.0))):
        want, state = tx.update(draw(i + 1), state)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), got, want)


def test_muon_trains_the_kernels_between_maps_and_adam_the_rest():
    adam = optax.nadam(0.01)  # Adam with Nesterov's momentum, as Muon's own
    state = adam.init(draw(0))
    for i, muon in enumerate(updates(settings(name="muon", head_factor=1.0))):
        expected, state = adam.update(draw(i + 1), state)
        alike = jax.tree.map(lambda x, y: bool(np.allclose(x, y, atol=1e-7)), expected, muon)
        assert alike == {
            "shared": {"first": True, "kernel": False, "bias": True},
            "head": {"kernel": True},
            "decoder": {"wide": False, "output": True},
        }


def test_muon_is_that_of_optax():
    """Which unrolls its iterations, and trains each array by itself."""

    def matrices(params):
        between_maps = lambda x: x.ndim == 4 and min(x.shape[2:]) > 1
        numbers = contrib.MuonDimensionNumbers((0, 1, 2), 3)
        return jax.tree.map(lambda x: numbers if between_maps(x) else None, params)

    tx = contrib.muon(0.01, consistent_rms=0.2, muon_weight_dimension_numbers=matrices)
    double = lambda seed: draw(seed, np.float64)  # in float32 another order of sums shows
    with jax.enable_x64(True):
        state = tx.init(double(0))
        ours = updates(settings(name="muon", head_factor=1.0), dtype=np.float64)
        for i, got in enumerate(ours):
            want, state = jax.jit(tx.update)(double(i + 1), state, double(0))
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), got, want)


@pytest.mark.parametrize("stage, name", [("shared", "kernel"), ("decoder", "wide")])
def test_a_step_of_muon_is_orthogonal_and_as_long_as_adams(stage, name):
    for update in updates(settings(name="muon")):
        matrix = update[stage][name].reshape(-1, update[stage][name].shape[-1])
        singular = np.linalg.svd(matrix, compute_uv=False)
        # The iteration leaves all singular values within some 0.7 to 1.2 of each other.
        assert singular.max() / singular.min() < 2
        rms = np.sqrt(np.mean(np.square(matrix)))
        assert 0.1 * 0.01 < rms < 0.3 * 0.01


def test_the_direction_of_a_gradient_that_is_one_matrix_does_not_depend_on_its_length():
    tx = optimizer.build(settings(name="muon"), 100)
    params = draw(0)
    short, long = (
        tx.update(jax.tree.map(lambda x, s=s: s * x, draw(1)), tx.init(params), params)[0]
        for s in (1.0, 1000.0)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-6), short, long)


def test_the_heads_share_and_the_schedule_scale_the_steps():
    (whole,), (part,) = (updates(settings(head_factor=f), 1) for f in (1.0, 0.01))
    np.testing.assert_allclose(part["head"]["kernel"], 0.01 * whole["head"]["kernel"], rtol=1e-5)
    np.testing.assert_array_equal(part["shared"]["kernel"], whole["shared"]["kernel"])
    rate = optimizer.schedule(settings(schedule="cosine", warmup_steps=10), 100)
    assert [float(rate(i)) for i in (0, 5, 10)] == pytest.approx([0, 0.005, 0.01])
    assert float(rate(100)) == pytest.approx(0, abs=1e-9)
    assert jnp.all(jnp.diff(jnp.array([rate(i) for i in range(10, 101)])) < 0)
