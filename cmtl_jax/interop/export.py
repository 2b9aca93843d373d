"""Weights for other code: files that the authors' PyTorch code reads."""

import io
import json
import logging
import pathlib

import h5py
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from cmtl_jax import trained_model, work_folder
from cmtl_jax.errors import UserError
from cmtl_jax.interop import released
from cmtl_jax.parallel import Parallel
from cmtl_jax.trained_model import TrainedModel

FOLDER = "export"

_ABOUT = ("config", "groups", "program", "data", "train_ids_sha256")


def export(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> pathlib.Path:
    """Writes workdir/export/<config name>.h5 in the format of the authors' released weights.

    The weights are those of config.init_from, else of workdir's checkpoint config.eval.checkpoint.

    Returns:
        The file.

    Raises:
        UserError: there are no weights, or they are of a network that the format cannot hold.
    """
    parallel = Parallel()
    source = config.init_from or workdir
    trained = trained_model.restore(
        source, parallel, "best" if config.init_from else config.eval.checkpoint
    )
    path = workdir / FOLDER / f"{config.name or trained.config.model.name}.h5"
    arrays = convert(trained)
    if parallel.process_index == 0:
        work_folder.make(path.parent)
        write(path, arrays, trained)
        logging.info("%s holds the weights of %s. %s", path, source, _how_to_use(trained))
    parallel.barrier("exported")
    return path


def convert(trained: TrainedModel) -> released.Arrays:
    """The weights by the authors' keys and in their layouts.

    Their networks have no scale of the output: ours is folded into the last convolution. Their
    logits pass a PReLU; where ours do not, its slope is 1. The input's normalisation cannot be
    folded in: at the borders their zero padding would stand for another grey level.

    Raises:
        UserError: the authors' code has no such network.
    """
    _check(trained)
    model = trained.config.model.name
    params = jax.tree.map(np.asarray, trained.params)
    stage = params["decoder"] if model == "cmtl" else params
    scale = np.float32(trained.config.loss.density_scale)
    stage = {**stage, "output": {k: v / scale for k, v in stage["output"].items()}}
    if model == "cmtl":
        slope = {"prelu3": {"slope": np.ones((), np.float32)}}
        params = {**params, "decoder": stage, "head": slope | params["head"]}
    else:
        params = stage
    return released.to_theirs(model, params)


def write(path: pathlib.Path, arrays: released.Arrays, trained: TrainedModel) -> None:
    """Writes a file whole or not at all; its attributes say how it is to be used.

    Raises:
        UserError: no room.
    """
    i = trained.config.input
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        for key, array in arrays.items():
            file[key] = array
        file.attrs["input_mean"] = float(i.mean)
        file.attrs["input_std"] = float(i.std)
        file.attrs["input_resize"] = i.resize
        file.attrs["density_scale"] = 1.0
        if trained.step is not None:
            file.attrs[released.ABOUT] = json.dumps(_about(trained))
    try:
        work_folder.write(path, memory.getvalue())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}; make room or choose another") from error


def _about(trained: TrainedModel) -> dict:
    """What the checkpoint says of itself, without the folders of the machine it comes from."""
    about = {key: trained.about[key] for key in _ABOUT if key in trained.about}
    config = {**about["config"], "init_from": ""}
    config["dataset"] = {**config["dataset"], "raw_dir": "", "tfds_dir": ""}
    return about | {"config": config, "step": trained.step}


def _check(trained: TrainedModel) -> None:
    c = trained.config
    name = c.model.name
    needs = {"input.channels": 1, "model.output_activation": "relu"}
    if name == "cmtl":
        needs |= {
            "groups.number": 10,
            "model.prior_pool": "adaptive_max",
            "model.prior_fusion": "features",
            "model.up_maps": (16, 8),
        }
    elif name != "mcnn":
        needs = {"model.name": "cmtl or mcnn"}
    flat = {key: _plain(_get(c, key)) for key in needs}
    wrong = [key for key, value in needs.items() if flat[key] != value]
    if wrong:
        raise UserError(
            f"the weights of {trained.source} cannot be exported as h5: the authors' code has no "
            f"network with {', '.join(f'config.{key}={flat[key]!r}' for key in wrong)}; it has "
            f"{', '.join(str(needs[key]) for key in wrong)}"
        )
    ours = jax.tree.map(jnp.shape, trained.params)
    theirs = jax.tree.map(jnp.shape, released.shapes(name))
    if name == "cmtl":
        for shapes in (ours, theirs):
            shapes["head"].pop("prelu3", None)
    if ours != theirs:
        raise UserError(
            f"the weights of {trained.source} cannot be exported as h5: the authors' network has "
            "other layers"
        )


def _get(config: ml_collections.ConfigDict, key: str):
    section, name = key.split(".")
    return config[section][name]


def _plain(value):
    return tuple(value) if isinstance(value, list) else value


def _how_to_use(trained: TrainedModel) -> str:
    i = trained.config.input
    parts = []
    if (i.mean, i.std) != (0, 1):
        parts.append(
            f"give their network (grey - {i.mean:g}) / {i.std:g}, grey levels 0..255, in place of "
            "the grey levels: this is not part of the weights"
        )
    if i.resize == "none":
        parts.append("zero-pad pictures to multiples of 4 after that, rather than resize them")
    if not parts:
        return "The authors' PyTorch code uses them as they are."
    return f"Who uses them with the authors' PyTorch code must {', and '.join(parts)}."
