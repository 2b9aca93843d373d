"""The formats of an export, beside that of the authors' PyTorch code."""

import dataclasses
import pathlib
from collections.abc import Callable

import jax
import ml_collections
import numpy as np

from cmtl_jax import trained_model, work_folder
from cmtl_jax.errors import UserError
from cmtl_jax.interop import card, description, parity, safetensors_file, stablehlo
from cmtl_jax.parallel import Parallel
from cmtl_jax.prediction import sources
from cmtl_jax.prediction.counter import Counter
from cmtl_jax.trained_model import TrainedModel

Writer = Callable[[pathlib.Path], str]  # writes a file and what belongs to it, says how to use it


def prepare(config: ml_collections.ConfigDict, trained: TrainedModel) -> Writer:
    """What writes the weights in the format config.export.format; nothing is written yet.

    Raises:
        UserError: the format cannot hold the weights, packages are missing, or the pictures that
            it is to be checked on. The writer raises it where there is no room, and where the file
            does not count as the weights do.
    """
    return {"safetensors": _safetensors, "stablehlo": _stablehlo, "onnx": _onnx}[
        config.export.format
    ](config, trained)


def _safetensors(config: ml_collections.ConfigDict, trained: TrainedModel) -> Writer:
    halved = config.export.dtype == "float16"
    pictures = _pictures(config) if halved else []

    def write(path: pathlib.Path) -> str:
        about = description.of_weights(trained)
        safetensors_file.write(path, trained.params, about, config.export.dtype)
        if halved:
            _check_halved(path, trained, config.matmul_precision, pictures)
        about = path.with_suffix(".md")
        workdir = path.parent.parent  # of workdir/export/NAME.safetensors
        card.write(about, trained, path, workdir, config.export.dtype)
        return (
            f"Count with them by python -m cmtl_jax.predict photo.jpg --weights={path}; "
            f"{about.name} says what they are."
        )

    return write


def _check_halved(
    path: pathlib.Path, trained: TrainedModel, precision: str, pictures: list[pathlib.Path]
) -> None:
    parallel = Parallel("jit", jax.local_devices()[:1], precision=precision)
    kept = trained_model.restore(path, parallel)
    config = kept.config.copy_and_resolve_references()
    # The program is given pictures as they are to be seen.
    config.input.update(scale=1.0, contrast=0.0, detail=0.0, close=0.0)
    count = Counter(dataclasses.replace(kept, config=config), parallel)

    def program(picture: np.ndarray) -> tuple[np.ndarray, float]:
        result = count(picture)
        return result.density, result.count

    parity.check(path, program, _looking_once(trained, parallel), pictures, halved=True)


def _stablehlo(config: ml_collections.ConfigDict, trained: TrainedModel) -> Writer:
    data = stablehlo.encode(trained, precision=config.matmul_precision)
    return _checked(config, trained, data, stablehlo.Program, config.matmul_precision)


def _onnx(config: ml_collections.ConfigDict, trained: TrainedModel) -> Writer:
    try:
        from cmtl_jax.interop import onnx_file  # not among the packages that training needs
    except ImportError as error:
        raise UserError(
            f"config.export.format=onnx needs the packages of requirements-onnx.txt ({error}); "
            "pip install onnx onnxruntime"
        ) from error
    return _checked(config, trained, onnx_file.encode(trained), onnx_file.Program, "float32")


def _checked(
    config: ml_collections.ConfigDict,
    trained: TrainedModel,
    data: bytes,
    program: Callable[[pathlib.Path], parity.Program],
    precision: str,
) -> Writer:
    """Writes data, runs the file as its users will, and compares."""
    pictures = _pictures(config)

    def write(path: pathlib.Path) -> str:
        try:
            work_folder.write(path, data)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error}; make room or choose another") from error
        single = Parallel("jit", jax.local_devices()[:1], precision=precision)
        report = parity.check(path, program(path), _looking_once(trained, single), pictures)
        return f"It counts as they do; {report} says on which pictures, and how exactly."

    return write


def _looking_once(trained: TrainedModel, parallel: Parallel) -> Counter:
    """A counter that is the network alone, as an exported program is."""
    config = trained.config.copy_and_resolve_references()
    config.input.update(close=0.0, looks=())
    params = parallel.replicate(trained.params)
    return Counter(dataclasses.replace(trained, params=params, config=config), parallel)


def _pictures(config: ml_collections.ConfigDict) -> list[pathlib.Path]:
    if not config.export.pictures:
        return []
    found = [one for one in sources.find(config.export.pictures) if one.kind == "picture"]
    if not found:
        raise UserError(f"config.export.pictures={config.export.pictures} names no picture")
    return [pathlib.Path(one.path) for one in found[: config.export.num_pictures]]
