"""What is found on the head points of a data set."""

import collections
import math
from collections.abc import Iterator

import numpy as np

from cmtl_jax.datasets import annotations
from cmtl_jax.datasets.density_map import apply_outside
from cmtl_jax.doctor import alignment, twins
from cmtl_jax.doctor.finding import ERROR, NOTE, OK, WARNING, Finding
from cmtl_jax.doctor.survey import Entry, Survey
from cmtl_jax.errors import UserError

_FEW_OUTSIDE = 0.02  # of all points; as released, ShanghaiTech has 0.2 % (A) and 0.6 % (B)
_HALF_OUTSIDE = 0.5  # of one picture's points; there at most 19 %
_TELLING = 4  # times as many points outside as with x and y exchanged
_FEW_TWICE = 0.01  # of all points; as released, ShanghaiTech has 0.1 %
_MANY_TWICE = 0.2  # of one picture's points; there at most 7 %
_LEAST = 3  # points of a picture that has a say
_CORNER = 0.6  # of both sides; points of all pictures that reach no further are of smaller ones
_LEAST_CORNER = 5  # pictures for that
_DENSITY = 0.01  # people that the map of a picture may be off by
_FEW_PICTURES = 10
_KNOWN_ERRORS = {  # desenzhou/ShanghaiTechDataset#2
    "shanghaitech/part_b": {
        "train": ("IMG_108", "IMG_202", "IMG_217", "IMG_296", "IMG_396"),
        "test": ("IMG_131", "IMG_175", "IMG_185", "IMG_283", "IMG_303"),
    }
}
_CLOSE = 4.0  # pixels between people; the network pools them to one place


def findings(survey: Survey) -> Iterator[Finding]:
    """Where the points lie, how many there are, what density maps they give."""
    if not survey.annotated:
        return
    yield from _known_errors(survey)
    yield from _declared(survey)
    yield from _copied(survey)
    yield from _place(survey)
    yield from _twice(survey)
    yield from _density(survey)
    yield from _counts(survey)
    yield from _spacing(survey)


def _known_errors(survey: Survey) -> Iterator[Finding]:
    known = _KNOWN_ERRORS.get(survey.name, {}) if survey.published else {}
    wrong = [entry for entry in survey.annotated if entry.id in known.get(entry.split, ())]
    if wrong:
        what = f"{len(wrong)} annotations are known to be wrong or to leave people out, as released"
        advice = "nothing is corrected, so that results compare"
        yield survey.finding(
            NOTE, "annotations.known", what, advice, wrong, annotations=True
        )


def _declared(survey: Survey) -> Iterator[Finding]:
    stated = [entry for entry in survey.annotated if entry.declared is not None]
    wrong = [entry for entry in stated if entry.declared != len(entry.points)]
    if wrong:
        first = wrong[0]
        what = (
            f"{len(wrong)} annotation files state another number of heads than they hold points, "
            f"the first {first.declared} for {len(first.points)}"
        )
        yield survey.finding(
            WARNING, "points.number", what, "the points count; look whether some are missing",
            wrong, annotations=True,
        )  # fmt: skip
    elif stated:
        what = f"all {len(stated)} stated numbers of heads are the numbers of points"
        yield survey.finding(OK, "points.number", what)


def _copied(survey: Survey) -> Iterator[Finding]:
    """The same points for different pictures."""
    by_points = collections.defaultdict(list)
    for entry in survey.sound:
        if len(entry.points) >= _LEAST:
            by_points[entry.points.tobytes()].append(entry)
    copied = [
        entry
        for group in by_points.values()
        if len({entry.picture.digest for entry in group}) > 1
        for entry in group
    ]
    if copied:
        what = f"{len(copied)} different pictures share their head points with another"
        advice = "an annotation was saved under two names; annotate one of them again"
        yield survey.finding(
            WARNING, "annotations.same", what, advice, copied, annotations=True
        )


def _place(survey: Survey) -> Iterator[Finding]:
    """Where the points lie: in pixels (x, y) of their picture, as a viewer shows it, inside."""
    sound = survey.sound
    fractions = [entry for entry in sound if _fractions(entry)]
    swapped = [e for e in sound if e not in fractions and _only_fits_swapped(e)]
    if _mostly_fit_swapped(sound):
        swapped = [entry for entry in sound if entry.picture.height != entry.picture.width]
    # Swapping is what turning a picture by 90 degrees does to its sides.
    turned = [entry for entry in swapped if entry.picture.kind.orientation >= 5]
    swapped = [entry for entry in swapped if entry not in turned]
    if fractions:
        what = f"the points of {len(fractions)} pictures are fractions from 0 to 1, not pixels"
        advice = "multiply x by the picture's width and y by its height"
        yield survey.finding(ERROR, "points.scale", what, advice, fractions, annotations=True)
    if turned:
        what = f"the points of {len(turned)} pictures fit them as stored, not as EXIF turns them"
        advice = "annotate them as a viewer shows them, or remove the EXIF orientation"
        yield survey.finding(ERROR, "points.rotated", what, advice, turned, annotations=True)
    if swapped:
        what = (
            f"x and y are swapped in {len(swapped)} annotations: many points lie outside the "
            "picture, hardly any with x and y exchanged"
        )
        advice = "write x first"
        yield survey.finding(ERROR, "points.swapped", what, advice, swapped, annotations=True)
    told = {id(entry) for entry in (*fractions, *turned, *swapped)}
    rest = [entry for entry in sound if id(entry) not in told]
    far = [entry for entry in rest if _outside(entry) > _HALF_OUTSIDE * len(entry.points)]
    yield from _beyond(survey, rest, far)
    corner = _corner(rest)
    if corner:
        advice = "if the pictures were enlarged after annotating, scale the points as well"
        yield survey.finding(WARNING, "points.scale", corner, advice)
    elif not far and len(rest) > len(told):
        yield from _aligned(survey, rest)


def _fractions(entry: Entry) -> bool:
    points = entry.points
    return len(points) >= _LEAST and points.min() >= 0 and points.max() <= 1


def _only_fits_swapped(entry: Entry) -> bool:
    """Whether preparation would refuse the annotation for it."""
    try:
        annotations.check_points(entry.points, entry.picture.height, entry.picture.width, "")
    except UserError:
        return True
    return False


def _mostly_fit_swapped(entries: list[Entry]) -> bool:
    """Whether far fewer of all points would lie outside with x and y exchanged."""
    heads = sum(len(entry.points) for entry in entries)
    as_is = sum(_outside(entry) for entry in entries)
    return as_is > _FEW_OUTSIDE * heads and as_is > _TELLING * sum(
        _outside(entry, swapped=True) for entry in entries
    )


def _outside(entry: Entry, *, swapped: bool = False) -> int:
    """How many points lie outside the picture."""
    points = entry.points[:, ::-1] if swapped else entry.points
    return int((~alignment.inside(points, entry.picture.height, entry.picture.width)).sum())


def _beyond(survey: Survey, entries: list[Entry], far: list[Entry]) -> Iterator[Finding]:
    """Points outside their pictures; `far` are entries with most of theirs there."""
    outside = [entry for entry in entries if _outside(entry)]
    total = sum(_outside(entry) for entry in outside)
    heads = sum(len(entry.points) for entry in entries)
    if not total:
        yield survey.finding(OK, "points.outside", f"all {heads:,} points lie in their pictures")
        return
    share = total / heads
    what = f"{total:,} of {heads:,} points ({share:.2%}) in {len(outside)} pictures lie outside"
    rule = {"drop": "they are left out", "clamp": "they are moved to the nearest pixel inside"}
    fate = rule.get(survey.rule.outside, "they are moved inside as in the authors' code")
    if share <= _FEW_OUTSIDE and not far:
        advice = f"{fate} (--config.density.outside={survey.rule.outside})"
        yield survey.finding(NOTE, "points.outside", what, advice, outside, annotations=True)
        return
    advice = "look whether the pictures were made smaller, cut or exchanged after annotating"
    if far:
        x, y = far[0].points.max(axis=0)
        size = f"{far[0].picture.width} x {far[0].picture.height}"
        advice += f" (points reach to {x:.0f}, {y:.0f} in a picture of {size})"
    advice += f"; else {fate}"
    yield survey.finding(
        WARNING, "points.outside", what, advice, far or outside, annotations=True
    )


def _corner(entries: list[Entry]) -> str:
    """What to say of points that never come near the right and lower ends of any picture."""
    reach = np.array([
        entry.points.max(axis=0) / (entry.picture.width, entry.picture.height)
        for entry in entries
        if len(entry.points) >= _LEAST
    ])  # fmt: skip
    if len(reach) < _LEAST_CORNER or (most := reach.max(axis=0)).max() >= _CORNER:
        return ""
    return (
        f"no point lies beyond {most[0]:.0%} of the width and {most[1]:.0%} of the height of its "
        "picture"
    )


def _aligned(survey: Survey, entries: list[Entry]) -> Iterator[Finding]:
    """Whether points lie where the pictures have texture, and not better elsewhere."""
    able = [e for e in entries if len(e.points) - _outside(e) >= alignment.LEAST_POINTS]
    chosen = [able[i] for i in twins.scenes([entry.picture.thumbnail for entry in able])]
    if len(chosen) < alignment.LEAST_SCENES:
        what = (
            f"{len(chosen)} different scenes with {alignment.LEAST_POINTS} heads or more are too "
            "few to tell from the pictures whether the points are swapped, mirrored or turned"
        )
        advice = "look at some overlays"
        yield survey.finding(NOTE, "points.place", what, advice)
        return
    certainty = {}
    for name, move in alignment.MOVES.items():
        gains = [
            alignment.gain(e.picture.texture, e.points, e.picture.height, e.picture.width, move)
            for e in chosen
        ]
        gains = [gain for gain in gains if not math.isnan(gain)]
        if len(gains) >= alignment.LEAST_SCENES:
            certainty[name] = alignment.standard_errors(gains)
    worst = min(certainty, key=certainty.get, default=None)
    if worst is not None and certainty[worst] < -alignment.CERTAIN:
        swapped = worst == "swapped"
        what = (
            f"{'with x and y exchanged' if swapped else f'{worst},'} the points lie on the "
            f"textured parts of the pictures, as crowds do, and as they are they do not "
            f"({-certainty[worst]:.1f} standard errors, {len(chosen)} scenes)"
        )
        advice = "look at some overlays; " + (
            "write x first" if swapped else "the pictures may have been changed after annotating"
        )
        name = "points.swapped" if swapped else "points.mirrored"
        yield survey.finding(WARNING, name, what, advice)
        return
    if len(chosen) >= alignment.LEAST_OTHERS and (own := _own(chosen)) < alignment.DOUBTFUL:
        what = (
            "the points fit other pictures about as well as their own "
            f"({own:.1f} standard errors better, {len(chosen)} scenes)"
        )
        advice = "look at some overlays; annotations may be paired with the wrong pictures"
        yield survey.finding(WARNING, "points.pairing", what, advice)
        return
    rank = np.mean([
        alignment.fit(e.picture.texture, e.points, e.picture.height, e.picture.width)
        for e in chosen
    ])  # fmt: skip
    what = (
        f"points lie on the textured parts of the pictures (mean rank {rank:.2f}, by chance 0.50), "
        f"not better swapped, mirrored or turned ({len(chosen)} scenes)"
    )
    yield survey.finding(OK, "points.place", what)


def _own(chosen: list[Entry]) -> float:
    """By how many standard errors points fit their own picture better than the next one's do."""
    gains = []
    for entry, other in zip(chosen, chosen[1:] + chosen[:1], strict=True):
        picture = entry.picture
        scale = np.divide(
            (picture.width, picture.height), (other.picture.width, other.picture.height)
        )
        size = (picture.height, picture.width)
        gain = alignment.fit(picture.texture, entry.points, *size) - alignment.fit(
            picture.texture, other.points * scale, *size
        )
        if not math.isnan(gain):
            gains.append(gain)
    return alignment.standard_errors(gains)


def _twice(survey: Survey) -> Iterator[Finding]:
    number, entries, most = 0, [], []
    for entry in survey.annotated:
        again = len(entry.points) - len(np.unique(entry.points, axis=0))
        number += again
        if again:
            entries.append(entry)
        if again >= _LEAST and again > _MANY_TWICE * len(entry.points):
            most.append(entry)
    if not number:
        yield survey.finding(OK, "points.twice", "no point is there twice")
        return
    share = number / survey.heads
    what = f"{number:,} of {survey.heads:,} points ({share:.2%}) are in a file twice"
    if share <= _FEW_TWICE and not most:
        advice = "each counts as a person"
        yield survey.finding(NOTE, "points.twice", what, advice, entries, annotations=True)
    else:
        advice = "each counts as a person: remove those that are none"
        yield survey.finding(
            WARNING, "points.twice", what, advice, most or entries, annotations=True
        )


def _density(survey: Survey) -> Iterator[Finding]:
    """Sums of density maps, made as preparation makes them, against the points."""
    rule = survey.rule
    words = f"kernel {rule.kernel}, sigma {rule.sigma:g}, {rule.border}, {rule.outside}"
    wrong = [entry for entry in survey.sound if abs(entry.density_error) > _DENSITY]
    if wrong:
        worst = max(wrong, key=lambda entry: abs(entry.density_error))
        what = (
            f"the density maps of {len(wrong)} pictures ({words}) do not sum to their points, "
            f"off by up to {abs(worst.density_error):.2f} people"
        )
        yield survey.finding(ERROR, "density.sum", what, "report this as a bug", wrong)
        return
    lost = sum(
        len(entry.points)
        - len(apply_outside(
            entry.points, entry.picture.height, entry.picture.width, rule.outside
        ))
        for entry in survey.sound
    )  # fmt: skip
    errors = [entry.density_error for entry in survey.sound]
    largest = np.nanmax(np.abs(errors), initial=0.0)
    what = f"density maps ({words}) sum to the number of points within {largest:.0e} people"
    if lost:
        what += f", without {lost:,} points outside that the rule drops"
    yield survey.finding(NOTE if lost else OK, "density.sum", what)


def _counts(survey: Survey) -> Iterator[Finding]:
    counts = np.array([len(entry.points) for entry in survey.annotated])
    least, low, middle, high, most = np.percentile(counts, (0, 10, 50, 90, 100))
    empty = int((counts == 0).sum())
    what = (
        f"heads a picture: {least:.0f} to {most:.0f}, median {middle:.0f}, 8 of 10 between "
        f"{low:.0f} and {high:.0f}" + (f"; {empty} pictures without any" if empty else "")
    )
    if not most:
        advice = "annotate some pictures with people"
        yield survey.finding(ERROR, "counts", "no picture has a head point", advice)
    elif empty > len(counts) / 2:
        advice = "is that so? An annotation without points means a picture without people"
        yield survey.finding(WARNING, "counts", what, advice)
    else:
        yield survey.finding(OK, "counts", what)
    training = sum(entry.split != "test" for entry in survey.entries)
    if 0 < training < _FEW_PICTURES:
        what = f"{training} training pictures, of which some are held out for validation"
        yield survey.finding(NOTE, "counts.few", what, "start from trained weights; annotate more")


def _spacing(survey: Survey) -> Iterator[Finding]:
    known = [entry for entry in survey.entries if entry.spacing is not None]
    if not known:
        return
    low, middle, high = np.percentile([entry.spacing for entry in known], (1, 50, 99))
    what = (
        f"people stand {middle:.0f} pixels apart in the median picture, {low:.0f} to {high:.0f} in "
        "98 of 100 (by the density map)"
    )
    yield survey.finding(OK, "spacing", what)
    close = [entry for entry in known if entry.spacing < _CLOSE]
    if close:
        what = f"in {len(close)} pictures people stand less than {_CLOSE:g} pixels apart"
        advice = "the network cannot tell such heads apart; take larger pictures"
        yield survey.finding(NOTE, "spacing.close", what, advice, close)
