"""Checks a training run from what its work folder holds."""

import dataclasses
import pathlib
from collections.abc import Iterator

from cmtl_jax.doctor import result_checks, training_checks
from cmtl_jax.doctor.finding import ERROR, NOTE, Finding
from cmtl_jax.doctor.history import History, read


def check(workdir: pathlib.Path) -> Iterator[Finding]:
    """Findings on a work folder; of a cross-validation, fold by fold and on all together."""
    if not workdir.is_dir():
        what = f"{workdir} {'is not a folder' if workdir.exists() else 'does not exist'}"
        yield Finding(ERROR, "run", what, "name the --workdir of a run")
        return
    folds = sorted(path for path in workdir.glob("fold_*") if path.is_dir())
    for fold in folds:
        for finding in _check(fold, read(fold)):
            yield dataclasses.replace(finding, subject=fold.name)
    history = read(workdir)
    if not folds or history.train or history.results:
        yield from _check(workdir, history)


def _check(workdir: pathlib.Path, history: History) -> Iterator[Finding]:
    yield from history.findings
    if history.train:
        yield from training_checks.findings(workdir, history)
    for results in history.results:
        yield from result_checks.findings(results)
    if history.results or any(found.name == "run.results" for found in history.findings):
        return
    if history.train:
        advice = "the end of the training does; before, python -m cmtl_jax.main --mode=eval"
        yield Finding(NOTE, "run.results", "nothing is evaluated yet", advice)
    elif not history.findings:
        what = f"{workdir} holds no metrics.jsonl with steps and no eval/*/metrics.json"
        yield Finding(ERROR, "run", what, "name the --workdir of a run that has begun")
