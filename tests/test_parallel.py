"""One training step is the same by jit, by pmap and on one device, however the batch is spread."""

import itertools
import threading
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_run
from flax import linen as nn

from cmtl_jax import config as base_config
from cmtl_jax import trained_model
from cmtl_jax.errors import UserError
from cmtl_jax.evaluation import evaluate
from cmtl_jax.input_pipeline import buckets, count_groups
from cmtl_jax.input_pipeline import data as data_lib
from cmtl_jax.input_pipeline.batch import Batch
from cmtl_jax.input_pipeline.loader import Shard
from cmtl_jax.models.layers import apply_mask
from cmtl_jax.models.output import CmtlOutput
from cmtl_jax.parallel import Parallel
from cmtl_jax.training import optimizer
from cmtl_jax.training import state as state_lib
from cmtl_jax.training import steps as steps_lib

CLASS_WEIGHTS = (0.5, 1.0, 2.0)

assert len(jax.devices()) == 4, "conftest.py forces 4 devices before JAX starts"


def uneven_batch() -> Batch:
    """8 pictures whose valid pixels differ from device to device; two devices hold fillers."""
    rng = np.random.default_rng(0)
    size = np.array(
        [[32, 32], [32, 28], [9, 7], [12, 5], [32, 16], [4, 4], [8, 8], [4, 4]], np.int32
    )
    weight = np.array([1, 1, 1, 1, 1, 0, 1, 0], np.float32)
    inside = (np.arange(32)[:, None] < size[:, None, None, 0]) & (
        np.arange(32)[None, :] < size[:, None, None, 1]
    )
    inside = inside[..., None]
    return Batch(
        image=np.where(inside, rng.normal(size=(8, 32, 32, 1)), 0).astype(np.float32),
        density=np.where(inside, rng.random((8, 32, 32, 1)) * 0.02, 0).astype(np.float32),
        size=size,
        count=rng.integers(0, 9, 8).astype(np.float32),
        group=rng.integers(0, 3, 8).astype(np.int32),
        weight=weight,
    )


@pytest.fixture(scope="module")
def one_step(tmp_path_factory):
    """Loss, gradient and other metrics of one step by (kind, devices), with dropout.

    Plain gradient descent with a rate of 1 changes the parameters by the gradient itself.
    """
    folder = small_run.common(tmp_path_factory)
    config = small_run.config(folder)
    model = trained_model.build_model(config)
    assert config.model.dropout == 0.5
    tx = optax.sgd(1.0)
    objective = steps_lib.Objective(np.float32(CLASS_WEIGHTS), 10.0, "softmax_ce", "mean", 100.0)
    step = steps_lib.make_train_step(model, tx, ema_decay=0.0, seed=3)
    params = Parallel().host(
        Parallel().initialise(lambda: trained_model.init_params(model, 0, 1))
    )
    results = {}
    for kind, number in (("jit", 1), ("jit", 4), ("pmap", 4)):
        parallel = Parallel(kind, jax.devices()[:number])
        state = parallel.replicate(state_lib.create(params, tx, ema=False))
        state, metrics = parallel.train_step(step, objective)(state, uneven_batch())
        gradient = jax.tree.map(lambda a, b: a - b, params, parallel.host(state.params))
        results[kind, number] = (parallel.host(metrics), gradient)
    return results, model, objective, params


@pytest.mark.parametrize("kind", ["jit", "pmap"])
def test_four_devices_give_what_one_gives(one_step, kind):
    results, *_ = one_step
    (expected, expected_gradient), (metrics, gradient) = results["jit", 1], results[kind, 4]
    np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=5e-5),
        {k: v for k, v in metrics.items() if k != "loss"},
        {k: v for k, v in expected.items() if k != "loss"},
    )
    flat, _ = jax.tree_util.tree_flatten_with_path(expected_gradient)
    for (path, a), b in zip(flat, jax.tree.leaves(gradient), strict=True):
        assert np.linalg.norm(a) > 0, path
        difference = np.linalg.norm(a - b) / np.linalg.norm(a)
        assert difference <= 5e-5, (jax.tree_util.keystr(path), difference)


def test_the_loss_is_sums_over_all_valid_pixels_and_examples(one_step):
    results, model, _, params = one_step
    batch = uneven_batch()
    step_key = jax.random.fold_in(jax.random.key(3), 0)
    keys = jnp.stack([jax.random.fold_in(step_key, i) for i in range(8)])
    output = jax.device_get(
        jax.jit(model.apply)({"params": params}, batch.image, batch.size, keys)
    )
    squares = pixels = entropy = 0.0
    real = np.flatnonzero(batch.weight)
    for i in real:
        h, w = batch.size[i]
        error = 100.0 * (output.density[i, :h, :w] - batch.density[i, :h, :w]).astype(np.float64)
        squares += np.square(error).sum()
        pixels += h * w
        logits = output.group_logits[i].astype(np.float64)
        group = batch.group[i]
        entropy += CLASS_WEIGHTS[group] * (np.log(np.exp(logits).sum()) - logits[group])
    expected = squares / pixels + 10.0 * entropy / len(real)
    for metrics, _ in results.values():
        np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)


class _Small(nn.Module):
    """A network like the cascade in what it takes and gives, and quick to compile."""

    @nn.compact
    def __call__(self, image, size, dropout_keys):
        x = nn.relu(nn.Conv(4, (3, 3), name="shared")(image))
        x = jax.vmap(lambda one, key: one * jax.random.bernoulli(key, 0.5, one.shape))(
            x, dropout_keys
        )
        density = apply_mask(nn.Dense(1, name="output")(x), size)
        return CmtlOutput(density, nn.Dense(3, name="head")(x.mean(axis=(1, 2))))


@pytest.mark.parametrize(("kind", "number"), [("jit", 1), ("pmap", 4)])
def test_runs_side_by_side_do_the_steps_they_do_alone(kind, number):
    model = _Small()
    config = base_config.base().optimizer
    tx = optimizer.build(config, 100)
    step = steps_lib.make_train_step(model, tx, ema_decay=0.9, seed=3)
    parallel = Parallel(kind, jax.devices()[:number])
    keys = jax.random.split(jax.random.key(0), 8)
    states, batches, objectives = [], [], []
    for i in range(3):
        one = uneven_batch()
        params = model.init(jax.random.key(i), one.image, one.size, keys)["params"]
        states.append(jax.device_get(state_lib.create(params, tx, ema=True)))
        batches.append(one._replace(image=one.image * (1 + i), group=np.roll(one.group, i)))
        weights = np.roll(np.float32(CLASS_WEIGHTS), i)
        objectives.append(steps_lib.Objective(weights, 10.0, "softmax_ce", "mean", 100.0))
    alone = []
    for state, batch, objective in zip(states, batches, objectives, strict=True):
        one, state = parallel.train_step(step, objective), parallel.replicate(state)
        for _ in range(3):
            state, metrics = one(state, batch)
        alone.append(parallel.host((state, metrics)))
    together = parallel.train_step(steps_lib.side_by_side(step), tuple(objectives))
    after = parallel.replicate(tuple(states))
    for _ in range(3):
        after, metrics = together(after, tuple(batches))
    assert together.traces() == 1
    for i in range(3):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
            parallel.host((after[i], metrics[i])),
            alone[i],
        )
    losses = [float(one["loss"]) for one in metrics]
    assert min(abs(a - b) for a, b in itertools.combinations(losses, 2)) > 1e-3


def test_arrays_go_to_devices_and_back():
    for kind in ("jit", "pmap"):
        parallel = Parallel(kind)
        tree = {"a": np.arange(6.0, dtype=np.float32), "b": np.array(3)}
        there = parallel.replicate(tree)
        assert all(x.sharding == parallel.replicated for x in jax.tree.leaves(there))
        jax.tree.map(np.testing.assert_array_equal, parallel.host(there), tree)
        rows = np.arange(8)[:, None]
        np.testing.assert_array_equal(parallel.local(parallel.split(rows)), rows)
        assert parallel.replicate(there)["a"] is there["a"]
        np.testing.assert_array_equal(parallel.gather(rows.astype(float)), rows)


def test_a_pmap_result_is_not_copied():
    parallel = Parallel("pmap")
    x = jax.pmap(lambda x: jax.lax.psum(x, "other"), "other", out_axes=None)(np.ones((4, 2)))
    y = parallel.replicate(x)
    assert y.sharding == parallel.replicated
    pointers = [[s.data.unsafe_buffer_pointer() for s in z.addressable_shards] for z in (x, y)]
    assert pointers[0] == pointers[1]


@pytest.mark.parametrize("precision", ["float32", "tensorfloat32"])
def test_programs_are_traced_with_the_precision_asked_for(precision):
    parallel = Parallel(precision=precision)
    seen = []

    def function(params, batch):
        seen.append(jax.config.jax_default_matmul_precision)
        return batch

    parallel.eval_step(function)(parallel.replicate({}), np.zeros((4, 2), np.float32))
    parallel.once(lambda x: function(None, x), np.zeros(3, np.float32))

    def step(state, batch, axis_name=None):
        return function(None, state), {}

    for kind in ("jit", "pmap"):
        several = Parallel(kind, precision=precision)
        several.train_step(step)(several.replicate(np.zeros(3)), np.zeros((4, 2), np.float32))
    assert seen == [precision] * 4
    assert jax.config.jax_default_matmul_precision is None, "others' programs stay as they are"


def test_batches_are_rounded_up_to_devices():
    assert [Parallel(devices=jax.devices()[:3]).round_up(n) for n in (1, 3, 4)] == [3, 3, 6]


@pytest.mark.parametrize("kind", ["jit", "pmap"])
def test_training_compiles_one_program_a_bucket(tmp_path_factory, kind):
    """Crops of a quarter of each side have as many sizes as pictures."""
    folder = small_run.common(tmp_path_factory)
    config = small_run.config(
        folder, crop__mode="quarter", crop__max_buckets=2, train__steps=40, parallel=kind
    )
    pictures = data_lib.load(config).pictures("train")
    assert len({data_lib.crop_rule(config).size(e.height, e.width) for e in pictures.index}) > 2
    groups = data_lib.fit_groups(config, pictures)
    stream = data_lib.training_stream(config, pictures, groups, start=0, shard=Shard())
    bodies = []

    def step(state, batch, axis_name=None):
        bodies.append(batch.image.shape)
        total = batch.image.sum()
        total = jax.lax.psum(total, axis_name) if axis_name else total
        return {"n": state["n"] + 1}, {"total": total}

    parallel = Parallel(kind)
    train_step = parallel.train_step(step)
    state = parallel.initialise(lambda: {"n": jnp.zeros(())})
    shapes = set()
    for batch in stream:
        shapes.add(batch.image.shape)
        state, _ = train_step(state, batch)
    assert float(parallel.host(state)["n"]) == 40
    assert len(shapes) == 2
    assert train_step.traces() == len(bodies) == 2


def test_evaluation_compiles_one_program_a_bucket(tmp_path_factory):
    folder = small_run.common(tmp_path_factory)
    config = small_run.config(folder, eval__max_buckets=2, model__name="single_stage")
    pictures = data_lib.load(config).pictures("train")
    sizes = [(e.height, e.width) for e in pictures.index]
    assert len(buckets.choose(sizes, 99).shapes) > 2
    parallel = Parallel()
    groups = count_groups.CountGroups((1.0, 2.0), CLASS_WEIGHTS, (1, 1, 1))

    class OneLayer:
        def apply(self, variables, image, size):
            from cmtl_jax.models.output import CmtlOutput

            return CmtlOutput(variables["params"] * image, None)

    evaluator = evaluate.Evaluator(OneLayer(), config, pictures, groups, parallel)
    for _ in range(2):
        assert len(evaluator(parallel.replicate(np.float32(0.1)))) == len(pictures)
    assert 1 <= evaluator.traces <= 2


def test_evaluation_programs_are_prepared_beside_the_first_batches():
    """Each in a thread of its own; a batch waits for its program alone, and for none twice."""
    parallel = Parallel()
    params = parallel.replicate({"factor": np.float32(3)})
    threads = []

    def function(params, batch):
        threads.append(threading.current_thread())
        assert jax.config.jax_default_matmul_precision == "float32"
        return jax.tree.map(lambda x: params["factor"] * x, batch)

    batches = [np.arange(4 * width, dtype=np.float32).reshape(4, width) for width in (2, 3, 5)]
    plain = parallel.eval_step(lambda params, batch: function(params, batch))
    expected = [parallel.local(plain(params, batch)) for batch in batches]
    threads.clear()
    step = parallel.eval_step(function)
    step.prepare(params, batches[:2])
    step.prepare(params, batches[:2])
    for _ in range(2):
        for batch, wanted in zip(batches, expected, strict=True):
            np.testing.assert_array_equal(parallel.local(step(params, batch)), wanted)
    assert step.traces() == 3
    assert [thread is threading.main_thread() for thread in threads].count(True) == 1
    assert len(threads) == 3, "what was prepared is not compiled again"


def test_what_cannot_be_prepared_is_said_by_the_call():
    parallel = Parallel()

    def function(params, batch):
        raise ValueError("no program")

    step = parallel.eval_step(function)
    step.prepare({}, [np.zeros((4, 2), np.float32)])
    with pytest.raises(ValueError, match="no program"):
        step({}, np.zeros((4, 2), np.float32))


def test_a_platform_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setattr(jax, "devices", mock.Mock(side_effect=AssertionError))
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(UserError, match="JAX_PLATFORMS='cuda'.*doctor"):
        Parallel("jit")
