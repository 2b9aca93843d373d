"""Evaluation of weights, as a whole."""

import json
import logging
import types

import exports
import pytest
import small_run
from work_folders import untrained

from cmtl_jax import trained_model, weight_average
from cmtl_jax.errors import UserError
from cmtl_jax.evaluation import run
from cmtl_jax.input_pipeline import data as data_lib
from cmtl_jax.input_pipeline import extra_pictures
from cmtl_jax.input_pipeline.patches import Patches
from cmtl_jax.parallel import Parallel
from cmtl_jax.training import train


def test_pictures_seen_in_training_are_told(tmp_path, caplog):
    cut = {"options": small_run.OPTIONS, "val_fraction": 0.25}
    weights = untrained(tmp_path / "weights", dataset=cut, name="single_stage")
    results = {}
    for seed in (0, 1, 2):
        config = small_run.config(
            tmp_path, init_from=str(weights), dataset__val_fraction=0.25, dataset__val_seed=seed,
            eval__split="val",
        )  # fmt: skip
        caplog.clear()
        results[seed] = run.evaluate_checkpoint(config, tmp_path / str(seed))
        seen = results[seed]["num_seen_in_training"]
        told = [r.message for r in caplog.records if r.levelno == logging.WARNING]
        report = (tmp_path / str(seed) / "eval/synthetic-val/report.html").read_text()
        assert "Seen in training" in report
        if seen:
            assert any(f"trained on {seen} of these 2 pictures" in line for line in told)
            assert results[seed]["protocol"]["seen in training"] == f"{seen} of the 2 pictures"
        else:
            assert not any("trained on" in line for line in told)
            assert "seen in training" not in results[seed]["protocol"]
    assert results[0]["num_seen_in_training"] == 0
    assert max(r["num_seen_in_training"] for r in results.values()) > 0


def test_training_pictures_are_counted_once_each_without_those_of_other_data_sets(tmp_path):
    """Where a data set has no others, and a run's own training repeats them."""
    options = small_run.OPTIONS | {"num_test": 0}
    config = small_run.config(tmp_path, dataset__val_fraction=0.0, dataset__repeat=3)
    config.dataset.options.update(options)
    weights = untrained(tmp_path / "w", dataset={"options": options}, name="single_stage")
    config.init_from = str(weights)
    result = run.evaluate_checkpoint(config, tmp_path / "out", data=data_lib.load(config))
    assert result["num_images"] == 8
    assert (tmp_path / "out/eval/synthetic-train/per_image.csv").exists()


def test_pictures_that_any_averaged_run_saw_are_seen(tmp_path, monkeypatch):
    """Each run is asked once: of the runs here one saw what the last did not."""
    asked = []

    def trained_on(config, weights, split):
        asked.append(weights.dataset.extra)
        return {"first"} if weights.dataset.extra else {"second"}

    monkeypatch.setattr(run.data_lib, "trained_on", trained_on)
    entries = [types.SimpleNamespace(id=name) for name in ("first", "second", "third")]
    data = types.SimpleNamespace(pictures=lambda _: types.SimpleNamespace(index=entries))
    weights = exports.trained()
    other = exports.trained(dataset__extra="textures")
    mean = weight_average.average([other, weights, weights])
    assert run._seen_in_training(None, [mean], data, "train") == 2
    assert sorted(asked) == ["", "textures"]


def test_baselines_are_of_the_data_sets_own_training_pictures(tmp_path, monkeypatch):
    """At the end of a training that has others' pictures, and its own several times, too."""
    alone = extra_pictures.SOURCES["empty_scenes"]
    few = alone._replace(options=alone.options | {"num_train": 10, "height": (40, 50)})
    monkeypatch.setitem(extra_pictures.SOURCES, "empty_scenes", few)
    config = small_run.config(tmp_path, dataset__extra="empty_scenes", dataset__repeat=3)
    config.init_from = str(untrained(tmp_path / "weights", name="single_stage"))
    training = data_lib.load(config)
    assert len(training.pictures("train")) > 3 * len(training.own)
    found = [run.evaluate_checkpoint(config, tmp_path, data=data) for data in (None, training)]
    for name in ("best_constant_mae", "brightness_regression_mae"):
        assert found[0][name] == found[1][name] > 0


def test_without_training_pictures_there_are_no_baselines(tmp_path, caplog):
    """Only the test pictures' own counts would be left to take a constant from."""
    caplog.set_level(logging.INFO)
    config = small_run.config(tmp_path)
    config.dataset.options.num_train = 0
    config.init_from = str(untrained(tmp_path / "weights", name="single_stage"))
    result = run.evaluate_checkpoint(config, tmp_path / "out")
    assert not {"best_constant_mae", "brightness_regression_mae"} & result.keys()
    folder = tmp_path / "out/eval/synthetic-test"
    assert "best constant" not in (folder / "report.html").read_text()
    (line,) = (r.getMessage() for r in caplog.records if "3 pictures: MAE" in r.getMessage())
    assert "constant" not in line and line.endswith(f"; see {folder / 'report.html'}")


def test_groups_are_of_crops_of_the_size_of_the_training_ones(tmp_path, monkeypatch):
    sizes = []

    class Evaluator(run.evaluate.Evaluator):
        def __call__(self, params, **options):
            if isinstance(self._pictures, Patches):
                sizes.extend(self._pictures.sizes)
                return []
            return super().__call__(params, **options)

    monkeypatch.setattr(run.evaluate, "Evaluator", Evaluator)
    weights = untrained(tmp_path / "weights")
    trained = trained_model.restore(weights, Parallel()).config
    assert trained.augment.zoom and trained.crop.height > 64  # pictures are taken whole
    config = small_run.config(tmp_path, init_from=str(weights))
    run.evaluate_checkpoint(config, tmp_path / "out")
    index = data_lib.load(config, training=False).pictures("test").index
    whole = [(entry.height, entry.width) for entry in index]
    assert sizes == [size for size in whole for _ in range(run.GROUP_CROPS)]


def test_the_checkpoint_asked_for_is_evaluated(tmp_path):
    """Of another work folder, too; what training starts from is its best one in any case."""
    weights = str(untrained(tmp_path / "weights", name="single_stage", steps=(3, 5)))
    config = small_run.config(tmp_path, init_from=weights)
    for asked, step in (("best", 3), ("latest", 5), ("5", 5)):
        config.eval.checkpoint = asked
        assert run.evaluate_checkpoint(config, tmp_path / asked)["checkpoint_step"] == step
    assert train._before(config, tmp_path, Parallel(), None)["checkpoint_step"] == 3
    config.eval.checkpoint = "999"
    with pytest.raises(UserError, match="no checkpoint 999 in .*best, latest, 3, 5"):
        run.evaluate_checkpoint(config, tmp_path / "out")
    config.init_from = "sha"
    with pytest.raises(UserError, match="no checkpoint 999 in sha: .*leave the checkpoint out"):
        run.evaluate_checkpoint(config, tmp_path / "out")


def test_resized_pictures_are_evaluated_and_shown(tmp_path):
    weights = untrained(tmp_path / "w", name="single_stage", seen={"resize": "multiple_of_4"})
    config = small_run.config(tmp_path, init_from=str(weights), eval__triptychs=3)
    assert run.evaluate_checkpoint(config, tmp_path / "out")["num_images"] == 3
    assert "resized down" in (tmp_path / "out/eval/synthetic-test/report.html").read_text()


def test_averaged_weights_have_the_learning_curves_of_all(tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(run.report, "write_report", lambda _, curves, **__: found.append(curves))
    sources = []
    for i, name in enumerate(("first", "second")):
        cut = {"options": small_run.OPTIONS}
        folder = untrained(tmp_path / name, dataset=cut, name="single_stage")
        line = {"step": 4, "val/mae": 7.0 + i}
        (tmp_path / name / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        sources.append(str(folder))
    for source in (sources[0], ",".join(sources)):
        run.evaluate_checkpoint(small_run.config(tmp_path, init_from=source), tmp_path / "out")
    first = {"first": [{"step": 4, "val/mae": 7.0}]}
    assert found == [first, first | {"second": [{"step": 4, "val/mae": 8.0}]}]


def test_learning_curves_of_runs_of_one_name_are_told_apart(tmp_path):
    for folder in ("first/run", "second/run"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "metrics.jsonl").write_text(json.dumps({"in": folder}))
    found = run._curves(f"{tmp_path}/first/run,{tmp_path}/second/run")
    assert found == {name: [{"in": name}] for name in ("first/run", "second/run")}
