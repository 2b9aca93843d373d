"""Own numbers: what the evaluations in work folders say, each with its protocol."""

import dataclasses
import json
import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from cmtl_jax import config as base_config
from cmtl_jax.errors import UserError

_METHODS = {"cmtl": "Cascaded CNN", "single_stage": "Single stage CNN", "mcnn": "MCNN"}

_CLOSE_WEIGHTS = "weights where people stand close"  # in the protocol

# Neither the system nor its training: places, devices, logging, and what is said elsewhere.
_NOT_OF_A_SYSTEM = (
    "name", "preset", "seed", "parallel", "dataset.raw_dir", "dataset.tfds_dir", "dataset.fold",
    "dataset.cache_mib", "dataset.num_workers", "dataset.on_device", "train.log_every",
    "train.keep_latest", "train.stop_on_dead", "train.dead_patience", "eval.", "export.",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Result:
    """One evaluation.

    Attributes:
        workdir: the work folder.
        folder: of the evaluation, in it.
        data_set: 'shanghaitech-part_a', 'ucf_cc_50', ...
        split: 'test', 'val', 'train', 'cross-validation', or 'fold_1 test' of UCF_CC_50.
        mae: people per picture.
        rmse: people per picture.
        num_images: pictures evaluated.
        system: model and preset, as the table names them.
        seed: of the training; None where the weights do not say it.
        step: of the checkpoint, or steps of the folds' checkpoints; None where it is not known.
        settings: of the training, flat; without what does not make another system.
        protocol: of the evaluation.
        folds: figures of each fold, of a cross-validation.
        rmse_mean_of_folds: likewise.
        stray: people per picture counted where nobody is; nan where older evaluations do not say.
        close_weights: those that took over where people stand close; empty where none did.
    """

    workdir: pathlib.Path
    folder: pathlib.Path
    data_set: str
    split: str
    mae: float
    rmse: float
    num_images: int
    system: str
    seed: int | None
    step: int | tuple[int, ...] | None
    settings: Mapping[str, str]
    protocol: Mapping[str, str]
    folds: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    rmse_mean_of_folds: float = math.nan
    stray: float = math.nan
    close_weights: str = ""


def read(workdir: pathlib.Path) -> list[Result]:
    """All evaluations of a work folder, by the name of their folders.

    Raises:
        UserError: there are none, or one is damaged.
    """
    paths = sorted(workdir.glob("eval/*/metrics.json"))
    if not paths:
        raise UserError(
            f"no results in {workdir}: eval/*/metrics.json is missing; name the work folder of a "
            "finished run, or evaluate it with python -m cmtl_jax.main --mode=eval"
        )
    return [_result(workdir, path) for path in paths]


def _result(workdir: pathlib.Path, path: pathlib.Path) -> Result:
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        protocol = {name: str(value) for name, value in metrics["protocol"].items()}
        mae, rmse = float(metrics["mae"]), float(metrics["rmse"])
        folds = metrics.get("folds") or {}
        step = metrics["checkpoint_step"] if not folds else _steps(folds)
        number = int(metrics["num_images"])
        data_set, split, trained_on = (protocol[k] for k in ("data set", "split", "trained on"))
        stray = math.nan if metrics.get("stray") is None else float(metrics["stray"])
        mean_of_folds = float(metrics.get("rmse_mean_of_folds", math.nan))
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is damaged or not of this program ({type(error).__name__}: {error}); "
            "evaluate again with --mode=eval"
        ) from error
    if not 0 <= mae <= rmse * (1 + 1e-9):
        raise UserError(
            f"{path} has an MAE of {mae:g} and an RMSE of {rmse:g}, which no evaluation gives "
            "(0 <= MAE <= RMSE); evaluate again with --mode=eval"
        )
    if fold := re.fullmatch(r"(ucf_cc_50)-(fold_\d)", data_set):
        data_set, split = fold[1], f"{fold[2]} {split}"
    # Weights from elsewhere have another config than the work folder's.
    config = {} if "-from-" in path.parent.name else _config(workdir)
    preset, model, seed = _trained(trained_on)
    return Result(
        workdir=workdir,
        folder=path.parent,
        data_set=data_set,
        split=split,
        mae=mae,
        rmse=rmse,
        num_images=number,
        system=_system(preset, model, config, protocol),
        seed=seed,
        step=step,
        settings={k: v for k, v in config.items() if not k.startswith(_NOT_OF_A_SYSTEM)},
        protocol=protocol,
        folds=folds,
        rmse_mean_of_folds=mean_of_folds,
        stray=stray,
        close_weights=protocol.get(_CLOSE_WEIGHTS, ""),
    )


def _steps(folds: Mapping[str, Mapping]) -> tuple[int, ...] | None:
    steps = [fold["checkpoint_step"] for fold in folds.values()]
    return None if None in steps else tuple(steps)


def _trained(text: str) -> tuple[str, str, int | None]:
    """Preset, model and seed of the protocol's 'trained on'."""
    found = re.search(r"preset (\w+), model (\w+), seed (\d+)", text)
    return (found[1], found[2], int(found[3])) if found else ("", "", None)


def _system(
    preset: str, model: str, config: Mapping[str, str], protocol: Mapping[str, str]
) -> str:
    """Model, preset, the keys of the model that are not the preset's, and weights beside these."""
    source = protocol.get("weights", "")
    name = _METHODS.get(model, model or "weights")
    known = not protocol["trained on"].startswith("not known")
    released = protocol.get("mean of the weights of") or pathlib.Path(source).name
    parts = [name, preset or source if known else f"released weights {released}"]
    if known and config and preset in base_config.PRESETS:
        usual = base_config.base()
        base_config.apply_preset(usual, preset)
        usual = _flat(usual.to_dict())
        parts += [
            f"{key.removeprefix('model.')}={value}"
            for key, value in sorted(config.items())
            if key.startswith("model.") and key != "model.name"
            and usual.get(key, value) != value
        ]  # fmt: skip
    if close := protocol.get(_CLOSE_WEIGHTS):
        parts.append(f"with {close} where people stand close")
    return ", ".join(filter(None, parts))


def _config(workdir: pathlib.Path) -> dict[str, str]:
    """The config a work folder was trained with, flat; empty where it was not trained."""
    for path in (workdir / "config.json", workdir / "fold_1" / "config.json"):
        if path.exists():
            try:
                return _flat(json.loads(path.read_text(encoding="utf-8")))
            except (OSError, AttributeError, ValueError) as error:
                raise UserError(f"{path} is damaged ({error}); train again or remove it") from error
    return {}


def _flat(tree: Mapping[str, Any]) -> dict[str, str]:
    """'section.key' -> value as text; a tuple reads like the list it is in JSON."""
    values = base_config.flat(tree).items()
    return {key: str(list(one) if isinstance(one, tuple) else one) for key, one in values}
