"""Weights for other programs: the files that the authors' PyTorch code reads, and `formats`."""

import io
import json
import logging
import os
import pathlib

import h5py
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from cmtl_jax import checkpoints, trained_model, work_folder
from cmtl_jax import config as base_config
from cmtl_jax.datasets.ucf_cc_50 import NUM_FOLDS
from cmtl_jax.errors import UserError
from cmtl_jax.interop import description, formats, released
from cmtl_jax.parallel import Parallel
from cmtl_jax.trained_model import TrainedModel

FOLDER = "export"


def export(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> list[pathlib.Path]:
    """Writes workdir/export/<config name>.<config.export.format>, and what belongs to the file.

    The weights are those of config.init_from, else of workdir; of a work folder, those of its
    checkpoint config.eval.checkpoint.
    Where these are the five folds of a cross-validation, there are five files; that of a fold has
    its number in its name.

    Returns:
        The files.

    Raises:
        UserError: there are no weights, or they are of a network that the format cannot hold; then
            no file is written.
    """
    parallel = Parallel()
    files = []
    for source in _sources(config, pathlib.Path(config.init_from or workdir)):
        trained = trained_model.restore(source, parallel, config.eval.checkpoint)
        name = config.name or trained.config.model.name
        fold = trained.config.dataset.fold
        path = workdir / FOLDER / f"{name}{f'-fold_{fold}' if fold else ''}.{config.export.format}"
        files.append((path, _prepare(config, trained), trained))
    if parallel.process_index == 0:
        work_folder.make(workdir / FOLDER)
        for path, write_file, trained in files:
            how_to_use = write_file(path)
            logging.info("%s holds the weights of %s. %s", path, trained.source, how_to_use)
    parallel.barrier("exported")
    return [path for path, _, _ in files]


def _prepare(config: ml_collections.ConfigDict, trained: TrainedModel) -> formats.Writer:
    """What writes the file and says how it is used; what can be refused is refused before."""
    if config.export.format != "h5":
        return formats.prepare(config, trained)
    arrays = convert(trained)

    def write_file(path: pathlib.Path) -> str:
        write(path, arrays, trained)
        return _how_to_use(trained)

    return write_file


def _sources(config: ml_collections.ConfigDict, source: pathlib.Path) -> list[pathlib.Path]:
    """The weights themselves, or those of each fold in the work folder of a cross-validation."""
    # What is no folder is a file or the name of weights.
    folder = os.path.isdir(source)  # pathlib's raises OSError at the names of many runs
    own = (config.init_from and not folder) or (source / checkpoints.FOLDER).is_dir()
    if own or not base_config.all_folds(config):
        return [source]
    folders = [source / f"fold_{fold}" for fold in range(1, NUM_FOLDS + 1)]
    there = [one for one in folders if (one / checkpoints.FOLDER).is_dir()]
    if len(there) < NUM_FOLDS:
        missing = ", ".join(one.name for one in folders if one not in there)
        alone = f"export one fold with --workdir={there[0]}" if there else "name another"
        raise UserError(f"no weights of {missing} in {source}; train there first, or {alone}")
    return folders


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
        if trained.about["config"]:  # else a released file, which says nothing
            file.attrs[released.ABOUT] = json.dumps(description.of_weights(trained))
    try:
        work_folder.write(path, memory.getvalue())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}; make room or choose another") from error


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
