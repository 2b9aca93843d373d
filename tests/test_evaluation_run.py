"""Evaluation of weights, as a whole."""

import json
import logging
import types

import exports
import small_run
from work_folders import untrained

from cmtl_jax import weight_average
from cmtl_jax.evaluation import run
from cmtl_jax.input_pipeline import data as data_lib


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
