"""What must not change between a run and its continuation in the same work folder."""

import json
from collections.abc import Mapping
from typing import Any

from cmtl_jax import config as base_config
from cmtl_jax.errors import UserError

# How long, how often, where and on what; none of it changes what a step computes.
_FREE = (
    "name", "preset", "parallel", "init_from", "eval.", "dataset.raw_dir", "dataset.tfds_dir",
    "dataset.cache_mib", "dataset.num_workers", "dataset.on_device", "train.steps",
    "train.eval_every", "train.log_every", "train.keep_latest", "train.folds_at_once",
    "train.stop_on_dead", "train.dead_patience",
)  # fmt: skip


def check(saved: Mapping[str, Any], now: Mapping[str, Any], workdir: object) -> None:
    """Compares what a checkpoint says of itself with what would be trained now.

    Args:
        saved: config, data and train_ids_sha256 of the checkpoint.
        now: the same of the run.
        workdir: for the message.

    Raises:
        UserError: they differ in more than length, logging, places and devices.
    """
    there, here = (base_config.flat(json.loads(json.dumps(about["config"]))) for about in (saved, now))
    for key in sorted(there.keys() & here.keys()):
        if there[key] != here[key] and not key.startswith(_FREE):
            raise UserError(
                f"{workdir} holds a run with config.{key}={there[key]!r}, not {here[key]!r}; go on "
                "with the same value, or use another --workdir"
            )
    if saved["train_ids_sha256"] != now["train_ids_sha256"]:
        raise UserError(
            f"{workdir} holds a run on other training pictures ({saved['data']}); go on with the "
            "same pictures, or use another --workdir"
        )
