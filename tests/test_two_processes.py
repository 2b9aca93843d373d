"""Two real processes train, stop and evaluate as one does."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import small_run

from cmtl_jax import checkpoints
from cmtl_jax.evaluation import run as evaluation
from cmtl_jax.parallel import Parallel

# Half the time to compile; the steps are few.
XLA_FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
FLAGS = ("--config.model.name=single_stage", "--config.train.log_every=1")


def start_two(folder, workdir, *flags) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        small_run.start(
            folder, workdir, *FLAGS, *flags, XLA_FLAGS=XLA_FLAGS,
            CMTL_COORDINATOR=f"127.0.0.1:{port}", CMTL_NUM_PROCESSES=2, CMTL_PROCESS_ID=index,
        )
        for index in range(2)
    ]  # fmt: skip


def finish_two(processes) -> tuple[list[int], str]:
    try:
        ends = [small_run.finish(process) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [status for status, _ in ends], "\n----\n".join(output for _, output in ends)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    """The same run by one process with one device."""
    folder = small_run.common(tmp_path_factory)
    workdir = tmp_path_factory.mktemp("one")
    status, output = small_run.finish(
        small_run.start(folder, workdir, *FLAGS, XLA_FLAGS=XLA_FLAGS)
    )
    assert status == 0, output
    return folder, workdir


def alike(workdir: pathlib.Path, expected: pathlib.Path) -> None:
    ours, theirs = small_run.lines(workdir), small_run.lines(expected)
    assert [(a["step"], a.keys()) for a in ours] == [(b["step"], b.keys()) for b in theirs]
    for a, b in zip(ours, theirs, strict=True):
        if "train/loss" in a:
            # Sums of another order differ in the last bit, and each step on eight crops makes that
            # grow, Muon's (which lifts the smallest directions) more than Adam's; other data or
            # another gradient would differ at once, and by far.
            tolerance = 1e-5 if a["step"] <= 2 else 5e-3
            np.testing.assert_allclose(a["train/loss"], b["train/loss"], rtol=tolerance)
        else:
            np.testing.assert_allclose(a["val/mae"], b["val/mae"], rtol=1e-3)
    names = [sorted(p.name for p in (w / "checkpoints").iterdir()) for w in (workdir, expected)]
    assert names[0] == names[1]
    assert len(list((workdir / "events").iterdir())) >= 1


def evaluated_by_one(folder, workdir: pathlib.Path) -> None:
    """One process, whatever its devices, evaluates the checkpoint to the same numbers."""
    own = small_run.metrics(workdir)
    table = (workdir / "eval" / "synthetic-test" / "per_image.csv").read_text()
    result = evaluation.evaluate_checkpoint(
        small_run.config(folder, model__name="single_stage"), workdir,
        parallel=Parallel("jit", jax.devices()[:1]),
    )  # fmt: skip
    for name in ("mae", "rmse", "game_3", "num_images"):
        np.testing.assert_allclose(result[name], own[name], rtol=1e-6)
    again = (workdir / "eval" / "synthetic-test" / "per_image.csv").read_text()
    for line, other in zip(table.splitlines()[1:], again.splitlines()[1:], strict=True):
        (a, *left), (b, *right) = line.split(","), other.split(",")
        assert a == b
        np.testing.assert_allclose(float(left[1]), float(right[1]), rtol=1e-5)


def test_two_processes_give_what_one_gives(one_process, tmp_path):
    folder, expected = one_process
    statuses, output = finish_two(start_two(folder, tmp_path))
    assert statuses == [0, 0], output
    alike(tmp_path, expected)
    evaluated_by_one(folder, tmp_path)


def test_both_stop_at_the_same_step_and_go_on_by_pmap(one_process, tmp_path):
    """SIGTERM reaches one of them alone; pmap then ends what jit began."""
    folder, _ = one_process
    processes = start_two(folder, tmp_path, "--config.train.steps=100000")
    log = tmp_path / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (log.exists() and len(log.read_text().splitlines()) >= 2):
        assert all(p.poll() is None for p in processes) and time.monotonic() < deadline
        time.sleep(0.02)
    processes[1].send_signal(signal.SIGTERM)
    statuses, output = finish_two(processes)
    assert statuses == [143, 143], output
    assert "Traceback" not in output
    reader = checkpoints.Checkpoints(tmp_path, read_only=True)
    step = reader.find("latest")
    reader.close()
    assert step >= small_run.lines(tmp_path)[-1]["step"]
    statuses, output = finish_two(
        start_two(folder, tmp_path, "--config.parallel=pmap", f"--config.train.steps={step + 2}")
    )
    assert statuses == [0, 0], output
    assert f"going on from step {step} " in output
    steps = [line["step"] for line in small_run.lines(tmp_path) if "train/loss" in line]
    assert steps == list(range(1, step + 3))
    evaluated_by_one(folder, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["jit", "pmap"])
def test_the_launch_script_runs_both(one_process, tmp_path, kind):
    folder, expected = one_process
    process = small_run.start(folder, tmp_path, *FLAGS, f"--config.parallel={kind}")
    arguments = process.args[3:]
    process.kill()
    process.communicate()
    done = subprocess.run(
        ["bash", str(small_run.ROOT / "launch" / "processes.sh"), "2", *arguments],
        env=os.environ | {"CMTL_VENV": sys.prefix, "CMTL_PLATFORM": "cpu", "JAX_PLATFORMS": "cpu",
                          "XLA_FLAGS": XLA_FLAGS},
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    alike(tmp_path, expected)
