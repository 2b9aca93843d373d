"""What is found on the logged numbers of a training run."""

import math
import pathlib
from collections.abc import Iterator

import numpy as np
import scipy.special

from cmtl_jax.doctor.finding import ERROR, NOTE, OK, WARNING, Finding
from cmtl_jax.doctor.history import History, values
from cmtl_jax.input_pipeline.count_groups import CountGroups
from cmtl_jax.training.guard import ADVICE, DeadOutputGuard
from cmtl_jax.training.progress import duration

_LOWER_RATE = "lower --config.optimizer.learning_rate; the best checkpoint is kept"

_EARLY = 300  # steps before which a group head need not have learned anything
_LEARNED = 0.03  # by which a group head's accuracy is above that of the best constant answer
_BETTER = 0.95  # or its loss, as a share of the loss of the best answer without a look
_OUTWEIGHS = 2.0  # weighted group loss / density loss
_HARDLY = 1e-4  # likewise; the authors' code starts at 0.2
_FALLING = 0.03  # of the validation MAE, in the last third of the run
_WORSE = 1.1  # times the best validation MAE: overfitted, if the training loss still falls
_DIVERGED = 1.5  # times the best validation MAE, if it does not
_RISEN = 2.0  # times the lowest training loss
_WINDOWS = 10  # of logged lines that the training loss is averaged over
_VALIDATING = 0.5  # of the time
_SLOWER = 0.6  # times the speed at the start


def findings(workdir: pathlib.Path, history: History) -> Iterator[Finding]:
    """Progress, numbers that are not finite, dead output, group head, losses, curve, speed."""
    yield from _progress(workdir, history)
    yield from _finite(history)
    yield from _alive(history)
    yield from _groups(history)
    yield from _balance(history)
    yield from _curve(history)
    yield from _speed(history)


def _last(history: History, name: str, share: float = 0.25) -> np.ndarray:
    """The finite ones of the last logged values, a quarter of all."""
    number = max(1, math.ceil(len(history.train) * share))
    found = values(history.train[-number:], name)
    return found[np.isfinite(found)]


def _progress(workdir: pathlib.Path, history: History) -> Iterator[Finding]:
    done, wanted = int(history.train[-1]["step"]), int(history.config.train.steps)
    what = f"{done} of {wanted} steps are logged"
    if done < wanted:
        yield Finding(NOTE, "run.steps", what, "the same command goes on")
    else:
        yield Finding(OK, "run.steps", what)
    aside = sorted(path.name for path in workdir.glob("damaged_checkpoint_*"))
    if aside:
        what = f"{len(aside)} damaged checkpoints were put aside"
        yield Finding(NOTE, "run.checkpoint", what, "they can be removed", aside)
    if history.steps:
        best = "" if history.best is None else ", the best {0} (MAE {1:.1f})".format(*history.best)
        what = f"checkpoints of the steps {', '.join(map(str, history.steps))}{best}"
        yield Finding(OK, "run.checkpoint", what)
    elif not any(finding.name == "run.checkpoint" for finding in history.findings):
        every = history.config.train.eval_every
        what = f"there is no checkpoint; one is saved every {every} steps"
        yield Finding(NOTE, "run.checkpoint", what, "" if done <= every else "was it removed?")


def _finite(history: History) -> Iterator[Finding]:
    for lines in (history.train, history.validations):
        for line in lines:
            names = ("train/loss", "train/grad_norm", "val/mae", "val/mean_count_pred")
            bad = [name for name in names if name in line and not np.isfinite(values([line], name))]
            if bad:
                what = f"{' and '.join(bad)} not finite at step {line['step']}"
                advice = (
                    "lower --config.optimizer.learning_rate, or set --config.optimizer.grad_clip=1"
                )
                yield Finding(ERROR, "run.finite", what, advice)
                return
    yield Finding(OK, "run.finite", "all losses, gradients and counts are finite")


def _alive(history: History) -> Iterator[Finding]:
    """Whether the density output is dead or constant; see `training.guard`."""
    density, true = _last(history, "train/density"), _last(history, "train/density_true")
    square = _last(history, "train/density_square")
    gradient = _last(history, "train/first_layer_grad_norm")
    if not len(density) or not len(square):
        return
    mean = density.mean()
    step = history.train[-1]["step"]
    least = DeadOutputGuard.VANISHED * true.mean() if len(true) else 0.0
    predicted = values(history.validations[-1:], "val/mean_count_pred")
    people = values(history.validations[-1:], "val/mean_count_true")
    if mean <= least or (predicted <= DeadOutputGuard.VANISHED * people).any():
        what = f"the density output is dead: {mean:.1e} people a pixel up to step {step}"
        if len(true):
            what += f", the truth is {true.mean():.1e}"
        yield Finding(ERROR, "run.dead", what, f"it will not recover: {ADVICE}")
    elif len(gradient) and not gradient.any():
        what = f"the density output is dead: no gradient in the first layer up to step {step}"
        yield Finding(ERROR, "run.dead", what, f"it will not recover: {ADVICE}")
    elif (deviation := math.sqrt(max(square.mean() - mean**2, 0))) < (
        DeadOutputGuard.CONSTANT * mean
    ):
        what = f"the density output is constant: {mean:.1e} +- {deviation:.0e} people a pixel"
        yield Finding(ERROR, "run.constant", what, ADVICE)
    else:
        what = f"the density output is alive: {mean:.1e} +- {deviation:.0e} people a pixel"
        what += f", the truth is {true.mean():.1e}" if len(true) else ""
        yield Finding(OK, "run.dead", what)


def _groups(history: History) -> Iterator[Finding]:
    """Whether the head of count groups has learned more than an answer without a look."""
    accuracy, loss = _last(history, "train/group_accuracy"), _last(history, "train/group_loss")
    if not len(accuracy) or not len(loss):
        return
    number, blind = history.config.groups.number, math.nan
    chance, constant = 1 / number, f"one of {number} groups at random"
    if history.groups is not None and sum(history.groups.histogram):
        chance = max(history.groups.histogram) / sum(history.groups.histogram)
        constant = "always the most frequent group"
        blind = blind_loss(history.groups, history.config.loss.group_loss)
    right = f"{accuracy.mean():.0%} of the crops"
    what = f"the group head is right for {right}, {constant} for {chance:.0%}"
    if math.isfinite(blind):
        what += f"; its loss is {loss.mean():.3g}, of the best answer without a look {blind:.3g}"
    step = history.train[-1]["step"]
    if accuracy.mean() >= chance + _LEARNED or loss.mean() < _BETTER * blind:
        yield Finding(OK, "run.groups", what)
    elif step < _EARLY:
        yield Finding(NOTE, "run.groups", what, f"it is early, step {step}: look again later")
    else:
        advice = (
            "it is stuck: raise --config.optimizer.head_factor or --config.loss.group_weight, or "
            "take --config.groups.binning=quantile"
        )
        yield Finding(WARNING, "run.groups", what, advice)


def blind_loss(groups: CountGroups, kind: str) -> float:
    """The least group loss that the same answer for every crop can have.

    Args:
        groups: with the number of crops of each and their class weights.
        kind: of `losses.group_loss`.
    """
    share = np.array(groups.histogram, np.float64) / sum(groups.histogram)
    weights = np.array(groups.class_weights, np.float64)
    if kind == "softmax_ce":
        weighted = share * weights
        answer = weighted / weighted.sum()
        return float(-(weighted * np.log(answer, where=answer > 0, out=np.zeros_like(share))).sum())
    # Each output by itself is best at its group's share; for softmax outputs these sum to 1, too.
    entropy = scipy.special.entr(share) + scipy.special.entr(1 - share)
    return float((weights * entropy).mean())


def _balance(history: History) -> Iterator[Finding]:
    """How the two losses weigh against each other."""
    density, group = _last(history, "train/density_loss"), _last(history, "train/group_loss")
    if not len(density) or not len(group) or density.mean() <= 0:
        return
    weight = history.config.loss.group_weight
    ratio = weight * group.mean() / density.mean()
    what = f"weighted group loss / density loss is {ratio:.2g} (weight {weight:g})"
    if ratio > _OUTWEIGHS:
        advice = (
            "the groups outweigh the density: lower --config.loss.group_weight, or raise "
            "--config.loss.density_scale for pictures of few people"
        )
        yield Finding(WARNING, "run.losses", what, advice)
    elif ratio < _HARDLY:
        advice = "the groups hardly matter; raise --config.loss.group_weight if they should"
        yield Finding(NOTE, "run.losses", what, advice)
    else:
        yield Finding(OK, "run.losses", what)


def _curve(history: History) -> Iterator[Finding]:
    """Where the losses are heading."""
    loss = _windows(values(history.train, "train/density_loss"))
    if len(loss) and loss[-1] > _RISEN * loss.min():
        what = f"the density loss has risen to {loss[-1] / loss.min():.1f} times its lowest mean"
        yield Finding(WARNING, "run.diverged", what, _LOWER_RATE)
    lines = [line for line in history.validations if np.isfinite(values([line], "val/mae"))]
    maes, steps = values(lines, "val/mae"), [line["step"] for line in lines]
    if len(maes) < 3:
        what = f"{len(maes)} validations are too few for a learning curve"
        yield Finding(NOTE, "run.curve", what)
        return
    best = int(maes.argmin())
    before = maes[: math.ceil(len(maes) * 2 / 3)].min()
    what = (
        f"validation MAE {maes[0]:.1f} at first, {maes[-1]:.1f} at last, best {maes[best]:.1f} at "
        f"step {steps[best]}"
    )
    worse = maes[-1] / maes[best]
    if worse > _WORSE and _still_falls(history, steps[best]):
        advice = (
            "it overfits, the training loss still falls: more pictures or fewer steps; the best "
            "checkpoint is kept and used"
        )
        yield Finding(WARNING, "run.overfitting", what, advice)
    elif worse > _DIVERGED:
        yield Finding(WARNING, "run.diverged", what, _LOWER_RATE)
    elif best == len(maes) - 1 and maes[-1] < (1 - _FALLING) * before:
        ended = steps[-1] >= history.config.train.steps
        advice = "train longer: more --config.train.steps" if ended else "let it go on"
        yield Finding(NOTE, "run.curve", f"{what}: still falling", advice)
    elif maes[best] > (1 - _FALLING) * maes[0]:
        advice = "it does not learn; check the data (python -m cmtl_jax.doctor data DIR)"
        yield Finding(WARNING, "run.flat", what, advice)
    else:
        yield Finding(OK, "run.curve", what)


def _windows(numbers: np.ndarray) -> np.ndarray:
    """Means of consecutive parts of a row, which are less noisy; none of a short row."""
    numbers = numbers[np.isfinite(numbers)]
    if len(numbers) < 3 * _WINDOWS:
        return np.zeros(0)
    return np.array([part.mean() for part in np.array_split(numbers, _WINDOWS)])


def _still_falls(history: History, step: int) -> bool:
    """Whether the training loss after a step is below that of as long a time before it."""
    after = [line for line in history.train if line["step"] > step]
    before = [line for line in history.train if line["step"] <= step][-len(after) :]
    losses = [values(lines, "train/density_loss") for lines in (before, after)]
    if not all(np.isfinite(loss).any() for loss in losses):
        return False
    return bool(np.nanmean(losses[1]) < np.nanmean(losses[0]))


def _speed(history: History) -> Iterator[Finding]:
    rate = values(history.train, "train/steps_per_second")
    rate = rate[np.isfinite(rate) & (rate > 0)]
    if not len(rate):
        return
    quarter = max(1, len(rate) // 4)
    first, last = np.median(rate[:quarter]), np.median(rate[-quarter:])
    batch = history.config.train.batch_size
    what = f"{np.median(rate):.2f} steps, {np.median(rate) * batch:.1f} crops a second"
    validating, training = _times(history)
    total = validating + training
    if total > 0:
        what += f"; {duration(training)} of training, {duration(validating)} of validation"
    if last < _SLOWER * first:
        advice = "slower at the end than at first: look for other programs, heat, or full memory"
        yield Finding(NOTE, "run.speed", f"{what}; {first:.2f} then {last:.2f} steps", advice)
    elif validating > _VALIDATING * total > 0:
        advice = "raise --config.train.eval_every or --config.eval.batch_size"
        yield Finding(NOTE, "run.speed", what, advice)
    else:
        yield Finding(OK, "run.speed", what)


def _times(history: History) -> tuple[float, float]:
    """Seconds of validation, and of training as its logged speeds say; pauses do not count."""
    times = {line["step"]: values([line], "time")[0] for line in history.train}
    spent = [
        values([line], "time")[0] - times[line["step"]]
        for line in history.validations
        if line["step"] in times
    ]
    steps = np.diff([0, *(line["step"] for line in history.train)])
    rate = values(history.train, "train/steps_per_second")
    known = np.isfinite(rate) & (rate > 0)
    return float(np.nansum(np.clip(spent, 0, None))), float((steps[known] / rate[known]).sum())


