"""A model with trained weights and all that is needed to use them."""

import dataclasses
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from flax import linen as nn

from cmtl_jax import checkpoints, console
from cmtl_jax import config as base_config
from cmtl_jax.errors import UserError
from cmtl_jax.input_pipeline.count_groups import CountGroups
from cmtl_jax.interop import released
from cmtl_jax.models import registry
from cmtl_jax.parallel import Parallel

PyTree = Any


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """Weights of a checkpoint or of a released file.

    Attributes:
        model: the network.
        params: its weights, replicated over the devices.
        config: what it was trained with; `input` is the preprocessing that belongs to it.
        groups: its crowd-count groups; without edges where a released file does not say them.
        about: where the weights come from: data, train_ids_sha256, ...
        step: training step of the checkpoint; None where a released file does not say it.
        source: the folder or file.
    """

    model: nn.Module
    params: PyTree
    config: ml_collections.ConfigDict
    groups: CountGroups
    about: dict[str, Any]
    step: int | None
    source: str


def build_model(config: ml_collections.ConfigDict) -> nn.Module:
    """The model that a configuration describes."""
    fields = {key: value for key, value in config.model.items() if key != "name"}
    return registry.build(
        config.model.name,
        num_groups=config.groups.number,
        density_scale=config.loss.density_scale,
        **fields,
    )


def init_params(model: nn.Module, seed: int, channels: int) -> PyTree:
    """Initial parameters of a model for pictures of so many channels."""
    image = jnp.zeros((1, 32, 32, channels))
    size = jnp.full((1, 2), 32)
    return model.init(jax.random.key(seed), image, size)["params"]


def restore(
    source: str | os.PathLike, parallel: Parallel, which: str | int = "best"
) -> TrainedModel:
    """Restores the weights of a work folder or of a released file.

    Args:
        source: work folder, or HDF5 file in the format of the authors' PyTorch code of CMTL or
            MCNN, recognised by its keys.
        parallel: whose devices hold the weights.
        which: 'best', 'latest' or a step; a file holds one set of weights.

    Raises:
        UserError: there is nothing to restore there, it is damaged, or of another program.
    """
    folder = pathlib.Path(source)
    if folder.is_file():
        return _of_file(folder, parallel)
    if not folder.is_dir():
        raise UserError(
            f"no weights at {source}: no such work folder or released file; train there first or "
            "name another"
        )
    reader = checkpoints.Checkpoints(folder, read_only=True)
    try:
        step = reader.find(which)
        about, config, groups, model = _describe(reader, step)
        expected = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=parallel.replicated),
            jax.eval_shape(lambda: init_params(model, 0, config.input.channels)),
        )
        params = reader.restore(step, expected).params
    finally:
        reader.close()
    return TrainedModel(model, params, config, groups, about, step, str(source))


def _of_file(path: pathlib.Path, parallel: Parallel) -> TrainedModel:
    """Weights of a released file, with the preprocessing that belongs to them."""
    weights = released.load(path)
    config = base_config.base()
    about = weights.about
    try:
        if about is None:
            base_config.apply_preset(config, "reference")
            groups = CountGroups(edges=(), class_weights=(), histogram=())
            about = {"config": {}, "data": "not known", "train_ids_sha256": "not known"}
        else:
            config.update(ml_collections.ConfigDict(about["config"]))
            groups = CountGroups.from_json(about["groups"])
            about["data"], about["train_ids_sha256"]  # needed by whoever evaluates
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} says of itself what this program does not understand "
            f"({type(error).__name__}: {console.one_line(error)}); export it again, or remove its "
            f"attribute {released.ABOUT!r}"
        ) from error
    settings = weights.settings
    config.model.update(released.ARCHITECTURE, name=weights.model)
    config.input.update(
        channels=1,
        mean=settings["input_mean"],
        std=settings["input_std"],
        resize=settings["input_resize"],
    )
    config.loss.density_scale = settings["density_scale"]
    return TrainedModel(
        build_model(config),
        parallel.replicate(weights.params),
        config,
        groups,
        about,
        about.get("step"),
        str(path),
    )


def _describe(
    reader: checkpoints.Checkpoints, step: int
) -> tuple[dict[str, Any], ml_collections.ConfigDict, CountGroups, nn.Module]:
    """What a checkpoint says of itself, and the config, groups and model this means."""
    try:
        about = reader.about(step)
        # Keys that came later have their defaults.
        config = base_config.base()
        config.update(ml_collections.ConfigDict(about["config"]))
        return about, config, CountGroups.from_json(about["groups"]), build_model(config)
    except UserError:
        raise
    except Exception as error:  # Orbax raises many kinds for damaged files
        raise UserError(
            f"checkpoint {step} in {reader.folder} is damaged or not one of this program "
            f"({type(error).__name__}: {console.one_line(error)[:200]}); name another checkpoint "
            "or work folder"
        ) from error
