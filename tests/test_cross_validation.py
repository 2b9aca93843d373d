"""All five folds by one command: what is trained, gone on with, skipped, and put together."""

import csv
import json
import logging
import os
import pathlib
import shutil
import signal
import types

import numpy as np
import pytest
import released_files
import scipy.io
import small_run
from PIL import Image
from work_folders import CommandLine, only_error

from cmtl_jax import checkpoints, cross_validation, trained_model, weight_average
from cmtl_jax import config as base_config
from cmtl_jax.errors import UserError
from cmtl_jax.evaluation import report, run
from cmtl_jax.input_pipeline import data as data_lib
from cmtl_jax.metrics import CountMetrics, ImageMetrics
from cmtl_jax.training import train

ROOT = pathlib.Path(__file__).resolve().parent.parent
SUMMARY = "eval/ucf_cc_50-cross_validation"
GROUPS = ("edges", "class_weights", "histogram")


def draw(raw: pathlib.Path, numbers=range(1, 51)) -> pathlib.Path:
    """A raw folder of pictures of one size; picture n has n % 7 + 2 heads."""
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in numbers:
        pixels = rng.integers(0, 256, (32, 40), np.uint8)
        Image.fromarray(pixels).save(raw / f"{number}.jpg")
        points = rng.uniform(5, 30, (number % 7 + 2, 2))
        scipy.io.savemat(raw / f"{number}_ann.mat", {"annPoints": points})
    return raw


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("raw") / "UCF_CC_50")


@pytest.fixture
def config(raw, tmp_path_factory):
    folder = small_run.common(tmp_path_factory)
    small_run.compile_once(folder)
    c = base_config.base()
    values = small_run.SMALL | {
        "name": "ucf_cc_50",
        "dataset.name": "ucf_cc_50",
        "dataset.raw_dir": str(raw),
        "dataset.tfds_dir": str(raw.parent / "tfds"),
        "dataset.val_fraction": 0.1,
        "crop.height": 16,
        "crop.width": 16,
        "model.init": "he",
        "train.steps": 2,
        "train.eval_every": 2,
        "train.log_every": 1,
        "train.stop_on_dead": False,
        "eval.batch_size": 12,
    }
    c.dataset.options.folds = "sequential"
    c.update_from_flattened_dict(values)
    base_config.validate(c)
    return c


def steps(workdir: pathlib.Path, fold: int) -> list[int]:
    """Steps that were logged in a fold's run."""
    lines = small_run.lines(workdir / f"fold_{fold}")
    return [line["step"] for line in lines if "train/loss" in line]


def rows(path: pathlib.Path) -> list[dict]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_all_folds_stopped_and_gone_on_with(config, tmp_path, monkeypatch, caplog):
    asked = train._Run.stop_requested

    def stop_requested(self, step):
        stop = asked(self, step)
        if step == 1 and self.workdir.name == "fold_2":
            os.kill(os.getpid(), signal.SIGTERM)
        return stop

    # Stopped in the second fold: the whole command ends, with the signal's status.
    with monkeypatch.context() as patch:
        patch.setattr(train._Run, "stop_requested", stop_requested)
        config.train.steps = 3
        assert cross_validation.train(config, tmp_path) == 128 + signal.SIGTERM
    assert {path.name for path in tmp_path.iterdir()} == {"fold_1", "fold_2"}
    assert json.loads((tmp_path / "fold_1/config.json").read_text())["dataset"]["fold"] == 1

    # The same command again: the first fold is not touched, the second goes on.
    with caplog.at_level(logging.INFO):
        assert cross_validation.train(config, tmp_path) == 0
    assert "fold 1 of 5 is finished" in caplog.text and "going on from step 2" in caplog.text
    assert "fold 2 of 5 is finished" not in caplog.text
    assert [steps(tmp_path, fold) for fold in range(1, 6)] == [[1, 2, 3]] * 5
    summary = json.loads((tmp_path / SUMMARY / "metrics.json").read_text())
    protocol = summary["protocol"]
    assert protocol["split"] == "cross-validation" and "1-10" in protocol["folds"]
    assert "(the other four folds), preset recommended, model cmtl" in protocol["trained on"]

    # Evaluation alone gives the same, and does not need what was written before.
    (tmp_path / SUMMARY / "metrics.json").unlink()
    (tmp_path / "fold_3/eval/ucf_cc_50-fold_3-test/metrics.json").unlink()
    again = cross_validation.evaluate(config, tmp_path)
    assert again["mae"] == summary["mae"] and again["rmse"] == summary["rmse"]

    # More steps: every fold goes on.
    config.train.steps = 4
    assert cross_validation.train(config, tmp_path) == 0
    assert [steps(tmp_path, fold) for fold in range(1, 6)] == [[1, 2, 3, 4]] * 5


@pytest.mark.slow
def test_folds_side_by_side_give_what_they_give_one_after_the_other(config, tmp_path, caplog):
    assert cross_validation.train(config, tmp_path / "alone") == 0
    config.train.folds_at_once = 5
    with caplog.at_level(logging.INFO):
        assert cross_validation.train(config, tmp_path / "together") == 0
    assert "training 5 runs side by side from step 0 to 2" in caplog.text
    assert "ucf_cc_50-fold_3: step 2/2" in caplog.text
    for fold in range(1, 6):
        alone, together = (
            [line["train/loss"] for line in small_run.lines(tmp_path / name / f"fold_{fold}")
             if "train/loss" in line]
            for name in ("alone", "together")
        )  # fmt: skip
        np.testing.assert_allclose(together, alone, rtol=1e-4)
    alone, together = (
        json.loads((tmp_path / name / SUMMARY / "metrics.json").read_text())["mae"]
        for name in ("alone", "together")
    )
    assert together == pytest.approx(alone, rel=1e-3)


def test_weights_of_part_a_are_warned_of(config, tmp_path, monkeypatch, caplog):
    trained = base_config.base()
    trained.dataset.update(name="shanghaitech", options={"part": "part_a"})
    about = {"data": "", "train_ids_sha256": ""}
    found = types.SimpleNamespace(config=trained, about=about, source="sha", step=None)
    restore = lambda *_: found  # noqa: E731
    monkeypatch.setattr(trained_model, "restore", restore)
    config.init_from = "sha"
    own, folder = cross_validation.of_fold(config, tmp_path, 1)
    cross_validation._require_unseen(own, folder)
    assert "7 pictures of UCF_CC_50" in caplog.text
    caplog.clear()
    trained.dataset.leave_out = "IMG_21,IMG_118,IMG_134,IMG_283,IMG_287,IMG_294"
    cross_validation._require_unseen(own, folder)
    assert caplog.text
    caplog.clear()
    trained.dataset.leave_out += ", IMG_297"
    cross_validation._require_unseen(own, folder)
    assert not caplog.text
    trained.dataset.leave_out = ""
    trained.dataset.options.part = "part_b"
    cross_validation._require_unseen(own, folder)
    assert not caplog.text
    # Of a mean, what any of its runs was trained on.
    other = trained.copy_and_resolve_references()
    other.dataset.extra = "shanghaitech-part_a"
    runs = [types.SimpleNamespace(config=one) for one in (other, trained)]
    monkeypatch.setattr(weight_average, "runs", lambda _: runs)
    cross_validation._require_unseen(own, folder)
    assert "7 pictures of UCF_CC_50" in caplog.text


class Trainer:
    """In place of training: leaves a checkpoint and results, and ends early where it is told to."""

    def __init__(self):
        self.folds, self.stop_in, self.wrong_by = [], None, 1.0
        self.together = []

    def __call__(self, jobs) -> int:
        self.together.append([config.dataset.fold for config, _ in jobs])
        return max(self.train(config, workdir) for config, workdir in jobs)

    def train(self, config, workdir) -> int:
        self.folds.append(config.dataset.fold)
        stopped = config.dataset.fold == self.stop_in
        step = 1 if stopped else config.train.steps
        data = data_lib.load(config)
        about = {
            "config": config.to_dict(),
            "data": data.name,
            "train_ids_sha256": run.ids_sha256(data.pictures("train")),
        }
        writer = checkpoints.Checkpoints(workdir)
        writer.save(step, {"x": np.zeros(1)}, {"step": np.int32(step)}, about, 1.0 / step)
        writer.close()
        if stopped:
            return 143
        test = data.pictures("test")
        images = [
            ImageMetrics(e.id, e.count, e.count + self.wrong_by, None, None, (0,) * 4)
            for e in test.index
        ]
        result = write_fold(workdir.parent, config.dataset.fold, images, checkpoint_step=step)
        result["protocol"]["evaluated pictures sha256"] = run.ids_sha256(test)
        write_fold(
            workdir.parent, config.dataset.fold, images,
            checkpoint_step=step, protocol=result["protocol"],
        )  # fmt: skip
        return 0


@pytest.fixture
def trainer(monkeypatch):
    trainer = Trainer()
    monkeypatch.setattr(train, "train_together", trainer)
    return trainer


def test_finished_folds_are_skipped_and_others_gone_on_with(config, trainer, tmp_path):
    trainer.stop_in = 3
    assert cross_validation.train(config, tmp_path) == 143
    assert trainer.folds == [1, 2, 3] and not (tmp_path / "eval").exists()
    trainer.folds, trainer.stop_in = [], None
    assert cross_validation.train(config, tmp_path) == 0
    assert trainer.folds == [3, 4, 5]

    # Every picture once, with its own number of heads, in the fold that was not trained on.
    pooled = rows(tmp_path / SUMMARY / "per_image.csv")
    assert list(pooled[0]) == [*report.CSV_HEADER, "fold"]
    assert [row["id"] for row in pooled] == [str(number) for number in range(1, 51)]
    for row in pooled:
        assert int(row["count_true"]) == int(row["id"]) % 7 + 2
        assert int(row["fold"]) == (int(row["id"]) - 1) // 10 + 1

    # Finished is what has results of the weights wanted.
    trainer.folds = []
    assert cross_validation.train(config, tmp_path) == 0
    assert trainer.folds == []
    (tmp_path / "fold_2/eval/ucf_cc_50-fold_2-test/metrics.json").unlink()
    (tmp_path / "fold_4/eval/ucf_cc_50-fold_4-test/per_image.csv").write_text("")
    path = tmp_path / "fold_5/eval/ucf_cc_50-fold_5-test/metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"checkpoint_step": 1}))
    assert cross_validation.train(config, tmp_path) == 0
    assert trainer.folds == [2, 4, 5]

    # More steps: every fold goes on.
    trainer.folds, config.train.steps = [], 5
    assert cross_validation.train(config, tmp_path) == 0
    assert trainer.folds == [1, 2, 3, 4, 5]
    summary = json.loads((tmp_path / SUMMARY / "metrics.json").read_text())
    assert {fold["checkpoint_step"] for fold in summary["folds"].values()} == {5}


def test_as_many_folds_side_by_side_as_asked_for(config, trainer, tmp_path):
    config.train.folds_at_once = 2
    trainer.stop_in = 2
    assert cross_validation.train(config, tmp_path) == 143
    assert trainer.together == [[1, 2]]
    trainer.together, trainer.stop_in = [], None
    assert cross_validation.train(config, tmp_path) == 0
    assert trainer.together == [[2, 3], [4, 5]]


def test_folds_side_by_side_need_crops_of_one_shape(config):
    config.train.folds_at_once, config.crop.mode = 5, "quarter"
    with pytest.raises(UserError, match="folds_at_once is 5; it must be 1 unless"):
        base_config.validate(config)


def test_other_settings_and_folds_are_not_mixed(config, trainer, tmp_path):
    assert cross_validation.train(config, tmp_path) == 0
    trainer.folds = []
    other = config.copy_and_resolve_references()
    other.seed = 5
    with pytest.raises(UserError, match="fold_1 holds a run with config.seed=0, not 5"):
        cross_validation.train(other, tmp_path)
    other = config.copy_and_resolve_references()
    other.dataset.options.folds = "random_7"
    with pytest.raises(UserError, match="config.dataset.options.folds='sequential', not 'rand"):
        cross_validation.train(other, tmp_path)
    with pytest.raises(UserError, match="have seen pictures that fold 1 of 'random_7' tests"):
        cross_validation.evaluate(other, tmp_path)

    # One run's weights have seen the other folds' pictures; each fold has its own to start from.
    config.init_from = str(tmp_path / "fold_2")
    for command in (cross_validation.evaluate, cross_validation.train):
        with pytest.raises(UserError, match="have seen pictures that fold 1 "):
            command(config, tmp_path / "elsewhere")
    about = {"config": config.to_dict(), "groups": dict.fromkeys(GROUPS, []), "data": ""}
    about["config"]["dataset"]["fold"] = 2
    about["train_ids_sha256"] = ""
    exported = released_files.write(
        tmp_path / "x.h5", released_files.arrays("mcnn"), about=json.dumps(about)
    )
    config.init_from = str(exported)
    with pytest.raises(UserError, match="x.h5 were trained for fold 2 .* pictures that fold 1 "):
        cross_validation.evaluate(config, tmp_path / "elsewhere")
    config.init_from = "no_such_weights"
    with pytest.raises(UserError, match="no weights at no_such_weights: no such work folder"):
        cross_validation.train(config, tmp_path / "elsewhere")
    assert trainer.folds == []
    config.init_from = str(tmp_path)
    for fold in (1, 5):
        own, folder = cross_validation.of_fold(config, tmp_path / "elsewhere", fold)
        assert own.init_from == str(tmp_path / f"fold_{fold}")
        assert (own.dataset.fold, folder.name) == (fold, f"fold_{fold}")
    assert cross_validation.train(config, tmp_path / "elsewhere") == 0
    assert (tmp_path / "elsewhere" / SUMMARY / "metrics.json").exists()


def test_results_of_other_weights_stand_beside_the_own(config, trainer, tmp_path, monkeypatch):
    assert cross_validation.train(config, tmp_path) == 0
    own = (tmp_path / SUMMARY / "metrics.json").read_text()
    arrays = released_files.arrays("mcnn")
    file = str(released_files.write(tmp_path / "weights.h5", arrays))
    for init_from, close, end in ((file, "", "-from-weights.h5"), ("", "sha", "-with-sha")):
        config.init_from, config.eval.close_weights = init_from, close

        def evaluate(config, workdir, end=end):
            folder = workdir / "eval"
            name = f"ucf_cc_50-fold_{config.dataset.fold}-test"
            shutil.copytree(folder / name, folder / f"{name}{end}")

        monkeypatch.setattr(run, "evaluate_checkpoint", evaluate)
        cross_validation.evaluate(config, tmp_path)
        assert (tmp_path / f"{SUMMARY}{end}" / "metrics.json").read_text() == own
        assert (tmp_path / SUMMARY / "metrics.json").read_text() == own


def test_folds_without_weights_are_said_before_anything_is_evaluated(config, tmp_path):
    with pytest.raises(UserError, match="no weights at .*fold_1: no such work folder"):
        cross_validation.evaluate(config, tmp_path)


def test_a_picture_that_is_missing_is_said_before_training(config, tmp_path):
    config.dataset.raw_dir = str(draw(tmp_path / "raw", [n for n in range(1, 51) if n != 13]))
    config.dataset.tfds_dir = str(tmp_path / "tfds")
    with pytest.raises(UserError, match=r"exactly once \(missing: 13\); complete the raw folder"):
        cross_validation.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_of_one_fold_wants_to_know_which(config, tmp_path):
    """What the command takes as all folds is none to code that loads the data itself."""
    with pytest.raises(UserError, match="dataset.fold=0 means all five .* give --config.dataset.f"):
        data_lib.load(config)
    config.dataset.fold = 2
    assert data_lib.load(config).name == "ucf_cc_50-fold_2"
    config.dataset.raw_dir = str(draw(tmp_path / "raw", range(1, 20)))
    config.dataset.tfds_dir = str(tmp_path / "tfds")
    assert len(data_lib.load(config).pictures("test")) == 9
    config.dataset.fold = 3
    with pytest.raises(UserError, match="no pictures of fold_3; there are fold_1, fold_2: comp"):
        data_lib.load(config)


# Results without training.


def image(number: int, error: float) -> ImageMetrics:
    return ImageMetrics(str(number), 100, 100 + error, 1, 1, (abs(error),) * 4)


def write_fold(workdir: pathlib.Path, fold: int, images, **changes) -> dict:
    """The results of a fold, as its run leaves them."""
    total = CountMetrics.empty()
    for one in images:
        total = total.add(one)
    result = total.result() | {
        "best_constant_mae": 10.0 * fold,
        "checkpoint_step": 100 * fold,
        "protocol": {
            "data set": f"ucf_cc_50-fold_{fold}",
            "selection": "best",
            "trained on": f"ucf_cc_50-fold_{fold}, preset paper, model cmtl, seed 3",
            "training pictures sha256": str(fold) * 64,
        },
    }
    folder = workdir / f"fold_{fold}" / "eval" / f"ucf_cc_50-fold_{fold}-test"
    report.write_metrics_json(folder / "metrics.json", result | changes)
    report.write_per_image_csv(folder / "per_image.csv", images)
    return result


def write_folds(workdir: pathlib.Path) -> np.ndarray:
    """Errors [50] of the pictures of all folds; fold k's grow with k."""
    errors = np.random.default_rng(0).normal(0, 50, 50) * np.repeat(np.arange(1, 6), 10)
    for fold in range(1, 6):
        numbers = range(10 * fold - 9, 10 * fold + 1)
        write_fold(workdir, fold, [image(n, errors[n - 1]) for n in numbers])
    return errors


def test_figures_are_pooled_and_means_of_folds_by_name(config, tmp_path, caplog):
    errors = write_folds(tmp_path)
    with caplog.at_level(logging.INFO):
        result = cross_validation.summarise(config, tmp_path)
    root_mean_square = [np.sqrt((part**2).mean()) for part in errors.reshape(5, 10)]
    np.testing.assert_allclose(result["mae"], np.abs(errors).mean())
    np.testing.assert_allclose(result["rmse"], np.sqrt((errors**2).mean()))
    np.testing.assert_allclose(result["rmse_mean_of_folds"], np.mean(root_mean_square))
    np.testing.assert_allclose(result["mae_mean_of_folds"], result["mae"])
    assert result["rmse"] > 1.05 * result["rmse_mean_of_folds"]  # they are not to be mixed up
    for fold in range(1, 6):
        one = result["folds"][f"fold_{fold}"]
        np.testing.assert_allclose(one["rmse"], root_mean_square[fold - 1])
        assert one["checkpoint_step"] == 100 * fold
    np.testing.assert_allclose(result["game_3"], np.abs(errors).mean())
    assert result["best_constant_mae"] == 30.0
    assert result["protocol"]["selection"] == "best"
    assert result["protocol"]["trained on"].endswith("folds), preset paper, model cmtl, seed 3")
    assert "fold_2 " + "2" * 64 in result["protocol"]["training pictures sha256"]
    assert f"{result['rmse_mean_of_folds']:.2f}" in caplog.text
    assert "1-10" not in json.dumps(result["folds"])
    page = (tmp_path / SUMMARY / "report.html").read_text()
    assert f"MAE {result['folds']['fold_4']['mae']:.1f}" in page


def test_each_picture_exactly_once(config, tmp_path):
    write_folds(tmp_path)
    numbers = [1, 1, *range(3, 10), 60]
    write_fold(tmp_path, 1, [image(n, 1.0) for n in numbers])
    with pytest.raises(UserError) as error:
        cross_validation.summarise(config, tmp_path)
    assert "missing: 2, 10; more than once: 1; not of UCF_CC_50: 60" in str(error.value)
    assert not (tmp_path / SUMMARY).exists()


def test_results_that_are_missing_or_damaged(config, tmp_path):
    write_folds(tmp_path)
    folder = tmp_path / "fold_4" / "eval" / "ucf_cc_50-fold_4-test"
    with (folder / "per_image.csv").open("a") as file:
        file.write("51,3,4.0,1.0,,\n")
    with pytest.raises(UserError, match="fold_4-test are missing or damaged .*11 of 10 pictures"):
        cross_validation.summarise(config, tmp_path)
    (folder / "metrics.json").write_text("{")
    with pytest.raises(UserError, match="write them again with --mode=eval"):
        cross_validation.summarise(config, tmp_path)


# The command.


@pytest.mark.parametrize(
    "flags, called",
    [
        ((), "all, train"),
        (("--mode=eval",), "all, eval"),
        (("--config.dataset.fold=3",), "3, train"),
        (("--config.dataset.fold=3", "--mode=eval"), "3, eval"),
    ],
)
def test_the_command_runs_all_folds_or_one(monkeypatch, capfd, flags, called):
    calls = []

    def note(what):
        return lambda config, workdir: calls.append((what, config.dataset.fold, workdir)) or 0

    monkeypatch.setattr(cross_validation, "train", note("all, train"))
    monkeypatch.setattr(cross_validation, "evaluate", note("all, eval"))
    monkeypatch.setattr(train, "train", note("3, train"))
    monkeypatch.setattr(run, "evaluate_checkpoint", note("3, eval"))
    command = CommandLine(monkeypatch, capfd)
    assert command(f"--config={ROOT}/configs/ucf_cc_50.py", *flags)[0] == 0
    fold = 3 if called[0] == "3" else 0
    suffix = "-fold_3" if fold else ""
    assert calls == [(called, fold, pathlib.Path(f"runs/ucf_cc_50-recommended{suffix}"))]


def test_all_folds_are_tested_on_their_own_pictures(monkeypatch, capfd):
    command = CommandLine(monkeypatch, capfd)
    config = f"--config={ROOT}/configs/ucf_cc_50.py"
    status, _, err = command(config, "--config.eval.split=val", parse_only=True)
    assert status == 1 and "config.eval.split is 'val'" in only_error(err)
    one = (config, "--config.eval.split=val", "--config.dataset.fold=2")
    assert command(*one, parse_only=True)[0] == 0
