"""The multi-column network against its definition, and in the ordinary commands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import released_files
import small_run
from work_folders import random_params

from cmtl_jax import config as base_config
from cmtl_jax import trained_model
from cmtl_jax.input_pipeline.batch import Crop, collate
from cmtl_jax.interop import released
from cmtl_jax.models import registry, whitening
from cmtl_jax.training import optimizer, steps, train
from cmtl_jax.training import state as state_lib

SIZES = [(37, 50), (2, 21), (44, 41)]


def crop() -> np.ndarray:
    return np.load(released_files.GOLDEN)["image"]


def run(model, params, grey, size=None):
    size = jnp.array([size or grey.shape])
    image = jnp.asarray(grey, jnp.float32)[None, :, :, None]
    output = jax.jit(model.apply)({"params": params}, image, size)
    assert output.group_logits is None
    return np.asarray(output.density)[0, :, :, 0]


@pytest.mark.parametrize("weights", ["random", "mcnn_shtechA_660", "mcnn_shtechB_110"])
def test_equals_its_definition_on_a_real_crop(weights, request):
    if weights == "random":
        theirs = released_files.arrays("mcnn")
    else:
        shared = request.getfixturevalue("shared")
        theirs = released_files.read(shared / f"fixtures/{weights}.h5")
    expected = released_files.plain_mcnn(theirs, crop())
    assert expected.max() > 0
    model = registry.build("mcnn", **released.ARCHITECTURE)
    density = run(model, released.to_ours("mcnn", theirs), crop())
    spread = np.kron(expected, np.ones((4, 4))) / 16
    assert np.abs(density - spread).max() <= 1e-5 * spread.max()


def test_has_the_parameters_of_its_definition():
    layers = [(9, 1, 16), (7, 16, 32), (7, 32, 16), (7, 16, 8)]
    layers += [(7, 1, 20), (5, 20, 40), (5, 40, 20), (5, 20, 10)]
    layers += [(5, 1, 24), (3, 24, 48), (3, 48, 24), (3, 24, 12), (1, 30, 1)]
    expected = sum(k * k * a * b + b for k, a, b in layers)
    shapes = jax.tree.leaves(released.shapes("mcnn"))
    assert sum(int(np.prod(x.shape)) for x in shapes) == expected


def test_a_picture_alone_equals_it_padded_into_a_mixed_batch():
    with jax.enable_x64(True):
        model = registry.build("mcnn", dtype="float64", output_activation="softplus")
        params = jax.tree.map(lambda x: x.astype(np.float64), random_params(model))
        rng = np.random.default_rng(0)
        images = [rng.normal(size=(h, w, 1)) for h, w in SIZES]
        together = np.full((len(SIZES), 44, 56, 1), 7.0)  # garbage around the pictures
        for i, image in enumerate(images):
            together[i, : image.shape[0], : image.shape[1]] = image
        apply = jax.jit(model.apply)
        density = apply({"params": params}, together, jnp.array(SIZES)).density
        for i, (h, w) in enumerate(SIZES):
            alone = np.zeros((1, -(-h // 4) * 4, -(-w // 4) * 4, 1))
            alone[0, :h, :w] = images[i]
            expected = apply({"params": params}, alone, jnp.array([(h, w)])).density[0]
            np.testing.assert_allclose(density[i, :h, :w], expected[:h, :w], rtol=1e-9)
            assert not density[i].at[:h, :w].set(0).any()


@pytest.mark.parametrize("height, width", [(61, 64), (64, 41), (3, 62), (1, 1)])
def test_the_sum_is_that_of_the_map_of_the_padded_picture(height, width):
    theirs = released_files.arrays("mcnn")
    padded = np.zeros((-(-height // 4) * 4, -(-width // 4) * 4))
    padded[:height, :width] = crop()[:height, :width]
    model = registry.build("mcnn")
    params = released.to_ours("mcnn", theirs)
    density = run(model, params, padded, (height, width))
    assert not density[height:].any() and not density[:, width:].any()
    expected = released_files.plain_mcnn(theirs, padded)
    assert density.sum(dtype=np.float64) == pytest.approx(expected.sum(), rel=1e-5)


def test_keys_without_a_use_are_ignored_and_slips_are_not():
    model = registry.build(
        "mcnn", num_groups=7, prior_pool="spp", up_maps=[16, 18], dropout=0.3, density_scale=50.0
    )
    assert jax.tree.map(jnp.shape, random_params(model)) == jax.tree.map(
        jnp.shape, released.shapes("mcnn")
    )
    params = random_params(model)
    np.testing.assert_allclose(
        run(model, params, crop()) * 50, run(registry.build("mcnn"), params, crop()), rtol=1e-6
    )
    with pytest.raises(TypeError):
        registry.build("mcnn", layers=3)
    with pytest.raises(ValueError, match="multiples of 4"):
        run(model, params, crop()[:30])


def initial(init):
    """Two of the layers: compiling all random numbers takes long."""

    @jax.jit
    def some():
        params = trained_model.init_params(registry.build("mcnn", init=init), 3, 1)
        return params["output"], params["branch1"]["conv2"]

    return some()


@pytest.mark.parametrize("init", ["he", "whitened"])
def test_hes_start_is_alive_by_construction(init):
    """The last layer reads what a ReLU gives: with no negative weight the density is positive."""
    output, conv = initial(init)
    assert output["kernel"].min() >= 0 and 0 < output["kernel"].mean() < 0.1
    assert output["bias"] == pytest.approx(0.05)
    assert float(conv["kernel"].std()) == pytest.approx(
        np.sqrt(2 / (1 + 0.25**2) / (49 * 16)), rel=0.03
    )


def test_the_released_start_is_normal_without_bias():
    output, conv = initial("released")
    assert float(conv["kernel"].std()) == pytest.approx(0.01, rel=0.02)  # of 25,088 values
    assert 0.002 < output["kernel"].std() < 0.02
    assert not output["bias"].any() and not conv["bias"].any()


def test_the_ordinary_start_and_step_take_it():
    """Traced, not compiled, which takes long; the slow test below runs them."""
    config = base_config.base()
    config.model.name = "mcnn"
    model = trained_model.build_model(config)
    tx = optimizer.build(config.optimizer, config.train.steps)
    objective = steps.Objective(np.ones(10, np.float32), 0.02, "softmax_ce", "mean", 100.0)
    step = steps.make_train_step(model, tx, ema_decay=0.998, seed=0)
    crops = [Crop(crop()[:, :, None], np.zeros((64, 64)), np.zeros((0, 2)))] * 2
    batch = collate(crops, [0, 0], (64, 64), 2, mean=113.0, std=64.0)

    def start_and_step():
        params = trained_model.init_params(model, 0, 1)
        params = whitening.fit(model, params, batch.image, batch.size, batch.density)
        return params, step(state_lib.create(params, tx, ema=True), batch, objective)

    params, (state, metrics) = jax.eval_shape(start_and_step)
    assert jax.tree.map(jnp.shape, state.params) == jax.tree.map(jnp.shape, params)
    assert "density_loss" in metrics and "first_layer_grad_norm" in metrics
    assert "group_loss" not in metrics and "group_accuracy" not in metrics


@pytest.mark.slow
def test_trains_by_the_ordinary_command(tmp_path_factory, tmp_path):
    folder = small_run.common(tmp_path_factory)
    small_run.compile_once(folder)
    config = small_run.config(folder, model__name="mcnn")
    assert train.train(config, tmp_path) == 0
    assert small_run.metrics(tmp_path)["num_images"] == 3
    first, last = (small_run.arrays(tmp_path, step) for step in (4, 8))
    for branch in ("branch1", "branch2", "branch3"):
        name = f"params['{branch}']['conv1']['kernel']"
        assert np.abs(last[name] - first[name]).max() > 0
