"""The command line: python -m cmtl_jax.main --config=configs/sha.py [--workdir=W] [--mode=eval]."""

import os
import pathlib
import re
import sys

import jax
from absl import app, flags
from ml_collections import config_flags

from cmtl_jax import compilation_cache, console, huge_pages
from cmtl_jax import config as base_config
from cmtl_jax.errors import UserError

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, with :PRESET if wanted.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Work folder; default runs/<config>-<preset>.")
_MODE = flags.DEFINE_enum(
    "mode", "train", ["train", "eval", "export", "pack"],
    "Train and evaluate, evaluate, write the weights for other code, or put the raw data into one "
    "small file.",
)  # fmt: skip


def parse(argv: list[str]) -> list[str]:
    """Parses and checks flags and config; bad ones end the program with one line and status 1."""
    argv = base_config.with_packaged(argv)
    try:
        base_config.check_arguments(argv)
        rest = flags.FLAGS(argv)
        if not _CONFIG.present:
            raise UserError("--config is missing; try --config=configs/synthetic.py")
        if rest[1:]:
            raise UserError(f"{rest[1]!r} is not understood; options are --NAME=VALUE")
        base_config.validate(_CONFIG.value)
        return rest
    except (UserError, flags.Error) as error:
        line = console.one_line(error)
        if key := re.match(r"flag --config\.([\w.]+)=", line):
            line += f"; it must be {base_config.what(key[1])}"
    except Exception as error:  # noqa: BLE001  whatever a config file may raise
        line = f"config not understood: {type(error).__name__}: {console.one_line(error)}"
    sys.exit(f"error: {line}")


def _initialise_processes() -> None:
    """Joins the other processes of the job, as the launch scripts ask for.

    Raises:
        UserError: the environment variables that say how are wrong, or the others do not answer.
    """
    environment = os.environ
    coordinator = environment.get("CMTL_COORDINATOR")
    try:
        if coordinator:
            jax.distributed.initialize(
                coordinator,
                int(environment.get("CMTL_NUM_PROCESSES", "")),
                int(environment.get("CMTL_PROCESS_ID", "")),
                cluster_detection_method="deactivate",  # all is said; no scheduler is asked
            )
        elif environment.get("CMTL_DISTRIBUTED") == "auto":
            jax.distributed.initialize()
    except ValueError as error:
        raise UserError(
            "cannot join the other processes: CMTL_COORDINATOR (HOST:PORT), CMTL_NUM_PROCESSES and "
            f"CMTL_PROCESS_ID belong together, or start under a scheduler ({error})"
        ) from error
    except RuntimeError as error:
        raise UserError(
            f"cannot join the other processes at {coordinator or 'what the scheduler says'}; "
            f"start all of them ({error})"
        ) from error


def _run() -> int:
    config = _CONFIG.value
    _initialise_processes()
    console.setup(quiet=jax.process_index() > 0)
    workdir = pathlib.Path(_WORKDIR.value or base_config.default_workdir(config))
    if base_config.all_folds(config) and _MODE.value in ("train", "eval"):
        from cmtl_jax import cross_validation

        if _MODE.value == "train":
            return cross_validation.train(config, workdir)
        cross_validation.evaluate(config, workdir)
        return 0
    if _MODE.value == "eval":
        from cmtl_jax.evaluation import run  # imported here: bad flags are told at once

        run.evaluate_checkpoint(config, workdir)
        return 0
    if _MODE.value == "export":
        from cmtl_jax.interop import export

        export.export(config, workdir)
        return 0
    if _MODE.value == "pack":
        from cmtl_jax.input_pipeline import data

        data.pack_data(config, workdir)
        return 0
    from cmtl_jax.training import train

    return train.train(config, workdir)


def main(_: list[str]) -> None:
    console.setup()
    sys.exit(console.run(_run))


def _command(arguments: list[str]) -> None:
    """What a shell runs: main, with compiled programs kept on disk."""
    console.setup()
    compilation_cache.enable()
    main(arguments)


if __name__ == "__main__":
    huge_pages.enable()
    app.run(_command, flags_parser=parse)
