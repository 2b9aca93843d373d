"""Work folders without training, and the command line without a process, for tests."""

import contextlib
import logging
import pathlib
import sys

import jax
import numpy as np
from absl import flags

from cmtl_jax import checkpoints, trained_model
from cmtl_jax import config as base_config

STEP = 3


def random_params(model, channels: int = 1):
    """Random weights whose density is alive, without compiling the model's own initialisation."""
    shapes = jax.eval_shape(lambda: trained_model.init_params(model, 0, channels))
    rng = np.random.default_rng(1)

    def draw(path, x):
        names = [key.key for key in path]
        if names[-1] != "kernel":
            return np.full(x.shape, 0.25 if names[-1] == "slope" else 0.01, np.float32)
        values = rng.normal(0, np.sqrt(2 / np.prod(x.shape[:-1])), x.shape).astype(np.float32)
        return np.abs(values) if "output" in names else values

    return jax.tree_util.tree_map_with_path(draw, shapes)


@contextlib.contextmanager
def kept_logging():
    """Puts the log handlers back that a command replaces: theirs write to a stream soon closed."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.handlers[:], root.level = before


def untrained(
    workdir: pathlib.Path, *, seen: dict | None = None, dataset: dict | None = None,
    steps: tuple[int, ...] = (STEP,), **model
) -> pathlib.Path:  # fmt: skip
    """A work folder whose checkpoints hold random weights; the first of `steps` is the best.

    `seen` sets keys of config.input, `dataset` of config.dataset, `model` of config.model.
    """
    config = base_config.base()
    config.input.update(seen or {})
    config.name = config.dataset.name = "synthetic"
    config.dataset.update(dataset or {})
    config.model.update(model)
    params = random_params(trained_model.build_model(config), config.input.channels)
    groups = {"edges": [0.5 + i for i in range(9)], "class_weights": [1.0] * 10}
    about = {
        "config": config.to_dict(),
        "groups": groups | {"histogram": [1] * 10},
        "data": "synthetic",
        "train_ids_sha256": "",
    }
    writer = checkpoints.Checkpoints(workdir)
    for mae, step in enumerate(steps, 1):
        writer.save(step, params, {"step": np.int32(step)}, about, float(mae))
    writer.wait()
    writer.close()
    return workdir


class CommandLine:
    """Calls cmtl_jax.main in this process and forgets its flags afterwards."""

    def __init__(self, monkeypatch, capfd):
        self._monkeypatch, self._capfd = monkeypatch, capfd

    def __call__(self, *arguments: str, parse_only: bool = False) -> tuple[object, str, str]:
        """Exit status, standard output and standard error, as the shell sees them."""
        from cmtl_jax import main

        argv = ["main.py", *map(str, arguments)]
        self._monkeypatch.setattr(sys, "argv", argv)  # ml_collections reads it
        self._capfd.readouterr()
        flags.FLAGS.unparse_flags()
        status: object = 0
        try:
            with kept_logging():
                main.parse(argv)
                if not parse_only:
                    main.main([])
        except SystemExit as end:
            status = end.code or 0
            if isinstance(status, str):  # what the interpreter does at the end
                print(status, file=sys.stderr)
                status = 1
        finally:
            for name in list(flags.FLAGS):
                if name.startswith("config."):
                    delattr(flags.FLAGS, name)
            flags.FLAGS.unparse_flags()
            for name in ("config", "workdir", "mode"):
                flags.FLAGS[name].unparse()
            flags.FLAGS.mark_as_parsed()
            sys.modules.pop("config_config", None)  # the config file, which is loaded into it
        out, err = self._capfd.readouterr()
        return status, out, err


def only_error(err: str) -> str:
    """The line of the error; asserts that there is exactly one and no traceback."""
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err, err
    return lines[0]
