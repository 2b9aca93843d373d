"""The mean of the weights of several runs, which counts as one network.

Between weights before and after a further training it keeps part of what the further training
forgets (WiSE-FT, Wortsman et al., CVPR 2022); of several seeds it is a model soup (Wortsman et al.,
ICML 2022).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections

from cmtl_jax import config as base_config
from cmtl_jax import head_spacing, trained_model
from cmtl_jax.errors import UserError
from cmtl_jax.trained_model import SEPARATOR, TrainedModel

# What the runs must have in common: the network and what it sees, and which pictures they held out.
_NETWORK = ("model", "input", "loss.density_scale", "groups.number")
_HELD_OUT = ("name", "options", "fold", "val_fraction", "val_split", "val_seed", "leave_out")
_SAME = (*_NETWORK, *(f"dataset.{key}" for key in _HELD_OUT))

ABOUT = "averaged"  # the entry of TrainedModel.about that says of which runs the weights are a mean


@dataclasses.dataclass(frozen=True)
class Run:
    """One of the runs that weights come from.

    Attributes:
        name: of its folder or file, with as much of the path as tells it from the others.
        step: of its checkpoint; None where a released file does not say it.
        share: its part in the mean, 0..1.
        program: that trained it.
        data: that it was trained on.
        train_ids_sha256: of its training pictures.
        config: that it was trained with.
    """

    name: str
    step: int | None
    share: float
    program: str
    data: str
    train_ids_sha256: str
    config: ml_collections.ConfigDict


def average(models: Sequence[TrainedModel]) -> TrainedModel:
    """The mean of the parameters, saying of itself which runs it is of; else the last of them.

    Args:
        models: at least one, their parameters on the same devices. Some may be means themselves.

    Raises:
        UserError: they are of different networks, see pictures differently, or held out others.
    """
    last = models[-1]
    for other in models[:-1]:
        for key in _SAME:
            if _value(other, key) != _value(last, key):
                raise UserError(
                    f"the weights of {other.source} and {last.source} cannot be averaged: their "
                    f"config.{key} differ; name weights that were trained one from the other, or "
                    "by the same command with other seeds"
                )
    params = jax.tree.map(
        lambda *leaves: sum(leaves) / len(leaves), *(one.params for one in models)
    )
    found = []
    names = trained_model.names([one.source for one in models])
    for name, model in zip(names, models, strict=True):
        for run in runs(model):
            own = {"share": run.share / len(models)} | ({} if is_one(model) else {"name": name})
            found.append(dataclasses.replace(run, **own))
    about = last.about | {
        "program": trained_model.together([run.program for run in found], "; "),
        "data": trained_model.together([run.data for run in found], ", "),
        "train_ids_sha256": trained_model.together([run.train_ids_sha256 for run in found], "; "),
        "head_spacing": head_spacing.together([one.about.get("head_spacing") for one in models]),
        ABOUT: said(found, last.config),
    }
    source = SEPARATOR.join(one.source for one in models)
    return dataclasses.replace(last, params=params, about=about, step=None, source=source)


def is_one(trained: TrainedModel) -> bool:
    """Whether weights are a mean."""
    return ABOUT in trained.about


def runs(trained: TrainedModel) -> list[Run]:
    """The run that weights come from, or those whose mean they are."""
    about = trained.about
    if is_one(trained):
        return read(about, trained.config)
    one = Run(
        name=trained_model.short_name(trained.source),
        step=trained.step,
        share=1.0,
        program=about.get("program", "not known"),
        data=about["data"],
        train_ids_sha256=about["train_ids_sha256"],
        config=trained.config,
    )
    return [one]


def read(about: Mapping[str, Any], config: ml_collections.ConfigDict) -> list[Run]:
    """The runs of a mean, as `said` wrote them; none where weights are of one run.

    Raises:
        AttributeError, KeyError, TypeError: this is none of what `said` writes.
    """
    found = []
    for one in about.get(ABOUT, []):
        own = config.copy_and_resolve_references()
        own.update_from_flattened_dict(one["config"])
        found.append(Run(**one | {"config": own}))
    return found


def said(several: Sequence[Run], config: ml_collections.ConfigDict) -> list[dict[str, Any]]:
    """The entry ABOUT of a mean with this config, for JSON; of configs what differs from it."""
    usual = base_config.flat(config)
    found = []
    for run in several:
        own = base_config.flat(run.config)
        differing = {key: value for key, value in own.items() if usual.get(key) != value}
        entry = {field.name: getattr(run, field.name) for field in dataclasses.fields(run)}
        found.append(entry | {"config": differing})
    return found


def text(trained: TrainedModel) -> str:
    """'a (step 3), b (step 7)', whose mean the weights are; empty where they are none."""
    if not is_one(trained):
        return ""
    several = runs(trained)
    equal = len({run.share for run in several}) == 1
    words = []
    for run in several:
        parts = ["step not known" if run.step is None else f"step {run.step}"]
        parts += [] if equal else [f"share {run.share:.3g}"]
        words.append(f"{run.name} ({', '.join(parts)})")
    return ", ".join(words)


def _value(trained: TrainedModel, key: str):
    value = trained.config
    for part in key.split("."):
        value = value[part]
    return value.to_dict() if hasattr(value, "to_dict") else value
