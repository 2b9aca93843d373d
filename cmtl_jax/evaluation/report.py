"""What an evaluation leaves behind: report.html, per_image.csv and metrics.json."""

import base64
import csv
import dataclasses
import importlib.resources
import io
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from cmtl_jax import work_folder
from cmtl_jax.evaluation import plots
from cmtl_jax.metrics import (
    MAP_QUALITY_CONVENTION,
    ImageMetrics,
    error_by_density,
    error_by_thirds,
    whole,
)
from cmtl_jax.prediction import overlay

CSV_HEADER = ("id", "count_true", "count_pred", "error", "group_true", "group_pred")
CONDITIONS = "conditions.csv"  # beside it: what the errors may come from
_CONDITIONS = ("stray", "brightness", "spacing")

_TRIPTYCH_SIDE = 560

_HEADLINES = (
    ("mae", "MAE", "mean absolute count error, people per picture"),
    ("mae_before", "MAE before training", "of the weights that training started from"),
    ("rmse", "RMSE (called MSE in papers)", "root mean squared count error, people per picture"),
    ("nae", "NAE", "mean of error / true count, pictures with people"),
)
_DETAILS = (
    ("rmse_before", "RMSE before training", "of the weights that training started from"),
    ("nae_before", "NAE before training", "of the weights that training started from"),
    ("game_1", "GAME(1)", "count error summed over 2×2 cells of the picture"),
    ("game_2", "GAME(2)", "over 4×4 cells"),
    ("game_3", "GAME(3)", "over 8×8 cells"),
    ("psnr", "PSNR", "decibels; quality of the density map, higher is better"),
    ("ssim", "SSIM", "quality of the density map, higher is better"),
    ("stray", "Counted where nobody is", "people per picture in those of 8×8 cells without a head"),
    ("group_accuracy", "Count group accuracy", "share of crops put into the right count group"),
    ("group_num_crops", "Crops classified", "that accuracy is taken over"),
    ("mean_count_true", "Mean true count", "people per picture"),
    ("mean_count_pred", "Mean predicted count", "people per picture"),
    ("num_images", "Pictures", "each counted once, whole"),
    ("num_seen_in_training", "Seen in training", "pictures here that these weights trained on"),
    (
        "brightness_regression_mae",
        "MAE of brightness alone",
        "linear regression of the count on a picture's mean grey and its deviation",
    ),
    ("nae_num_images", "Pictures with people", "those NAE is taken over"),
    ("checkpoint_step", "Checkpoint", "steps of training before it"),
    ("programs_compiled", "Programs", "compiled, one for each padded shape of pictures"),
    ("seconds", "Time", "seconds of this evaluation, without the report"),
)
_BASELINE = "best_constant_mae"
# GAME(0) is the MAE, which has its own place.
_NOT_LISTED = frozenset({_BASELINE, "game_0", "group_accuracy_whole"})


@dataclasses.dataclass(frozen=True)
class Triptych:
    """A picture next to its true and its predicted density map.

    Attributes:
      id: Name of the picture; may hold any character.
      picture: [H, W] or [H, W, C] uint8.
      density_true: [H, W] people per pixel.
      density_pred: [H, W] people per pixel.
      count_true: Number of head points.
      count_pred: Predicted count.
      note: Why the picture is shown, such as "worst".
    """

    id: str
    picture: np.ndarray
    density_true: np.ndarray
    density_pred: np.ndarray
    count_true: float
    count_pred: float
    note: str = ""


def write_report(
    path: str | os.PathLike,
    *,
    title: str,
    metrics: Mapping[str, Any],
    protocol: Mapping[str, Any],
    images: Sequence[ImageMetrics],
    triptychs: Sequence[Triptych] = (),
    curves: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> None:
    """Writes one self-contained HTML page: no script, nothing loaded from elsewhere.

    The page replaces an older one in a single step, so that a reader never sees half of it.

    Args:
      path: File to write; its folder is made if need be.
      title: Heading of the page.
      metrics: `CountMetrics.result()`; with `best_constant_mae`, the page sets the MAE against it.
        Further numbers are listed; whatever else it holds is not.
      protocol: What the numbers were measured on and how, by name, in the order shown: data set,
        split, ground truth, selection of the checkpoint, step, seed and so on.
      images: The metrics of each picture.
      triptychs: Pictures to show.
      curves: Rows of metrics.jsonl of each run that the weights come from, by its name, for the
        learning curves; see `plots.learning_curve`.
    """
    template = importlib.resources.files("cmtl_jax.evaluation").joinpath("report.html.j2")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(number=_number, people=_people, signed=_signed)
    page = environment.from_string(template.read_text(encoding="utf-8")).render(
        title=title,
        headlines=_present(metrics, _HEADLINES),
        details=_present(metrics, _DETAILS) + _further(metrics),
        baseline=_baseline(metrics),
        map_quality=MAP_QUALITY_CONVENTION if _finite_or(metrics.get("psnr"), None) else None,
        protocol=dict(protocol),
        figures=_figures(images),
        curves=_curves(curves or {}),
        bins=error_by_density(images),
        conditions=_conditions(images),
        triptychs=[_show(triptych) for triptych in triptychs],
        unit=overlay.UNIT,
        gradient=", ".join(overlay.color_stops(9)),
        images=images,
        with_groups=any(i.group_true is not None or i.group_pred is not None for i in images),
    )
    # File names that are no valid text hold surrogates, which UTF-8 cannot carry.
    work_folder.write(path, page.encode("utf-8", "backslashreplace"))


def write_per_image_csv(
    path: str | os.PathLike, images: Sequence[ImageMetrics], **columns: Sequence[Any]
) -> None:
    """Writes one row a picture under `CSV_HEADER`; error = count_pred - count_true, in people.

    A count group that is not known is left empty. More columns, a value a picture, stand behind
    these. The file appears in a single step.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*CSV_HEADER, *columns))
    for image, *more in zip(images, *columns.values(), strict=True):
        groups = ("" if g is None else g for g in (image.group_true, image.group_pred))
        writer.writerow((image.id, image.count_true, image.count_pred, image.error, *groups, *more))
    work_folder.write(path, text.getvalue().encode("utf-8", "surrogateescape"))


def write_conditions_csv(path: str | os.PathLike, images: Sequence[ImageMetrics]) -> None:
    """Writes `stray`, `brightness` and `spacing` of each picture; what is not known is empty.

    The file appears in a single step.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("id", *_CONDITIONS))
    for image in images:
        values = (getattr(image, name) for name in _CONDITIONS)
        writer.writerow((image.id, *(x if math.isfinite(x) else "" for x in values)))
    work_folder.write(path, text.getvalue().encode("utf-8", "surrogateescape"))


def read_per_image_csv(path: str | os.PathLike) -> list[ImageMetrics]:
    """What `write_per_image_csv` wrote, with what `write_conditions_csv` put beside it, if it did.

    GAME and the quality of the maps, not among it, are NaN.

    Raises:
      OSError, ValueError, KeyError, TypeError: It is missing or damaged.
    """
    conditions = pathlib.Path(path).with_name(CONDITIONS)
    known = {row["id"]: row for row in _rows(conditions)} if conditions.exists() else {}
    return [_image(row, known.get(row["id"], {})) for row in _rows(path)]


def _rows(path: str | os.PathLike) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def _image(row: Mapping[str, str], conditions: Mapping[str, str]) -> ImageMetrics:
    groups = (int(row[name]) if row[name] else None for name in ("group_true", "group_pred"))
    true, pred = whole(float(row["count_true"])), float(row["count_pred"])
    more = {name: float(conditions[name]) for name in _CONDITIONS if conditions.get(name)}
    return ImageMetrics(row["id"], true, pred, *groups, game=(math.nan,) * 4, **more)


def write_metrics_json(path: str | os.PathLike, metrics: Mapping[str, Any]) -> None:
    """Writes the metrics as JSON; NaN and infinities, which JSON lacks, become null.

    The file appears in a single step.
    """
    text = json.dumps(_jsonable(metrics), indent=2, allow_nan=False) + "\n"
    work_folder.write(path, text.encode("utf-8"))


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _jsonable(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool)


def _finite_or(value: Any, other: Any) -> Any:
    return value if _is_number(value) and math.isfinite(value) else other


def _number(value: Any) -> str:
    """A number as people read it, a dash where there is none, any other value as text."""
    if value is None:
        return "–"
    if not _is_number(value):
        return str(value)
    if not math.isfinite(value):
        return "–"
    if isinstance(value, (int, np.integer)):
        return f"{value:,}"
    digits = 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"


def _people(value: float) -> str:
    """A count or an error in people; one decimal throughout, so that columns align."""
    if not math.isfinite(value):
        return "–"
    return f"{value:,}" if isinstance(value, (int, np.integer)) else f"{value:,.1f}"


def _signed(value: float) -> str:
    return f"{value:+,.1f}".replace("-", "−") if math.isfinite(value) else "–"


def _present(metrics: Mapping[str, Any], rows: Sequence[tuple[str, str, str]]) -> list[dict]:
    return [
        {"name": name, "value": _number(metrics[key]), "meaning": meaning}
        for key, name, meaning in rows
        if key in metrics
    ]


def _further(metrics: Mapping[str, Any]) -> list[dict]:
    known = {key for key, _, _ in (*_HEADLINES, *_DETAILS)} | _NOT_LISTED
    return [
        {"name": key, "value": _number(value), "meaning": ""}
        for key, value in metrics.items()
        if key not in known and _is_number(value)
    ]


def _baseline(metrics: Mapping[str, Any]) -> dict | None:
    constant = _finite_or(metrics.get(_BASELINE), None)
    if constant is None:
        return None
    mae = _finite_or(metrics.get("mae"), None)
    comparison = ""
    if mae is not None and constant > 0:
        change = 100 * (1 - mae / constant)
        comparison = f"this model: {abs(change):.0f} % {'lower' if change >= 0 else 'higher'}"
    return {"value": _number(constant), "comparison": comparison}


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _themed(plot, *args) -> dict | None:
    light = plot(*args)
    if light is None:
        return None
    return {
        "light": _data_uri(light, "png"),
        "dark": _data_uri(plot(*args, dark=True), "png"),
    }


def _curves(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict]:
    """A learning curve of each run that logged one; named where weights are of several."""
    drawn = {name: _themed(plots.learning_curve, rows) for name, rows in curves.items()}
    return [
        {"title": f"Learning curve: {name}" if len(curves) > 1 else "Learning curve", **figure}
        for name, figure in drawn.items()
        if figure
    ]


def _figures(images: Sequence[ImageMetrics]) -> list[dict]:
    if not images:
        return []
    return [
        {"title": title, **_themed(plot, images)}
        for title, plot in (
            ("Predicted and true counts", plots.scatter),
            ("Error by crowd density", plots.density_errors),
            ("Distribution of errors", plots.error_histogram),
        )
    ]


def _conditions(images: Sequence[ImageMetrics]) -> list[dict]:
    """Errors by thirds of the pictures, for the conditions that are known."""
    found = []
    for quantity, title, names in (
        ("brightness", "grey level", ("dark", "neither dark nor bright", "bright")),
        ("spacing", "heads apart by", ("close together", "neither", "far apart")),
    ):
        thirds = error_by_thirds(images, quantity)
        if thirds:
            found.append({"title": title, "thirds": list(zip(names, thirds, strict=True))})
    return found


def _show(triptych: Triptych) -> dict:
    height, width = triptych.density_true.shape
    shape = overlay.fit(height, width, _TRIPTYCH_SIDE)
    maps = [
        overlay.mean_density(np.nan_to_num(np.asarray(density, np.float32)), shape)
        for density in (triptych.density_true, triptych.density_pred)
    ]
    per_patch = np.stack(maps) * overlay.PATCH_SIDE**2
    top = overlay.scale_top(per_patch)
    picture = overlay.to_rgb(triptych.picture).resize(shape[::-1], Image.Resampling.LANCZOS)
    return {
        "id": triptych.id,
        "note": triptych.note,
        "count_true": triptych.count_true,
        "count_pred": triptych.count_pred,
        "error": triptych.count_pred - triptych.count_true,
        "picture": _data_uri(_jpeg(picture), "jpeg"),
        "maps": [_map_uri(overlay.density_picture(density, top)) for density in maps],
        "top": f"{'≥ ' if per_patch.max() > top else ''}{top:,.6g}",
    }


def _jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=82, optimize=True)
    return buffer.getvalue()


def _map_uri(picture: Image.Image) -> str:
    """PNG, which is exact, unless the map is so noisy that JPEG is smaller."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    png, jpeg = buffer.getvalue(), _jpeg(picture)
    return _data_uri(jpeg, "jpeg") if len(jpeg) < len(png) else _data_uri(png, "png")
