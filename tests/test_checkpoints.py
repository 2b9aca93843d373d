"""Checkpoints survive crashes, full disks and wrong models."""

import logging
import os
import pathlib
import shutil
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cmtl_jax.checkpoints import FOLDER, Checkpoints
from cmtl_jax.errors import UserError
from cmtl_jax.parallel import Parallel

ROOT = pathlib.Path(__file__).resolve().parent.parent


def trees(step: int, size: int = 1000):
    params = {"layer": {"kernel": jnp.full((size,), step, jnp.float32)}}
    train = {"step": jnp.int32(step), "opt_state": {"mu": jnp.full((size,), -step, jnp.float32)}}
    return params, train


def expected(size: int = 1000, devices: int = 1):
    sharding = Parallel(devices=jax.devices()[:devices]).replicated
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), trees(0, size)
    )


def save(workdir, maes: dict[int, float | None], size: int = 1000, keep_latest: int = 2):
    checkpoints = Checkpoints(workdir, keep_latest=keep_latest)
    for step, mae in maes.items():
        checkpoints.save(step, *trees(step, size), {"note": step}, mae)
    checkpoints.wait()
    steps, best = checkpoints.steps(), checkpoints.best()
    checkpoints.close()
    return steps, best


def test_keeps_the_latest_and_the_best(tmp_path):
    steps, best = save(tmp_path, {1: 9.0, 2: 5.0, 3: 7.0, 4: None, 5: 8.0, 6: 6.0, 7: None})
    assert steps == [2, 6, 7]
    assert best == (2, 5.0)
    reader = Checkpoints(tmp_path, read_only=True)
    assert [reader.find(which) for which in ("best", "latest", 6, "6")] == [2, 7, 6, 6]
    with pytest.raises(UserError, match="no checkpoint 3 .*best, latest, 2, 6, 7"):
        reader.find(3)
    reader.close()


def test_without_validation_the_best_is_the_latest(tmp_path):
    assert save(tmp_path, {1: None, 2: None}) == ([1, 2], None)
    reader = Checkpoints(tmp_path, read_only=True)
    assert reader.find("best") == 2
    reader.close()


@pytest.mark.parametrize("devices", [1, 4])
def test_restores_what_was_saved_on_any_number_of_devices(tmp_path, devices):
    save(tmp_path, {3: 1.0})
    reader = Checkpoints(tmp_path, read_only=True)
    params, train = expected(devices=devices)
    restored = reader.restore(3, params, train)
    jax.tree.map(np.testing.assert_array_equal, (restored.params, restored.train), trees(3))
    assert len(restored.params["layer"]["kernel"].devices()) == devices
    assert restored.about == {"note": 3} and restored.step == 3
    weights = reader.restore(3, params)
    assert weights.train is None
    np.testing.assert_array_equal(weights.params["layer"]["kernel"], 3)
    reader.close()


def test_a_saved_step_is_left_as_it_is(tmp_path):
    save(tmp_path, {1: 4.0})
    assert save(tmp_path, {1: None}) == ([1], (1, 4.0))


def test_a_state_that_is_consumed_at_once_is_saved_as_it_was(tmp_path):
    """The next step reuses the buffers while the checkpoint is still being written."""
    parallel = Parallel()
    step = parallel.train_step(lambda state, batch: (jax.tree.map(lambda x: x + 1, state), {}))
    state = parallel.replicate(trees(0, 200_000))
    checkpoints = Checkpoints(tmp_path, keep_latest=9)
    for number in range(4):
        checkpoints.save(number, *parallel.replicate(state), {}, None)
        state, _ = step(state, np.zeros((4, 1)))
    checkpoints.wait()
    for number in range(4):
        restored = checkpoints.restore(number, *expected(200_000))
        np.testing.assert_array_equal(restored.params["layer"]["kernel"], number)
        np.testing.assert_array_equal(restored.train["opt_state"]["mu"], number)
    checkpoints.close()


def _truncate(folder: pathlib.Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(folder: pathlib.Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and path.parent.name == "d":
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 0xFF
            path.write_bytes(bytes(data))


def _empty(folder: pathlib.Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGE = {
    "truncated": _truncate,
    "one bit wrong": _flip,
    "empty": _empty,
    "without train": lambda folder: shutil.rmtree(folder / "train"),
    "without params": lambda folder: shutil.rmtree(folder / "params"),
    "without about": lambda folder: shutil.rmtree(folder / "about"),
    "no metadata": lambda folder: (folder / "params" / "_METADATA").write_bytes(b"{"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_passed_over_and_can_be_saved_again(tmp_path, caplog, damage):
    save(tmp_path, {2: 4.0, 4: 3.0})
    DAMAGE[damage](tmp_path / FOLDER / "4")
    checkpoints = Checkpoints(tmp_path)
    with caplog.at_level(logging.WARNING):
        restored = checkpoints.restore_latest(*expected())
    assert restored.step == 2
    np.testing.assert_array_equal(restored.params["layer"]["kernel"], 2)
    assert "checkpoint 4" in caplog.text and "going on from step 2" in caplog.text
    for step in (3, 4):
        checkpoints.save(step, *trees(step), {}, 1.0)
    checkpoints.wait()
    assert checkpoints.steps() == [3, 4]
    np.testing.assert_array_equal(
        checkpoints.restore(4, *expected()).params["layer"]["kernel"], 4
    )
    checkpoints.close()


def test_a_damaged_validation_is_forgotten(tmp_path, caplog):
    save(tmp_path, {2: 4.0, 4: 3.0})
    (tmp_path / FOLDER / "4" / "metrics" / "metrics").write_text('{"ma')
    with pytest.raises(UserError, match="checkpoint 4 .* damaged"):
        Checkpoints(tmp_path, read_only=True)
    checkpoints = Checkpoints(tmp_path)
    assert "checkpoint 4 lost its validation" in caplog.text
    assert checkpoints.best() == (2, 4.0)
    assert checkpoints.restore_latest(*expected()).step == 4
    checkpoints.close()


def test_nothing_is_removed_where_all_are_damaged(tmp_path):
    save(tmp_path, {2: 4.0, 4: 3.0})
    for step in ("2", "4"):
        _truncate(tmp_path / FOLDER / step)
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(UserError, match="checkpoint 4 .* damaged"):
        checkpoints.restore_latest(*expected())
    checkpoints.close()
    assert {"2", "4"} <= {path.name for path in (tmp_path / FOLDER).iterdir()}


def test_a_reader_says_that_a_checkpoint_is_damaged_and_changes_nothing(tmp_path):
    save(tmp_path, {2: 4.0})
    shutil.rmtree(tmp_path / FOLDER / "2" / "about")
    half = tmp_path / FOLDER / "4.orbax-checkpoint-tmp"
    half.mkdir()
    reader = Checkpoints(tmp_path, read_only=True)
    with pytest.raises(UserError, match="checkpoint 2 .* damaged"):
        reader.about(reader.find("best"))
    reader.close()
    assert half.is_dir()


def test_a_new_folder_has_nothing_to_restore(tmp_path):
    checkpoints = Checkpoints(tmp_path / "new")
    assert checkpoints.restore_latest(*expected()) is None
    with pytest.raises(UserError, match="no checkpoint in"):
        checkpoints.find("best")
    checkpoints.close()
    with pytest.raises(UserError, match="no checkpoints in"):
        Checkpoints(tmp_path / "other", read_only=True)


def test_another_model_is_said_and_kept(tmp_path):
    save(tmp_path, {2: 4.0, 4: 3.0})
    checkpoints = Checkpoints(tmp_path)
    params, train = expected(999)
    with pytest.raises(UserError, match=r"another model: 1 .*layer/kernel \(there \(1000,\)"):
        checkpoints.restore_latest(params, expected()[1])
    with pytest.raises(UserError, match="another optimizer.*opt_state/mu"):
        checkpoints.restore_latest(expected()[0], train)
    assert checkpoints.steps() == [2, 4]
    checkpoints.close()


def test_a_file_in_the_way_is_one_clear_line(tmp_path):
    (tmp_path / FOLDER).write_text("")
    with pytest.raises(UserError, match="cannot write checkpoints in"):
        Checkpoints(tmp_path)


_FILL_THE_DISK = """
import resource, signal, sys
sys.path.insert(0, "tests")
import test_checkpoints as t
checkpoints = t.Checkpoints(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
random = t.np.random.default_rng(0).random(t.FULL, t.np.float32)  # incompressible
try:
    checkpoints.save(2, {"layer": {"kernel": t.jnp.asarray(random)}}, t.trees(2)[1], {}, 1.0)
    checkpoints.wait()
except t.UserError as error:
    print(error)
    sys.exit(1)
"""

FULL = 400_000


def test_a_full_disk_is_one_clear_line_and_leaves_earlier_checkpoints(tmp_path):
    """A limit on the size of files stands for the full disk: writing fails in the same place."""
    save(tmp_path, {1: 5.0}, FULL)
    done = subprocess.run(
        [sys.executable, "-c", _FILL_THE_DISK, str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stdout.splitlines()
    assert line.startswith("a checkpoint could not be written in") and "make room" in line
    checkpoints = Checkpoints(tmp_path)
    restored = checkpoints.restore_latest(*expected(FULL))
    assert restored.step == 1
    np.testing.assert_array_equal(restored.params["layer"]["kernel"], 1)
    checkpoints.save(2, *trees(2, FULL), {}, 4.0)
    checkpoints.wait()
    assert checkpoints.find("best") == 2
    checkpoints.close()


_SAVE_FOR_EVER = """
import sys
sys.path.insert(0, "tests")
import test_checkpoints as t
checkpoints = t.Checkpoints(sys.argv[1])
for step in range(1, 10_000):
    checkpoints.save(step, *t.trees(step, 2_000_000), {"note": step}, None)
    print(step, flush=True)
"""


@pytest.mark.parametrize(
    "delay", [0.02, *(pytest.param(d / 100, marks=pytest.mark.slow) for d in (0, 5, 11, 23, 40))]
)
def test_a_run_killed_while_it_saves_goes_on_from_a_whole_checkpoint(tmp_path, delay):
    process = subprocess.Popen(
        [sys.executable, "-c", _SAVE_FOR_EVER, str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        for line in process.stdout:
            if int(line) == 3:  # the second one is written, this one is about to be
                break
        time.sleep(delay)
    finally:
        process.kill()
        process.communicate()
    checkpoints = Checkpoints(tmp_path)
    restored = checkpoints.restore_latest(*expected(2_000_000))
    assert restored.step >= 2
    assert restored.about == {"note": restored.step}
    np.testing.assert_array_equal(restored.params["layer"]["kernel"], restored.step)
    np.testing.assert_array_equal(restored.train["opt_state"]["mu"], -restored.step)
    checkpoints.save(restored.step + 1, *trees(restored.step + 1, 2_000_000), {}, None)
    checkpoints.wait()
    assert checkpoints.find("latest") == restored.step + 1
    checkpoints.close()
    assert not list((tmp_path / FOLDER).glob("*tmp*"))
