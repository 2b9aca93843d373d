"""The command line: python -m cmtl_jax.main --config=configs/sha.py [--workdir=W] [--mode=eval]."""

import os
import pathlib
import sys

import jax
from absl import app, flags
from ml_collections import config_flags

from cmtl_jax import config as base_config
from cmtl_jax import console
from cmtl_jax.errors import UserError

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, with :PRESET if wanted.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Work folder; default runs/<config>-<preset>.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "eval"], "Train and evaluate, or evaluate.")


def _parse(argv: list[str]) -> list[str]:
    try:
        rest = flags.FLAGS(argv)
        if _CONFIG.value is None:
            raise UserError("--config is missing; try --config=configs/synthetic.py")
        return rest
    except (UserError, flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as e:
        sys.exit(f"error: {' '.join(str(e).split())}")


def _initialise_processes() -> None:
    """Joins the other processes of the job, as the launch scripts ask for."""
    environment = os.environ
    if "CMTL_COORDINATOR" in environment:
        jax.distributed.initialize(
            environment["CMTL_COORDINATOR"],
            int(environment["CMTL_NUM_PROCESSES"]),
            int(environment["CMTL_PROCESS_ID"]),
            cluster_detection_method="deactivate",  # all is said; no scheduler is asked
        )
    elif environment.get("CMTL_DISTRIBUTED") == "auto":
        jax.distributed.initialize()


def _main(_: list[str]) -> None:
    console.setup()
    config = _CONFIG.value
    try:
        base_config.validate(config)
        _initialise_processes()
        console.setup(quiet=jax.process_index() > 0)
        workdir = pathlib.Path(_WORKDIR.value or base_config.default_workdir(config))
        if _MODE.value == "eval":
            from cmtl_jax.evaluation import run

            run.evaluate_checkpoint(config, workdir)
            return
        from cmtl_jax.training import train

        status = train.train(config, workdir)
    except UserError as error:
        sys.exit(f"error: {error}")
    sys.exit(status)


if __name__ == "__main__":
    app.run(_main, flags_parser=_parse)
