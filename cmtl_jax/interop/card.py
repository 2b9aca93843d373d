"""The card of a weights file: how it was trained, how good it is, what it is not made for."""

import functools
import hashlib
import importlib.resources
import pathlib
import shlex
from typing import Any

import jax
import jinja2
import ml_collections

from cmtl_jax import config as base_config
from cmtl_jax import metrics, trained_model, work_folder
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


def text(trained: TrainedModel, weights: pathlib.Path) -> str:
    """The card, Markdown.

    Args:
        trained: the weights; the evaluations in their work folder are cited.
        weights: the file that the card lies beside.

    Raises:
        UserError: an evaluation is damaged.
    """
    figures = _figures(trained)
    return _template().render(
        about=description.describe(trained),
        name=weights.name,
        sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
        kib=weights.stat().st_size / 1024,
        parameters=sum(x.size for x in jax.tree.leaves(trained.params)),
        known=trained.step is not None,
        config=trained.config,
        command=command(trained.config),
        figures=figures,
        errors=_errors(figures),
        validation=_validation(trained),
        data=trained.about["data"],
    )


def write(path: pathlib.Path, trained: TrainedModel, weights: pathlib.Path) -> None:
    """Writes the card of a weights file.

    Raises:
        UserError: an evaluation is damaged.
    """
    work_folder.write(path, text(trained, weights).encode())


def command(config: ml_collections.ConfigDict) -> str:
    """The command line that trains with a config, without folders of this machine.

    The data set's own keys may be named twice.
    """
    usual = base_config.base()
    base_config.apply_preset(usual, config.preset)
    name, flat, usual = config.name or "NAME", _flat(config), _flat(usual)
    parts = [f"python -m cmtl_jax.main --config=configs/{name}.py:{config.preset}"]
    for key, value in flat.items():
        if key.startswith(_NOT_OF_THE_COMMAND) or usual.get(key) == value:
            continue
        if key == "init_from":
            value = trained_model.short_name(value, between=trained_model.SEPARATOR)
        if key == "dataset.extra":
            value = ",".join(extra_pictures.titles(config.dataset))
        parts.append(f"--config.{key}={shlex.quote(str(value))}")
    return " ".join(parts)


def _flat(config: ml_collections.ConfigDict, before: str = "") -> dict[str, Any]:
    """'section.key' -> value; a list of a JSON file is the tuple it was."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            flat |= _flat(value, f"{before}{key}.")
        else:
            flat[before + key] = tuple(value) if isinstance(value, list) else value
    return flat


def _figures(trained: TrainedModel) -> list[results.Result]:
    """Evaluations of these very weights, and of no others with them, in their work folder."""
    folder = pathlib.Path(trained.source)
    if not any(folder.glob("eval/*/metrics.json")):
        return []
    name = folder.resolve().name
    return [
        one
        for one in results.read(folder)
        if one.step == trained.step and pathlib.Path(one.protocol["weights"]).name == name
        and not one.close_weights
    ]  # fmt: skip


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
    """The held-out pictures' figures at the step of the weights."""
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
