"""What a work folder tells of its run: config, logged numbers, checkpoints, results."""

import csv
import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from cmtl_jax import checkpoints as checkpoints_lib
from cmtl_jax import config as base_config
from cmtl_jax import console, work_folder
from cmtl_jax.doctor.finding import ERROR, NOTE, WARNING, Finding
from cmtl_jax.errors import UserError
from cmtl_jax.input_pipeline.count_groups import CountGroups

_AGAIN = "evaluate again with python -m cmtl_jax.main --mode=eval"


@dataclasses.dataclass(frozen=True, eq=False)
class Results:
    """One evaluation.

    Attributes:
        name: of its folder, such as 'shanghaitech-part_b-test'.
        metrics: content of metrics.json.
        true: [N] true counts of its pictures.
        predicted: [N] predicted counts.
        groups_true: [N] count groups, -1 where there is none.
        groups_predicted: [N] likewise.
    """

    name: str
    metrics: Mapping[str, Any]
    true: np.ndarray
    predicted: np.ndarray
    groups_true: np.ndarray
    groups_predicted: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class History:
    """A run.

    Attributes:
        config: of the run; defaults where config.json is missing.
        train: lines of metrics.jsonl with losses, by step.
        validations: likewise, with counts of the held-out pictures.
        steps: of the checkpoints.
        best: step and validation MAE of the best checkpoint.
        groups: count groups of the newest checkpoint; None without one.
        results: evaluations.
        findings: what could not be read.
    """

    config: ml_collections.ConfigDict
    train: Sequence[Mapping[str, Any]]
    validations: Sequence[Mapping[str, Any]]
    steps: Sequence[int]
    best: tuple[int, float] | None
    groups: CountGroups | None
    results: Sequence[Results]
    findings: Sequence[Finding]


def values(lines: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """One number of each line, float64; NaN where it is missing or was not finite."""
    return np.array([_number(line.get(name)) for line in lines], np.float64)


def _number(value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else math.nan


def read(workdir: pathlib.Path) -> History:
    """Reads a work folder; what is damaged becomes a finding."""
    findings: list[Finding] = []
    config = _config(workdir, findings)
    lines = _lines(workdir / "metrics.jsonl", findings)
    steps, best, groups = _checkpoints(workdir, findings)
    results = [_results(path.parent, findings) for path in workdir.glob("eval/*/metrics.json")]
    return History(
        config=config,
        train=[line for line in lines if "train/loss" in line],
        validations=[line for line in lines if "val/mae" in line],
        steps=steps,
        best=best,
        groups=groups,
        results=sorted(filter(None, results), key=lambda one: one.name),
        findings=findings,
    )


def _config(workdir: pathlib.Path, findings: list[Finding]) -> ml_collections.ConfigDict:
    """The run's config; keys that came later, and all without the file, have their defaults."""
    config, path = base_config.base(), workdir / "config.json"
    try:
        config.update(ml_collections.ConfigDict(json.loads(path.read_text(encoding="utf-8"))))
    except FileNotFoundError:
        pass
    except Exception as error:  # noqa: BLE001  ConfigDict raises many kinds
        what = f"{path} is damaged ({type(error).__name__}: {console.one_line(error)})"
        advice = "defaults are taken for it here; restore it, or run the training command again"
        findings.append(Finding(ERROR, "run.config", what, advice))
        return base_config.base()
    return config


def _lines(path: pathlib.Path, findings: list[Finding]) -> list[dict]:
    """Logged lines in order of their steps."""
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        lines = [line for line in work_folder.read_jsonl(path) if isinstance(line, dict)]
    except (OSError, UnicodeDecodeError) as error:
        what = f"{path} cannot be read ({error})"
        findings.append(Finding(ERROR, "run.log", what, "restore it from a copy, or remove it"))
        return []
    known = [line for line in lines if math.isfinite(_number(line.get("step")))]
    lost = len(text.splitlines()) - len(known)
    if lost:
        what = f"{lost} lines of {path} are damaged and left out"
        advice = "one line is what a crash leaves; for more, look for a second run in this folder"
        findings.append(Finding(NOTE if lost == 1 else WARNING, "run.log", what, advice))
    return sorted(known, key=lambda line: line["step"])


def _checkpoints(
    workdir: pathlib.Path, findings: list[Finding]
) -> tuple[list[int], tuple[int, float] | None, CountGroups | None]:
    if not (workdir / checkpoints_lib.FOLDER).is_dir():
        return [], None, None
    reader, steps = None, []
    try:
        reader = checkpoints_lib.Checkpoints(workdir, read_only=True)
        steps = reader.steps()
        if not steps:
            return [], None, None
        return steps, reader.best(), CountGroups.from_json(reader.about(steps[-1])["groups"])
    except (UserError, AttributeError, KeyError, TypeError) as error:
        what = str(error) if isinstance(error, UserError) else f"{workdir}: not of this program"
        advice = "run the training command again: it goes on from an older one and puts this aside"
        findings.append(Finding(ERROR, "run.checkpoint", what, advice))
        return steps, None, None
    finally:
        if reader is not None:
            reader.close()


def _results(folder: pathlib.Path, findings: list[Finding]) -> Results | None:
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        with (folder / "per_image.csv").open(
            newline="", encoding="utf-8", errors="surrogateescape"
        ) as file:
            rows = list(csv.DictReader(file))
        if not isinstance(metrics, dict) or not rows:
            raise ValueError("no numbers in it")
        return Results(
            folder.name,
            metrics,
            np.array([float(row["count_true"]) for row in rows]),
            np.array([float(row["count_pred"]) for row in rows]),
            np.array([int(row["group_true"] or -1) for row in rows]),
            np.array([int(row["group_pred"] or -1) for row in rows]),
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        what = f"the results in {folder} are damaged ({type(error).__name__}: {error})"
        findings.append(Finding(ERROR, "run.results", what, _AGAIN))
        return None
