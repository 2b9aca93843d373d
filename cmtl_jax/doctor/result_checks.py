"""What is found on the counts of an evaluation."""

import math
from collections.abc import Iterator

import numpy as np

from cmtl_jax.doctor.finding import ERROR, NOTE, OK, WARNING, Finding
from cmtl_jax.doctor.history import Results, values
from cmtl_jax.training.guard import ADVICE, DeadOutputGuard

_USELESS, _WEAK = 1.0, 0.8  # times the MAE of the best constant answer
_LOW, _HIGH = 0.75, 1.33  # predicted / true people in the densest quarter of the pictures
_CONSTANT = 0.05  # deviation of the predicted counts / of the true ones
_LEAST_PICTURES = 8


def findings(results: Results) -> Iterator[Finding]:
    """Whether the counts differ from picture to picture, are of use, and hold for dense crowds."""
    mae = values([results.metrics], "mae")[0]
    if not (math.isfinite(mae) and np.isfinite(results.predicted).all()):
        what = f"{results.name}: counts are not finite"
        yield Finding(ERROR, "run.finite", what, "the weights are spoilt; train again")
        return
    many = len(results.true) >= _LEAST_PICTURES
    constant = list(_constant(results)) if many else []
    yield from constant
    if not constant:
        yield from _useful(results, mae)
        if many:
            yield from _dense(results)
    if many:
        yield from _one_group(results)


def _useful(results: Results, mae: float) -> Iterator[Finding]:
    """Whether the counts beat the best constant answer."""
    constant = values([results.metrics], "best_constant_mae")[0]
    if not math.isfinite(constant):
        return
    what = f"{results.name}: MAE {mae:.1f}, the same answer for every picture has {constant:.1f}"
    if mae >= _USELESS * constant:
        yield Finding(WARNING, "run.useful", what, "nothing useful is learned yet: train longer")
    elif mae >= _WEAK * constant:
        yield Finding(NOTE, "run.useful", what, "little better than no network: train longer")
    else:
        yield Finding(OK, "run.useful", what)


def _constant(results: Results) -> Iterator[Finding]:
    """Pictures that all get the same count, or none."""
    if results.predicted.sum() <= DeadOutputGuard.VANISHED * results.true.sum():
        what = f"{results.name}: the counts of all pictures are 0"
        yield Finding(ERROR, "run.dead", what, ADVICE)
    elif results.predicted.std() < _CONSTANT * results.true.std():
        counts, true = results.predicted, results.true
        what = (
            f"{results.name}: all pictures get about the same count, {counts.mean():.0f} +- "
            f"{counts.std():.0f} (true {true.mean():.0f} +- {true.std():.0f})"
        )
        yield Finding(ERROR, "run.constant", what, ADVICE)


def _dense(results: Results) -> Iterator[Finding]:
    """How the densest quarter of the pictures comes out."""
    densest = results.true.argsort(kind="stable")[-(-(-len(results.true) // 4)) :]
    true, predicted = results.true[densest].sum(), results.predicted[densest].sum()
    if true <= 0:
        return
    what = (
        f"{results.name}: the densest quarter of the pictures, {true / len(densest):.0f} people "
        f"on average, comes out at {predicted / true:.0%}"
    )
    if predicted < _LOW * true:
        advice = (
            "dense crowds are underestimated: train longer, and with more pictures of such crowds; "
            "heads only a few pixels large need larger pictures"
        )
        yield Finding(WARNING, "run.dense", what, advice)
    elif predicted > _HIGH * true:
        advice = "dense crowds are overestimated: look at the report's pictures"
        yield Finding(WARNING, "run.dense", what, advice)
    else:
        yield Finding(OK, "run.dense", what)


def _one_group(results: Results) -> Iterator[Finding]:
    """A group head that puts all pictures into one group, which is not that of most."""
    true, predicted = results.groups_true, results.groups_predicted
    if predicted.min() >= 0 and np.ptp(predicted) == 0 and (true == predicted).mean() < 0.5:
        what = f"{results.name}: all {len(true)} pictures are put into count group {predicted[0]}"
        advice = "the group head answers a constant: train longer"
        yield Finding(WARNING, "run.groups", what, advice)
