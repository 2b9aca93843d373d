"""The pure training step with a model of one weight, whose gradient is known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from cmtl_jax import config as base_config
from cmtl_jax.input_pipeline.batch import Batch
from cmtl_jax.models.output import CmtlOutput
from cmtl_jax.training import optimizer
from cmtl_jax.training import state as state_lib
from cmtl_jax.training import steps as steps_lib


class OneWeight(nn.Module):
    """density = w * image; the logits are as many times (b, 0, ...)."""

    prior: bool = False

    @nn.compact
    def __call__(self, image, size, keys=None):
        w = _Layers(name="shared")()
        logits = None
        if self.prior:
            b = self.param("b", nn.initializers.zeros, ())
            logits = b * jax.nn.one_hot(jnp.zeros(len(image), jnp.int32), 2)
        return CmtlOutput(w * image, logits)


class _Layers(nn.Module):
    @nn.compact
    def __call__(self):
        return _Weight(name="conv1")()


class _Weight(nn.Module):
    @nn.compact
    def __call__(self):
        return self.param("w", nn.initializers.constant(2.0), ())


def batch() -> Batch:
    """Pictures of 4x4, 4x8 and a filler, all ones inside; the density is 0."""
    image = np.zeros((3, 8, 8, 1), np.float32)
    image[0, :4, :4] = image[1, :4, :8] = 1
    image[2] = 7
    return Batch(
        image=image,
        density=np.zeros_like(image),
        size=np.array([[4, 4], [4, 8], [8, 8]], np.int32),
        count=np.array([30, 64, 5], np.float32),
        group=np.array([1, 1, 0], np.int32),
        weight=np.array([1, 1, 0], np.float32),
    )


def run(
    model, tx, *, reduction="mean", ema=0.0, ema_warmup=True, group_weight=0.0, block_weight=0.0,
    steps=1,
):  # fmt: skip
    weights = jnp.array([1.0, 3.0])
    objective = steps_lib.Objective(
        weights, group_weight, "softmax_ce", reduction, 1.0, block_weight, block_side=4
    )
    params = model.init(jax.random.key(0), jnp.ones((1, 4, 4, 1)), jnp.full((1, 2), 4))["params"]
    state = state_lib.create(params, tx, ema=ema > 0)
    step = jax.jit(
        steps_lib.make_train_step(model, tx, ema_decay=ema, ema_warmup=ema_warmup, seed=0)
    )
    states = [state]
    for _ in range(steps):
        state, metrics = step(state, batch(), objective)
        states.append(state)
    return states, jax.device_get(metrics)


@pytest.mark.parametrize("reduction, count", [("mean", 48), ("sum", 2)])
def test_loss_and_gradient(reduction, count):
    (before, after), metrics = run(OneWeight(), optax.sgd(1.0), reduction=reduction)
    # 48 valid pixels with an error of w = 2 each: sum w^2, gradient sum 2 w.
    np.testing.assert_allclose(metrics["loss"], 48 * 4 / count, rtol=1e-6)
    gradient = 48 * 2 * 2 / count
    w = [state.params["shared"]["conv1"]["w"] for state in (before, after)]
    np.testing.assert_allclose(w[0] - w[1], gradient, rtol=1e-6)
    np.testing.assert_allclose(metrics["first_layer_grad_norm"], gradient, rtol=1e-6)
    assert int(after.step) == 1


def test_metrics_ignore_fillers():
    _, metrics = run(OneWeight(), optax.sgd(1.0))
    assert tuple(metrics["count_error"]) == (2 + 0, 2)  # |32 - 30| + |64 - 64|
    assert tuple(metrics["density"]) == (96, 48)
    assert tuple(metrics["density_square"]) == (192, 48)


def test_group_loss_is_weighed():
    _, metrics = run(OneWeight(prior=True), optax.sgd(1.0), group_weight=0.5)
    group = 3 * np.log(2)  # logits are equal, the class weight is 3
    np.testing.assert_allclose(metrics["group_loss"].sum / metrics["group_loss"].count, group)
    np.testing.assert_allclose(metrics["loss"], 4 + 0.5 * group, rtol=1e-6)
    np.testing.assert_allclose(metrics["grad_norm"] ** 2, 4**2 + (0.5 * 3 * 0.5) ** 2, rtol=1e-5)
    assert metrics["group_accuracy"].sum == 0 and metrics["group_accuracy"].count == 2


def test_block_loss_is_weighed():
    _, metrics = run(OneWeight(), optax.sgd(1.0), block_weight=0.5)
    # Three valid blocks of 4x4 pixels, with an error of 2 in each pixel.
    assert tuple(metrics["block_loss"]) == (3 * 16 * 2**2, 48)
    np.testing.assert_allclose(metrics["loss"], 4 + 0.5 * 4, rtol=1e-6)


def test_the_norm_of_small_and_large_gradients_together():
    rng = np.random.default_rng(0)
    gradient = {"a": rng.normal(size=(3, 4)), "b": rng.normal(size=20_000), "c": rng.normal(size=5)}
    np.testing.assert_allclose(steps_lib._norm(gradient), optax.tree.norm(gradient), rtol=1e-6)


@pytest.mark.parametrize("warmup", [True, False])
def test_averaged_parameters(warmup):
    states, _ = run(OneWeight(), optax.sgd(0.1), ema=0.3, ema_warmup=warmup, steps=4)
    weight = lambda tree: float(tree["shared"]["conv1"]["w"])
    average = 2.0
    for number, state in enumerate(states[1:]):
        decay = min(0.3, (1 + number) / (10 + number)) if warmup else 0.3
        average = decay * average + (1 - decay) * weight(state.params)
        np.testing.assert_allclose(weight(state.ema), average, rtol=1e-6)
        assert state.evaluated is state.ema
    assert weight(states[-1].ema) != weight(states[-1].params)


def test_saved_and_restored_state_is_the_same():
    for ema in (0.0, 0.9):
        states, _ = run(OneWeight(), optax.adam(0.1), ema=ema)
        params, train = states[1].for_saving()
        assert params is states[1].evaluated
        back = state_lib.TrainState.from_saved(params, train)
        assert jax.tree.structure(back) == jax.tree.structure(states[1])
        jax.tree.map(np.testing.assert_array_equal, back, states[1])


def test_dropout_keys_belong_to_examples_not_to_devices():
    def keys(step):
        return jax.random.key_data(steps_lib._example_keys(0, step, 8, None))

    def on_devices(step):
        return jax.pmap(
            lambda x: jax.random.key_data(steps_lib._example_keys(0, step, len(x), "data")),
            axis_name="data",
        )(np.zeros((4, 2))).reshape(8, -1)

    np.testing.assert_array_equal(keys(5), on_devices(5))
    both = np.concatenate([keys(5), keys(6)])
    assert len(np.unique(both, axis=0)) == 16


def test_schedules():
    o = base_config.base().optimizer
    o.update(learning_rate=0.5, warmup_steps=10, schedule="cosine")
    rate = optimizer.schedule(o, 110)
    np.testing.assert_allclose([rate(0), rate(5), rate(10), rate(60), rate(110)],
                               [0, 0.25, 0.5, 0.25, 0], atol=1e-7)  # fmt: skip
    o.update(schedule="constant", warmup_steps=0)
    assert optimizer.schedule(o, 110)(50) == 0.5


def test_gradient_clipping():
    o = base_config.base().optimizer
    o.update(
        name="adam", grad_clip=1.0, warmup_steps=0, schedule="constant", eps=1.0, learning_rate=1.0
    )
    tx = optimizer.build(o, 10)
    updates, _ = tx.update({"x": jnp.float32(100.0)}, tx.init({"x": jnp.float32(0)}))
    np.testing.assert_allclose(updates["x"], -0.5, rtol=1e-5)  # Adam: g / (|g| + eps) with g = 1


def test_the_head_learns_more_slowly():
    o = base_config.base().optimizer
    o.update(name="adam", warmup_steps=0, schedule="constant", learning_rate=1.0, head_factor=0.1)
    tx = optimizer.build(o, 10)
    params = {"shared": {"w": jnp.float32(0)}, "head": {"fc1": jnp.float32(0)}}
    gradient = {"shared": {"w": jnp.float32(3)}, "head": {"fc1": jnp.float32(3)}}
    updates, _ = tx.update(gradient, tx.init(params))
    np.testing.assert_allclose(updates["shared"]["w"], -1.0, rtol=1e-5)
    np.testing.assert_allclose(updates["head"]["fc1"], -0.1, rtol=1e-5)


def test_weight_decay_is_that_of_torch_adam():
    """It joins the gradient before Adam's averages; Loshchilov and Hutter's would not."""
    config = base_config.base().optimizer
    config.update(name="adam", schedule="constant", warmup_steps=0, learning_rate=0.1)
    params, gradient = {"w": jnp.array([2.0])}, {"w": jnp.array([0.0])}
    for decay, expected in ((0.0, 0.0), (0.5, -0.1)):
        config.weight_decay = decay
        tx = optimizer.build(config, 10)
        updates, _ = tx.update(gradient, tx.init(params), params)
        np.testing.assert_allclose(updates["w"], expected, rtol=1e-4, atol=1e-7)
