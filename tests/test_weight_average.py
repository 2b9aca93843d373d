"""The mean of several weights: of each parameter, and only of what belongs together."""

import dataclasses
import pathlib
import shutil

import jax
import numpy as np
import pytest
import small_run
from work_folders import STEP, untrained

from cmtl_jax import config as base_config
from cmtl_jax import cross_validation, trained_model, weight_average
from cmtl_jax.errors import UserError
from cmtl_jax.evaluation import run
from cmtl_jax.interop import card, description, export, safetensors_file
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
    assert found.source == "shb,other" and found.step is None and found.config.seed == 5
    third = changed(shb, "third", 5.0)
    found = weight_average.average([shb, other, third])
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, 3 * y, rtol=1e-6), found.params, shb.params
    )


def test_people_stand_as_far_apart_as_in_any_of_the_trainings(shb):
    other = changed(shb, "other")
    apart = {key: 2 * value for key, value in shb.about["head_spacing"].items()}
    other = dataclasses.replace(other, about=other.about | {"head_spacing": apart})
    for models in ([shb, other], [other, shb]):
        found = weight_average.average(models).about["head_spacing"]
        assert found["low"] == shb.about["head_spacing"]["low"] and found["high"] == apart["high"]


OTHER = {
    "model": {"model.prior_fusion": "film"},
    "input": {"input.scale": 1.0},
    "loss.density_scale": {"loss.density_scale": 3.0},
    "groups.number": {"groups.number": 7},
    "dataset.name": {"dataset.name": "synthetic"},
    "dataset.options": {"dataset.options.part": "part_a"},
    "dataset.fold": {"dataset.fold": 2},
    "dataset.val_fraction": {"dataset.val_fraction": 0.0},
    "dataset.val_split": {"dataset.val_split": "released"},
    "dataset.val_seed": {"dataset.val_seed": 3},
    "dataset.leave_out": {"dataset.leave_out": "IMG_1"},
}


@pytest.mark.parametrize("key", weight_average._SAME)
def test_what_does_not_belong_together_is_refused(shb, key):
    with pytest.raises(UserError, match=f"shb and other cannot be.*config.{key} differ"):
        weight_average.average([shb, changed(shb, "other", **OTHER[key])])


def named(trained, source, data, **values):
    """Weights of a run of their own, of the program `of SOURCE`."""
    about = trained.about | {"data": data, "program": f"of {source}"}
    return dataclasses.replace(changed(trained, source, **values), about=about)


def test_it_says_what_it_is_the_mean_of(shb, tmp_path):
    one = named(shb, "runs/one", "part_b, textures", **{"seed": 4, "dataset.extra": "textures"})
    two = named(shb, "runs/two", "part_b", **{"dataset.raw_dir": str(tmp_path)})
    found = weight_average.average([one, two])
    assert weight_average.text(found) == "one (step 7), two (step 7)"
    assert found.about["data"] == "part_b, textures"
    assert found.about["program"] == "of runs/one; of runs/two"
    assert found.about["train_ids_sha256"] == shb.about["train_ids_sha256"]
    assert [run.config for run in weight_average.runs(found)] == [one.config, two.config]

    # A file keeps it, but for the folders of this machine; what it is of keeps its part.
    file = tmp_path / "mean.safetensors"
    safetensors_file.write(file, found.params, description.of_weights(found))
    assert str(tmp_path).encode() not in file.read_bytes()
    kept = trained_model.restore(file, Parallel())
    assert weight_average.text(kept) == weight_average.text(found)
    assert [run.config.seed for run in weight_average.runs(kept)] == [4, 0]
    assert [run.config.dataset.extra for run in weight_average.runs(kept)] == [
        "textures", shb.config.dataset.extra
    ]  # fmt: skip
    nested = weight_average.average([kept, named(shb, "x/two", "part_b")])
    assert weight_average.text(nested) == (
        "one (step 7, share 0.25), two (step 7, share 0.25), two (step 7, share 0.5)"
    )
    assert weight_average.text(shb) == ""


def test_a_damaged_account_of_the_runs_is_told(shb, tmp_path):
    file = tmp_path / "mean.safetensors"
    about = description.of_weights(shb) | {weight_average.ABOUT: [{"config": {}}]}
    safetensors_file.write(file, shb.params, about)
    with pytest.raises(UserError, match="does not understand.*export it again"):
        trained_model.restore(file, Parallel())


def test_an_exported_mean_says_what_it_is(tmp_path, monkeypatch):
    """Evaluated and exported as a whole, from checkpoints."""
    options = {"options": small_run.OPTIONS}
    runs = [tmp_path / "runs" / name for name in ("one", "two")]
    untrained(runs[0], dataset=options, name="single_stage")
    with monkeypatch.context() as patch:
        other = base_config.base()
        other.seed = 3
        patch.setattr(base_config, "base", lambda: other)
        untrained(runs[1], dataset=options | {"extra": "textures"}, name="single_stage")
    source, out = ",".join(map(str, runs)), tmp_path / "runs/mean"
    config = small_run.config(tmp_path, init_from=source, export__format="safetensors")
    result = run.evaluate_checkpoint(config, out)
    mean_of = f"one (step {STEP}), two (step {STEP})"
    assert result["checkpoint_step"] is None
    assert result["protocol"]["mean of the weights of"] == mean_of
    assert "seed 0/3" in result["protocol"]["trained on"]
    (file,) = export.export(config, out)
    kept = trained_model.restore(file, Parallel())
    assert kept.step is None and weight_average.text(kept) == mean_of

    text = file.with_suffix(".md").read_text()
    assert f"| checkpoint | mean of the weights of 2 runs: {mean_of} |" in text
    row = f"| synthetic, test | 3 | {result['mae']:.1f} | {result['rmse']:.1f} | mean of 2 |"
    assert row in text
    commands = [line.split() for line in text.splitlines() if "cmtl_jax.main --config" in line]
    assert [line[-1] for line in commands] == [
        "--workdir=one", "--workdir=two", "--workdir=mean"
    ]  # fmt: skip
    assert "--config.dataset.extra=textures" in commands[1]
    assert "--config.dataset.extra=textures" not in commands[0]
    assert "--config.init_from=one,two" in commands[2] and "--mode=export" in commands[2]
    assert "| seed | 0, 3 |" in text
    assert str(tmp_path) not in text and "\n\n\n" not in text

    # The runs themselves have not been evaluated.
    assert "Not evaluated" in card.text(trained_model.restore(runs[1], Parallel()), file, out)


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


def test_names_of_many_runs_are_cut(tmp_path):
    source = ",".join(f"{i}-a-run-with-a-long-name" for i in range(30))
    assert len(trained_model.sources(source)) == 30
    name = trained_model.short_name(source)
    assert name == "+".join([*(f"{i}-a-run-with-a-long-name" for i in range(3)), "27 more"])
    with pytest.raises(UserError, match="no weights at 0-a-run"):
        trained_model.restore(source, Parallel())
    # Nor is the system asked whether all together are a folder: it has no paths as long.
    config = base_config.base()
    config.init_from = source
    assert export._sources(config, pathlib.Path(source)) == [pathlib.Path(source)]
    own, folder = cross_validation.of_fold(config, tmp_path, 1)
    assert own.init_from == source
    with pytest.raises(UserError, match="no weights at 0-a-run"):
        cross_validation._require_unseen(own, folder)
    with pytest.raises(UserError, match="no weights at aaa"):
        trained_model.restore("a" * 300, Parallel())


def test_names_are_as_long_as_tells_paths_apart():
    assert trained_model.names(["x/a", "y/b"]) == ["a", "b"]
    assert trained_model.names(["x/1/a", "y/1/a"]) == ["x/1/a", "y/1/a"]
    assert trained_model.names(["x/a", "x/a"]) == ["a", "a"]
