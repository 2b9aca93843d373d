"""The card of a weights file: how it was trained, how good it is, what it is not made for."""

import functools
import hashlib
import importlib.resources
import os
import pathlib
import shlex
from typing import Any

import jax
import jinja2
import ml_collections

from cmtl_jax import config as base_config
from cmtl_jax import metrics, trained_model, weight_average, work_folder
from cmtl_jax.errors import UserError
from cmtl_jax.evaluation import report
from cmtl_jax.input_pipeline import extra_pictures
from cmtl_jax.interop import description
from cmtl_jax.tables import results
from cmtl_jax.trained_model import TrainedModel

# Said by the config's name, or places and habits that change no weights.
_NOT_OF_THE_COMMAND = (
    "name", "preset", "parallel", "dataset.name", "dataset.options", "dataset.raw_dir",
    "dataset.tfds_dir", "dataset.cache_mib", "dataset.num_workers", "train.log_every",
    "train.keep_latest", "train.stop_on_dead", "train.dead_patience", "eval.", "export.",
)  # fmt: skip


def text(
    trained: TrainedModel,
    weights: pathlib.Path,
    workdir: pathlib.Path | None = None,
    dtype: str = "float32",
) -> str:
    """The card, Markdown.

    Args:
        trained: the weights; the evaluations of them in their work folders are cited.
        weights: the file that the card lies beside.
        workdir: of the export; evaluations of the weights there are cited, too.
        dtype: of the file, 'float32' or 'float16'.

    Raises:
        UserError: an evaluation is damaged.
    """
    figures = _figures(trained, workdir)
    runs = weight_average.runs(trained)
    return _template().render(
        about=description.describe(trained),
        name=weights.name,
        sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
        kib=weights.stat().st_size / 1024,
        parameters=sum(x.size for x in jax.tree.leaves(trained.params)),
        known=bool(trained.about["config"]),
        config=trained.config,
        presets=list(dict.fromkeys(run.config.preset for run in runs)),
        seeds=list(dict.fromkeys(run.config.seed for run in runs)),
        runs=runs,
        commands=_commands(trained, workdir, dtype),
        figures=figures,
        errors=_errors(figures),
        validation=_validation(trained),
        data=trained.about["data"],
    )


def write(path: pathlib.Path, *about: Any) -> None:
    """Writes the card that `text` gives, with the same arguments.

    Raises:
        UserError: an evaluation is damaged.
    """
    work_folder.write(path, text(*about).encode())


def _commands(trained: TrainedModel, workdir: pathlib.Path | None, dtype: str) -> list[str]:
    """The command lines that train the weights; of a mean also what exports it."""
    if not weight_average.is_one(trained):
        return [command(trained.config)]
    runs = weight_average.runs(trained)
    names = [run.name for run in runs]
    if len({run.share for run in runs}) > 1:  # a mean is among them
        names = trained_model.names(trained_model.sources(trained.source))
    parts = [
        f"python -m cmtl_jax.main --config=configs/{trained.config.name or 'NAME'}.py",
        "--mode=export --config.export.format=safetensors",
        *([f"--config.export.dtype={dtype}"] if dtype != "float32" else []),
        f"--config.init_from={trained_model.SEPARATOR.join(names)}",
        *([f"--workdir={trained_model.short_name(workdir)}"] if workdir else []),
    ]
    training = [f"{command(run.config)} --workdir={run.name}" for run in runs]
    return [*dict.fromkeys(training), " ".join(parts)]


def command(config: ml_collections.ConfigDict) -> str:
    """The command line that trains with a config, without folders of this machine.

    The data set's own keys may be named twice.
    """
    usual = base_config.base()
    base_config.apply_preset(usual, config.preset)
    name, flat, usual = config.name or "NAME", base_config.flat(config), base_config.flat(usual)
    parts = [f"python -m cmtl_jax.main --config=configs/{name}.py:{config.preset}"]
    for key, value in flat.items():
        if key.startswith(_NOT_OF_THE_COMMAND) or usual.get(key) == value:
            continue
        if key == "init_from":
            value = trained_model.SEPARATOR.join(trained_model.names(trained_model.sources(value)))
        if key == "dataset.extra":
            value = ",".join(extra_pictures.titles(config.dataset))
        parts.append(f"--config.{key}={shlex.quote(str(value))}")
    return " ".join(parts)


def _figures(trained: TrainedModel, workdir: pathlib.Path | None) -> list[results.Result]:
    """Evaluations of these very weights, in their work folders and in that of the export."""
    places = [*trained_model.sources(trained.source), *([workdir] if workdir else [])]
    found: dict[tuple[str, str], results.Result] = {}
    for place in dict.fromkeys(map(os.path.realpath, places)):
        folder = pathlib.Path(place)
        if os.path.isdir(folder) and any(folder.glob("eval/*/metrics.json")):
            found |= {
                (one.data_set, one.split): one
                for one in results.read(folder)
                if _is_of(one, trained)
            }
    return list(found.values())


def _is_of(one: results.Result, trained: TrainedModel) -> bool:
    """Whether an evaluation is of these weights, and of no others beside them."""
    mean_of = weight_average.text(trained)
    if (
        one.step != trained.step
        or one.protocol.get("mean of the weights of", "") != mean_of
        or one.close_weights
    ):
        return False
    there, here = one.protocol["weights"], trained.source
    if mean_of or os.path.realpath(there) == os.path.realpath(here):
        return True
    # A work folder that was moved since; results of other weights say so in their folder's name.
    own = os.path.realpath(one.workdir) == os.path.realpath(here)
    same_name = trained_model.short_name(there) == trained_model.short_name(here)
    return own and same_name and "-from-" not in one.folder.name


def _errors(figures: list[results.Result]) -> list[list[metrics.DensityBin]]:
    """Errors by the true count, of each evaluation."""
    bins = []
    for one in figures:
        file = one.folder / "per_image.csv"
        try:
            bins.append(metrics.error_by_density(report.read_per_image_csv(file)))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{file} is missing or damaged ({type(error).__name__}: {error}); evaluate again "
                "with --mode=eval"
            ) from error
    return bins


def _validation(trained: TrainedModel) -> dict[str, float] | None:
    """The held-out pictures' figures at the step of the weights; a mean has no step."""
    if trained.step is None:
        return None
    lines = work_folder.read_jsonl(pathlib.Path(trained.source) / "metrics.jsonl")
    found = [x for x in lines if x.get("step") == trained.step and "val/mae" in x]
    return found[-1] if found else None


@functools.cache
def _template() -> jinja2.Template:
    source = importlib.resources.files("cmtl_jax.interop").joinpath("card.md.j2").read_text("utf-8")
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    return environment.from_string(source)
