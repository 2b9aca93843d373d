"""The mean of several weights: of each parameter, and only of what belongs together."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from cmtl_jax import trained_model, weight_average
from cmtl_jax.errors import UserError
from cmtl_jax.parallel import Parallel


@pytest.fixture(scope="module")
def shb():
    return trained_model.restore("shb", Parallel())


def changed(trained, source, factor=1.0, **values):
    config = trained.config.copy_and_resolve_references()
    config.update_from_flattened_dict(values)
    params = jax.tree.map(lambda x: x * factor, trained.params)
    return dataclasses.replace(trained, params=params, config=config, source=source, step=7)


def test_it_is_the_mean_and_else_the_last(shb):
    other = changed(shb, "other", 3.0, seed=5)
    found = weight_average.average([shb, other])
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, 2 * y, rtol=1e-6), found.params, shb.params
    )
    assert found.source == "shb,other" and found.step == 7 and found.config.seed == 5
    third = changed(shb, "third", 5.0)
    found = weight_average.average([shb, other, third])
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, 3 * y, rtol=1e-6), found.params, shb.params
    )


@pytest.mark.parametrize(
    "values",
    [
        {"input.scale": 1.0},
        {"model.prior_fusion": "film"},
        {"loss.density_scale": 3.0},
        {"dataset.val_seed": 3},
        {"dataset.val_fraction": 0.0},
        {"dataset.leave_out": "IMG_1"},
    ],
)
def test_what_does_not_belong_together_is_refused(shb, values):
    with pytest.raises(UserError, match=next(iter(values)).split(".")[0]):
        weight_average.average([shb, changed(shb, "other", **values)])


def test_they_are_named_with_commas(shb, tmp_path):
    found = trained_model.restore("shb, shb", Parallel())
    jax.tree.map(np.testing.assert_array_equal, found.params, shb.params)
    with pytest.raises(UserError, match="cannot be averaged"):
        trained_model.restore("shb,ucf_cc_50", Parallel())
    with pytest.raises(UserError, match="no weights at nothing.*commas separate weights"):
        trained_model.restore("shb,nothing", Parallel())
    # A path with a comma is a path.
    path = tmp_path / "a,b.safetensors"
    shutil.copy(trained_model.SHIPPED / "shb.safetensors", path)
    assert trained_model.restore(path, Parallel()).source == str(path)
    assert trained_model.sources(path) == [str(path)]


def test_short_names():
    assert trained_model.short_name("runs/a") == "a"
    assert trained_model.short_name("runs/a,runs/b") == "a+b"
    assert trained_model.sources("runs/a,") == ["runs/a,"]


def test_a_folder_is_named_even_where_its_path_is_a_dot(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    assert trained_model.short_name(".") == "run"
    assert trained_model.short_name(".,../b/") == "run+b"
    assert trained_model.short_name("/") == "weights"


def test_names_of_many_runs_are_cut():
    source = ",".join(f"runs/{i}-a-run-with-a-long-name" for i in range(30))
    assert len(trained_model.sources(source)) == 30
    name = trained_model.short_name(source)
    assert name == "+".join([*(f"{i}-a-run-with-a-long-name" for i in range(3)), "27 more"])
    with pytest.raises(UserError, match="no weights at runs/0-a-run"):
        trained_model.restore(source, Parallel())
    with pytest.raises(UserError, match="no weights at aaa"):
        trained_model.restore("a" * 300, Parallel())


def test_names_are_as_long_as_tells_paths_apart():
    assert trained_model.names(["x/a", "y/b"]) == ["a", "b"]
    assert trained_model.names(["x/1/a", "y/1/a"]) == ["x/1/a", "y/1/a"]
    assert trained_model.names(["x/a", "x/a"]) == ["a", "a"]
