"""A model with trained weights and all that is needed to use them."""

import dataclasses
import os
import pathlib
import typing
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from flax import linen as nn

from cmtl_jax import config as base_config
from cmtl_jax import console
from cmtl_jax.errors import UserError
from cmtl_jax.input_pipeline.count_groups import CountGroups
from cmtl_jax.models import registry
from cmtl_jax.parallel import Parallel

if typing.TYPE_CHECKING:
    from cmtl_jax.checkpoints import Checkpoints

PyTree = Any

SHIPPED = pathlib.Path(__file__).parent / "weights"  # come with the package, a name each

# Two of them together, for counting alone: those for streets, and for close crowds.
AUTO, STREETS, CLOSE = "auto", "shb", "sha"

SEPARATOR = ","  # between weights that are averaged

_LONGEST_NAME = 100  # bytes of a short name: names of files may have 255, and this is a part of one


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """Weights of a checkpoint or a file.

    Attributes:
        model: the network.
        params: its weights, replicated over the devices.
        config: what it was trained with; `input` is the preprocessing that belongs to it.
        groups: its crowd-count groups; without edges where a released file does not say them.
        about: where the weights come from: data, train_ids_sha256, ...; with an empty config where
            a released file does not say it.
        step: training step of the checkpoint; None for a mean of several, see weight_average, and
            where a released file does not say it.
        source: the folder, file or name.
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


def shipped() -> list[str]:
    """Names of the weights that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.safetensors"))


def restore(
    source: str | os.PathLike, parallel: Parallel, which: str | int = "best"
) -> TrainedModel:
    """Restores the weights of a work folder or a file, or those shipped under a name.

    Args:
        source: work folder; safetensors file of ours; HDF5 file in the format of the authors'
            PyTorch code of CMTL or MCNN, recognised by its keys; or a name of `shipped`, unless a
            file or work folder of that name is there. Several, with commas between them: the mean
            of their weights.
        parallel: whose devices hold the weights.
        which: 'best', 'latest' or a step; of a file, which holds one set of weights, no other step.

    Raises:
        UserError: there is nothing to restore there, it is damaged, or of another program; or
            several do not belong together.
    """
    if len(several := sources(source)) > 1:
        from cmtl_jax import weight_average  # it needs this file

        for one in several:
            if one != AUTO and one not in shipped() and not os.path.exists(one):
                commas = f"; commas separate weights to be averaged, as in {source}"
                raise UserError(_nothing_at(one) + commas)
        return weight_average.average([restore(one, parallel, which) for one in several])
    # Imported here: a file of weights is used without Orbax and HDF5, which take long to import.
    from cmtl_jax.interop import safetensors_file

    folder = pathlib.Path(source)
    if os.path.isfile(folder):  # pathlib's raises OSError where a name is too long
        if safetensors_file.is_one(folder):
            return _of_step(_of_safetensors(folder, str(source), parallel), which)
        return _of_step(_of_released(folder, parallel), which)
    if str(source) in shipped() and not is_work_folder(folder):
        file = SHIPPED / f"{source}{safetensors_file.SUFFIX}"
        return _of_step(_of_safetensors(file, str(source), parallel), which)
    if str(source) == AUTO and not is_work_folder(folder):
        raise UserError(
            f"{AUTO} counts with two sets of weights, {STREETS} and {CLOSE}; name one of them. To "
            f"evaluate both together: --config.init_from={STREETS} "
            f"--config.eval.close_weights={CLOSE}"
        )
    if not os.path.isdir(folder):
        raise UserError(_nothing_at(source))
    from cmtl_jax import checkpoints

    reader = checkpoints.Checkpoints(folder, read_only=True)
    try:
        step = reader.find(which)
        about, config, groups, model = _describe(reader, step)
        expected = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=parallel.replicated),
            _shapes(model, config),
        )
        params = reader.restore(step, expected).params
    finally:
        reader.close()
    return TrainedModel(model, params, config, groups, about, step, str(source))


def sources(source: str | os.PathLike) -> list[str]:
    """The weights of which `source` names the mean; one where it is a path with commas itself."""
    names = [name.strip() for name in str(source).split(SEPARATOR)]
    return [str(source)] if os.path.exists(source) or not all(names) else names


def names(several: Sequence[str]) -> list[str]:
    """What people call weights: their paths' last parts, as many as tell the paths apart."""
    paths = [pathlib.Path(os.path.abspath(one)) for one in several]
    found, length = [path.name for path in paths], 1
    while len(set(found)) < len(set(paths)):
        length += 1
        found = [str(pathlib.Path(*path.parts[-length:])) for path in paths]
    return found


def short_name(source: str | os.PathLike) -> str:
    """What weights are called in names of files: a; a+b where they are averaged, or a+7 more."""
    several = [os.path.basename(os.path.abspath(one)) or "weights" for one in sources(source)]
    for kept in range(len(several), 0, -1):
        left_out = len(several) - kept
        found = "+".join([*several[:kept], *([f"{left_out} more"] if left_out else [])])
        if len(os.fsencode(found)) <= _LONGEST_NAME:
            break
    return found


def together(lists: Sequence[str], between: str) -> str:
    """The parts of several lists in texts, each once."""
    return between.join(dict.fromkeys(one for text in lists for one in text.split(between)))


def is_work_folder(folder: pathlib.Path) -> bool:
    """Whether a training run has left checkpoints there."""
    if not os.path.isdir(folder):
        return False
    from cmtl_jax import checkpoints

    return (folder / checkpoints.FOLDER).is_dir()


def _nothing_at(source: str | os.PathLike) -> str:
    along = ", ".join(shipped())
    return (
        f"no weights at {source}: no such work folder or file, and none of the names that come "
        f"with the program ({along or 'this version has none'}); train there first or name another"
    )


def _shapes(model: nn.Module, config: ml_collections.ConfigDict) -> PyTree:
    """The parameters that a model has, as jax.ShapeDtypeStruct."""
    return jax.eval_shape(lambda: init_params(model, 0, config.input.channels))


def _of_step(trained: TrainedModel, which: str | int) -> TrainedModel:
    """The weights of a file.

    Raises:
        UserError: those of another step are asked for.
    """
    if str(which) not in ("best", "latest", str(trained.step)):
        raise UserError(
            f"no checkpoint {which} in {trained.source}: it is no work folder and holds one set of "
            "weights; leave the checkpoint out"
        )
    return trained


def _of_safetensors(path: pathlib.Path, source: str, parallel: Parallel) -> TrainedModel:
    """Weights of a file of ours."""
    from cmtl_jax.interop import safetensors_file

    params, about = safetensors_file.read(path)
    try:
        config, groups, model = _understand(about)
        differ = jax.tree.map(jnp.shape, params) != jax.tree.map(jnp.shape, _shapes(model, config))
        if differ:
            raise ValueError("its tensors are not those of the network that it describes")
    except Exception as error:  # whatever a config of another version leads to
        raise UserError(
            f"{path} says of itself what this program does not understand "
            f"({type(error).__name__}: {console.one_line(error)[:200]}); export it again with this "
            "version"
        ) from error
    params = parallel.replicate(params)
    return TrainedModel(model, params, config, groups, about, about["step"], source)


def _of_released(path: pathlib.Path, parallel: Parallel) -> TrainedModel:
    """Weights of a released file, with the preprocessing that belongs to them."""
    from cmtl_jax.interop import released

    weights = released.load(path)
    config = base_config.base()
    about = weights.about
    try:
        if about is None:
            base_config.apply_preset(config, "reference")
            groups = CountGroups(edges=(), class_weights=(), histogram=())
            about = {"config": {}, "data": "not known", "train_ids_sha256": "not known"}
        else:
            config = _config_of(about)
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


def _understand(
    about: dict[str, Any],
) -> tuple[ml_collections.ConfigDict, CountGroups, nn.Module]:
    """Config, groups and model from what weights say of themselves."""
    config = _config_of(about)
    return config, CountGroups.from_json(about["groups"]), build_model(config)


def _config_of(about: dict[str, Any]) -> ml_collections.ConfigDict:
    """The config that weights say they were trained with; of several runs, that of the last."""
    from cmtl_jax import weight_average

    # Keys that came later have their defaults.
    config = base_config.base()
    config.update(ml_collections.ConfigDict(about["config"]))
    weight_average.read(about, config)  # fails here, not when it is needed
    return config


def _describe(
    reader: "Checkpoints", step: int
) -> tuple[dict[str, Any], ml_collections.ConfigDict, CountGroups, nn.Module]:
    """What a checkpoint says of itself, and what this means."""
    try:
        about = reader.about(step)
        return about, *_understand(about)
    except UserError:
        raise
    except Exception as error:  # Orbax raises many kinds for damaged files
        raise UserError(
            f"checkpoint {step} in {reader.folder} is damaged or not one of this program "
            f"({type(error).__name__}: {console.one_line(error)[:200]}); name another checkpoint "
            "or work folder"
        ) from error
