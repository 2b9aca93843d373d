"""Checks a folder of raw data before anything is prepared or trained from it."""

import pathlib
from collections.abc import Iterator, Sequence

import ml_collections

from cmtl_jax import config as base_config
from cmtl_jax.datasets.density_map import DensityRule
from cmtl_jax.doctor import layout, picture_checks, point_checks, twins
from cmtl_jax.doctor.finding import NOTE, Finding
from cmtl_jax.doctor.survey import Survey, survey


def check(
    folder: pathlib.Path, config: ml_collections.ConfigDict | None = None
) -> Iterator[Finding]:
    """Findings on a raw folder, data set by data set; bad files never end it.

    Args:
        folder: as for --config.dataset.raw_dir.
        config: names the data set, the rule of its density maps and the network's input; without
            one, all data sets below the folder are checked with the defaults.

    Raises:
        UserError: the config's data set has no raw folder.
    """
    sets, findings = layout.recognise(folder, config)
    yield from findings
    config = config or base_config.base()
    rule = DensityRule(**config.density)
    surveys = []
    for one in sets:
        surveys.append(survey(one.name, one.published, folder, one.found.splits, rule))
        yield from picture_checks.findings(surveys[-1], config)
        yield from point_checks.findings(surveys[-1])
    if len(surveys) > 1:
        yield from _shared_between(surveys)


def _shared_between(surveys: Sequence[Survey]) -> Iterator[Finding]:
    """Pictures of one data set that are in another, too: a test on one must not train on it."""
    seen = [(one, entry) for one in surveys for entry in one.seen]
    pairs = [
        " = ".join(one.shown(entry.files[0]) for one, entry in (seen[i], seen[j]))
        for i, j in twins.similar([entry.picture.thumbnail for _, entry in seen])
        if seen[i][0] is not seen[j][0]
    ]
    if pairs:
        what = f"{len(pairs)} pairs of nearly the same picture are in two of the data sets"
        advice = "do not test on one what was trained on the other"
        yield Finding(NOTE, "pictures.shared", what, advice, pairs)
