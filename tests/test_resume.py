"""A run that was stopped, killed or damaged ends exactly where an uninterrupted one does."""

import logging
import os
import shutil
import signal
import time

import jax
import numpy as np
import pytest
import small_run

from cmtl_jax import checkpoints
from cmtl_jax.errors import UserError
from cmtl_jax.evaluation import run as evaluation
from cmtl_jax.input_pipeline import data as data_lib
from cmtl_jax.parallel import Parallel
from cmtl_jax.training import train


@pytest.fixture(autouse=True)
def folder(tmp_path_factory):
    folder = small_run.common(tmp_path_factory)
    small_run.compile_once(folder)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Work folder of a whole run, on 4 devices by pmap."""
    folder = small_run.common(tmp_path_factory)
    small_run.compile_once(folder)
    workdir = tmp_path_factory.mktemp("uninterrupted")
    assert train.train(small_run.config(folder, parallel="pmap"), workdir) == 0
    return workdir


def stop_at(monkeypatch, step: int, number: int) -> None:
    """Sends the signal while the batch of that step is being trained on."""
    asked = train._Run.stop_requested

    def stop_requested(self, at):
        stop = asked(self, at)
        if at == step:
            os.kill(os.getpid(), number)
        return stop

    monkeypatch.setattr(train._Run, "stop_requested", stop_requested)


def same(workdir, uninterrupted) -> None:
    steps = sorted(int(path.name) for path in (uninterrupted / "checkpoints").iterdir())
    assert steps[-1] == small_run.STEPS
    expected = small_run.arrays(uninterrupted, steps[-1])
    found = small_run.arrays(workdir, steps[-1])
    assert expected.keys() == found.keys()
    assert any("mu" in name for name in expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert small_run.lines(workdir) == small_run.lines(uninterrupted)
    assert small_run.metrics(workdir) == small_run.metrics(uninterrupted)


def test_evaluation_by_jit_on_one_device_gives_what_the_run_says(folder, uninterrupted, tmp_path):
    own = small_run.metrics(uninterrupted)
    config = small_run.config(folder)
    workdir = small_run.copy(uninterrupted, tmp_path / "run")  # one CPU rounds in another way
    result = evaluation.evaluate_checkpoint(
        config, workdir, parallel=Parallel("jit", jax.devices()[:1])
    )
    for name in ("mae", "rmse", "nae", "game_1", "num_images", "checkpoint_step"):
        np.testing.assert_allclose(result[name], own[name], rtol=1e-5)


def test_each_step_is_logged_once(uninterrupted):
    kinds = [(line["step"], "val/mae" in line) for line in small_run.lines(uninterrupted)]
    assert kinds == [(3, False), (4, False), (4, True), (6, False), (8, False), (8, True)]


@pytest.mark.parametrize("number, step", [(signal.SIGTERM, 5), (signal.SIGINT, 2)])
def test_a_stopped_run_goes_on(folder, uninterrupted, tmp_path, monkeypatch, number, step):
    config = small_run.config(folder, parallel="pmap")
    stop_at(monkeypatch, step, number)
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    assert train.train(config, tmp_path) == 128 + number
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers
    reader = checkpoints.Checkpoints(tmp_path, read_only=True)
    assert reader.find("latest") == step + 1  # the step in flight is kept
    reader.close()
    assert not (tmp_path / "eval").exists()
    monkeypatch.undo()
    assert train.train(config, tmp_path) == 0
    same(tmp_path, uninterrupted)


def test_a_damaged_newest_checkpoint_is_passed_over(folder, uninterrupted, tmp_path, caplog):
    workdir = small_run.copy(uninterrupted, tmp_path / "run")
    shutil.rmtree(workdir / "eval")
    newest = workdir / "checkpoints" / str(small_run.STEPS)
    for path in newest.rglob("d/*"):
        path.write_bytes(path.read_bytes()[:100])
    half = workdir / "checkpoints" / "9.orbax-checkpoint-tmp"
    half.mkdir()
    with caplog.at_level(logging.WARNING):
        assert train.train(small_run.config(folder, parallel="pmap"), workdir) == 0
    assert "checkpoint 8" in caplog.text and "going on from step 4" in caplog.text
    same(workdir, uninterrupted)
    assert not half.exists()


def test_a_finished_run_is_only_evaluated(folder, uninterrupted, tmp_path):
    workdir = small_run.copy(uninterrupted, tmp_path / "run")
    (workdir / "eval" / "synthetic-test" / "metrics.json").unlink()
    assert train.train(small_run.config(folder, parallel="pmap"), workdir) == 0
    same(workdir, uninterrupted)


def test_another_model_is_said(folder, uninterrupted, tmp_path):
    workdir = small_run.copy(uninterrupted, tmp_path / "run")
    with pytest.raises(UserError, match="checkpoint 8 .* is of another model"):
        train.train(small_run.config(folder, model__up_maps=(16, 18)), workdir)
    with pytest.raises(UserError, match="checkpoint 8 .* of another optimizer"):
        train.train(small_run.config(folder, optimizer__ema=0.0), workdir)
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == {"4", "8"}


def test_weights_are_evaluated_on_pictures_as_they_want_them(folder, uninterrupted, tmp_path):
    """Whatever the config, and what was loaded for it, has for its own training."""
    config = small_run.config(folder, init_from=str(uninterrupted), input__scale=0.5)
    parallel = Parallel("pmap")
    found = evaluation.evaluate_checkpoint(
        config, tmp_path, parallel=parallel, data=data_lib.load(config)
    )
    for name in ("mae", "rmse", "nae"):
        assert found[name] == pytest.approx(small_run.metrics(uninterrupted)[name], rel=1e-6)


def test_initial_weights_of_another_run(folder, uninterrupted, tmp_path):
    """Evaluated in the end are the weights trained, beside the errors of those started from."""
    config = small_run.config(
        folder, parallel="pmap", init_from=str(uninterrupted), train__steps=1, seed=5,
        train__keep_best=False,  # the best may be the start, which is kept as step 0
    )  # fmt: skip
    assert train.train(config, tmp_path) == 0
    before, after = small_run.arrays(uninterrupted, 8), small_run.arrays(tmp_path, 1)
    for name in before:
        if name.startswith("params"):
            # A first step with Nesterov momentum moves none by twice the rate, 1e-3.
            np.testing.assert_allclose(before[name], after[name], atol=2e-3)
    result, start = small_run.metrics(tmp_path), small_run.metrics(uninterrupted)
    assert result["checkpoint_step"] == 1
    for name in ("mae", "rmse", "nae"):
        assert result[f"{name}_before"] == pytest.approx(start[name], rel=1e-6)
    assert result["mae"] != result["mae_before"]
    assert "val/mae" in small_run.lines(tmp_path)[0] and small_run.lines(tmp_path)[0]["step"] == 0
    # A run that goes on does not evaluate its start once more.
    (tmp_path / "before.json").write_text('{"mae": 1.5, "rmse": 2.5, "nae": 3.5}')
    assert train.train(config, tmp_path) == 0
    assert small_run.metrics(tmp_path)["mae_before"] == 1.5
    with pytest.raises(UserError, match="of another model"):
        other = small_run.config(folder, init_from=str(uninterrupted), model__up_maps=(16, 18))
        train.train(other, tmp_path / "other")


def test_a_work_folder_that_cannot_be_written(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write in the work folder .*choose another"):
        train.train(small_run.config(folder), tmp_path / "file")


def test_the_command_is_stopped_and_goes_on(folder, uninterrupted, tmp_path):
    """SIGTERM from outside, then the same command again, then evaluation on one device."""
    # The cascade is stopped by the tests above; this network compiles faster in each process.
    model = "--config.model.name=single_stage"
    flags = [model, "--config.parallel=pmap", "--config.train.log_every=1"]
    process = small_run.start(folder, tmp_path, *flags, "--config.train.steps=100000", devices=4)
    log = tmp_path / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (log.exists() and len(log.read_text().splitlines()) >= 3):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    status, output = small_run.finish(process)
    assert status == 143, output
    assert "Traceback" not in output
    reader = checkpoints.Checkpoints(tmp_path, read_only=True)
    step = reader.find("latest")
    reader.close()
    assert step >= small_run.lines(tmp_path)[-1]["step"]
    more = f"--config.train.steps={step + 2}"
    status, output = small_run.finish(
        small_run.start(folder, tmp_path, *flags, more, devices=4)
    )
    assert status == 0, output
    assert f"going on from step {step} " in output
    steps = [line["step"] for line in small_run.lines(tmp_path) if "train/loss" in line]
    assert steps == list(range(1, step + 3))
    own = small_run.metrics(tmp_path)
    status, output = small_run.finish(small_run.start(folder, tmp_path, model, "--mode=eval"))
    assert status == 0, output
    np.testing.assert_allclose(small_run.metrics(tmp_path)["mae"], own["mae"], rtol=1e-5)
