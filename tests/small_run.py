"""A training run small enough for tests: in this process, or as a command of its own."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np

from cmtl_jax import config as base_config

ROOT = pathlib.Path(__file__).resolve().parent.parent

STEPS = 8

SMALL = {
    "dataset.tfds_dir": "",
    "dataset.val_fraction": 0.4,
    "crop.height": 32,
    "crop.width": 32,
    "groups.number": 3,
    "groups.samples": 4,
    "optimizer.schedule": "constant",  # the same program for any number of steps
    "optimizer.warmup_steps": 2,
    "train.batch_size": 4,
    "train.steps": STEPS,
    "train.eval_every": 4,
    "train.log_every": 3,
    "eval.max_buckets": 1,
    "eval.triptychs": 0,
}

OPTIONS = {"num_train": 8, "num_test": 3, "height": (48, 64), "width": (48, 64), "seed": 0}


def common(tmp_path_factory) -> pathlib.Path:
    """A folder that all test processes of this session share."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder = base / "small_run"
    folder.mkdir(exist_ok=True)
    return folder


def config(folder: pathlib.Path, **changes):
    """The configuration of a small run; a change `train__steps=3` is of config.train.steps."""
    c = base_config.base()
    c.name = "synthetic"
    c.dataset.name = "synthetic"
    c.dataset.options.update(OPTIONS)
    c.update_from_flattened_dict(SMALL | {k.replace("__", "."): v for k, v in changes.items()})
    c.dataset.tfds_dir = str(folder / "tfds")
    base_config.validate(c)
    return c


def compile_once(folder: pathlib.Path) -> None:
    """Keeps compiled programs between the runs of a test session."""
    for name, value in _cache(folder).items():
        jax.config.update(name.lower(), value)


def _cache(folder: pathlib.Path) -> dict:
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": 0.3,
    }


def start(
    folder: pathlib.Path, workdir: pathlib.Path, *flags: str, devices: int = 1, **environment
) -> subprocess.Popen:
    """Starts the command in a process of its own; flags come after those of the small run."""
    values = SMALL | {f"dataset.options.{k}": v for k, v in OPTIONS.items()}
    values["dataset.tfds_dir"] = folder / "tfds"
    arguments = [f"--config.{k}={str(v).replace(' ', '')}" for k, v in values.items()]
    return subprocess.Popen(
        [
            sys.executable, "-m", "cmtl_jax.main", f"--config={ROOT / 'configs' / 'synthetic.py'}",
            f"--workdir={workdir}", *arguments, *flags,
        ],
        cwd=ROOT,
        env=os.environ
        | {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        }
        | {name: str(value) for name, value in (_cache(folder) | environment).items()},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen, seconds: float = 400) -> tuple[int, str]:
    """Exit status and what the command printed."""
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, out + err


def lines(workdir: pathlib.Path) -> list[dict]:
    """metrics.jsonl without what a clock says."""
    text = (workdir / "metrics.jsonl").read_text().splitlines()
    clock = {"time", "train/steps_per_second"}
    return [{k: v for k, v in json.loads(line).items() if k not in clock} for line in text]


def metrics(workdir: pathlib.Path) -> dict:
    """The numbers of metrics.json."""
    result = json.loads((workdir / "eval" / "synthetic-test" / "metrics.json").read_text())
    return {k: v for k, v in result.items() if k not in ("seconds", "protocol")}


def arrays(workdir: pathlib.Path, step: int) -> dict[str, np.ndarray]:
    """All arrays of a checkpoint by name, read by Orbax alone."""
    import orbax.checkpoint as ocp

    found = {}
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one)
    for item in ("params", "train"):
        with ocp.StandardCheckpointer() as reader:
            folder = workdir / "checkpoints" / str(step) / item
            metadata = reader.metadata(folder)
            tree = getattr(getattr(metadata, "item_metadata", metadata), "tree", metadata)
            tree = reader.restore(folder, jax.tree.map(abstract, tree))
        for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]:
            found[item + jax.tree_util.keystr(path)] = np.asarray(x)
    return found


def copy(source: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    """A copy of a work folder."""
    shutil.copytree(source, target)
    return target
