"""Weights for grey pictures as weights for colours."""

import jax
import numpy as np
import pytest
import small_run
from work_folders import random_params, untrained

from cmtl_jax import config as base_config
from cmtl_jax import pictures, trained_model
from cmtl_jax.input_pipeline.batch import normalise
from cmtl_jax.models import colours
from cmtl_jax.parallel import Parallel
from cmtl_jax.training import train


@pytest.mark.parametrize("name", ["cmtl", "single_stage", "mcnn"])
def test_they_see_the_grey_levels_of_a_coloured_picture(name):
    config = base_config.base()
    config.model.name = name
    model = trained_model.build_model(config)
    grey = random_params(model)
    expected = jax.eval_shape(lambda: trained_model.init_params(model, 0, 3))
    coloured = colours.of_grey(grey, expected)
    assert jax.tree.map(np.shape, coloured) == jax.tree.map(lambda x: x.shape, expected)
    picture = np.random.default_rng(0).integers(0, 256, (32, 48, 3)).astype(np.float32)
    levels = (picture * np.array(pictures.LUMA, np.float32)).sum(axis=2, keepdims=True)
    size = np.array([[32, 48]])
    apply = jax.jit(lambda params, image: model.apply({"params": params}, image, size).density)
    seen = [
        apply(params, normalise(image, 113.0, 64.0)[None])
        for params, image in ((grey, levels), (coloured, picture))
    ]
    assert seen[0].max() > 0
    np.testing.assert_allclose(seen[1], seen[0], rtol=0, atol=2e-5 * float(seen[0].max()))


def test_what_fits_already_is_left_as_it_is():
    model = trained_model.build_model(base_config.base())
    for channels in (1, 3):
        params = random_params(model, channels)
        same = colours.of_grey(params, params)
        assert all(a is b for a, b in zip(*map(jax.tree.leaves, (params, same)), strict=True))


def test_training_on_colours_starts_from_weights_for_grey_pictures(tmp_path):
    weights = untrained(tmp_path / "grey")
    config = small_run.config(
        tmp_path, init_from=str(weights), input__channels=3, groups__number=10, train__steps=1,
        train__eval_every=1,
    )  # fmt: skip
    train.train(config, tmp_path / "run")
    trained = trained_model.restore(tmp_path / "run", Parallel(), "latest")
    assert trained.step == 1 and trained.params["shared"]["conv1"]["conv"]["kernel"].shape[2] == 3
    assert trained.config.input.channels == 3
