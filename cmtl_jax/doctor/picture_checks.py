"""What is found on the picture files of a data set."""

import collections
from collections.abc import Iterator, Sequence

import ml_collections

from cmtl_jax.datasets import manifest
from cmtl_jax.doctor import twins
from cmtl_jax.doctor.finding import ERROR, NOTE, OK, WARNING, Finding
from cmtl_jax.doctor.survey import Entry, Survey

_TOLD = 10  # unreadable files with their reason; of more only the names
_SMALL = 64  # pixels a side; the network sees 110 around each place
_LARGE = 25_000_000  # pixels


def findings(survey: Survey, config: ml_collections.ConfigDict) -> Iterator[Finding]:
    """Files, their kinds and sizes, pictures that are there twice.

    Args:
        survey: of the data set.
        config: what the pictures are to be used with.
    """
    yield from _readable(survey)
    yield from _numbers(survey)
    if survey.seen:
        yield from _kinds(survey, config.input.channels)
        yield from _sizes(survey, config.crop)
        yield from _same(survey)


def _readable(survey: Survey) -> Iterator[Finding]:
    for name, attribute in (("pictures", "picture_error"), ("annotations", "points_error")):
        told = [entry for entry in survey.entries if getattr(entry, attribute)]
        for entry in told[:_TOLD]:
            what, _, advice = survey.shown(getattr(entry, attribute)).rpartition("; ")
            yield survey.finding(
                ERROR, f"{name}.unreadable", what or advice, advice if what else "", [entry],
                annotations=name == "annotations",
            )  # fmt: skip
        if len(told) > _TOLD:
            what = f"{len(told) - _TOLD} more {name} cannot be read"
            yield survey.finding(
                ERROR, f"{name}.unreadable", what, "replace or remove them", told[_TOLD:],
                annotations=name == "annotations",
            )  # fmt: skip
        if not told:
            yield survey.finding(OK, f"{name}.unreadable", f"all {len(survey.entries)} can be read")


def _numbers(survey: Survey) -> Iterator[Finding]:
    """Pictures and heads of each split, held against the published numbers."""
    totals = collections.defaultdict(lambda: [0, 0])
    for entry in survey.entries:
        split = "all folds" if survey.name == "ucf_cc_50" else entry.split
        totals[split][0] += 1
        totals[split][1] += 0 if entry.points is None else len(entry.points)
    for split, (number, heads) in totals.items():
        report = manifest.check(survey.name, split, number, heads) if survey.published else None
        if report is None:
            what = f"{split}: {number:,} pictures, {heads:,} heads"
            yield survey.finding(OK, "numbers", what)
            continue
        what, _, advice = report.line.removeprefix(f"{survey.name} ").partition("; ")
        yield survey.finding(OK if report.good else WARNING, "numbers", what, advice)


def _kinds(survey: Survey, channels: int) -> Iterator[Finding]:
    pictures = [entry.picture for entry in survey.seen]
    formats = collections.Counter(picture.kind.format for picture in pictures)
    grey = [entry for entry in survey.seen if not entry.picture.colour]
    what = ", ".join(f"{number} {name}" for name, number in formats.most_common())
    what += f"; {len(pictures) - len(grey)} in colour, {len(grey)} grey"
    yield survey.finding(OK, "pictures.kind", what)
    if grey and channels == 3:
        what = f"{len(grey)} of {len(pictures)} pictures are grey, and the network reads colour"
        yield survey.finding(
            NOTE, "pictures.grey", what, "--config.input.channels=1 treats all alike", grey
        )
    depths = collections.defaultdict(list)
    for entry in survey.seen:
        depths[entry.picture.kind.depth].append(entry)
    depths.pop("8 bit", None)
    meaning = {"16 bit": "scaled to 8 bit", "transparent": "put on white"}
    for depth, entries in depths.items():
        verb = meaning.get(depth, "converted to 8 bit")
        what = f"{len(entries)} pictures are {depth}: they are {verb}"
        yield survey.finding(NOTE, "pictures.depth", what, "", entries)
    wrong = [entry for entry in survey.seen if not entry.picture.kind.suffix_fits]
    if wrong:
        what = f"{len(wrong)} files are of another format than their name says"
        advice = "they are read all the same; other programs may stumble"
        yield survey.finding(NOTE, "pictures.suffix", what, advice, wrong)
    turned = [entry for entry in survey.seen if entry.picture.kind.orientation != 1]
    if turned:
        what = f"{len(turned)} pictures are turned by their EXIF orientation"
        advice = "annotate them as a viewer shows them; programs that ignore EXIF see them lying"
        yield survey.finding(NOTE, "pictures.rotated", what, advice, turned)


def _sizes(survey: Survey, crop: ml_collections.ConfigDict) -> Iterator[Finding]:
    sizes = [(entry.picture.width, entry.picture.height) for entry in survey.seen]
    ordered = sorted(sizes, key=lambda size: size[0] * size[1])
    least, middle, most = (
        "{} x {}".format(*ordered[i]) for i in (0, len(ordered) // 2, len(ordered) - 1)
    )
    what = f"{len(set(sizes))} sizes (width x height), {least} to {most}, in the middle {middle}"
    yield survey.finding(OK, "pictures.size", what)

    def those(fit) -> list[Entry]:
        return [entry for entry in survey.seen if fit(entry.picture.width, entry.picture.height)]

    if small := those(lambda width, height: min(width, height) < _SMALL):
        what = f"{len(small)} pictures have sides of less than {_SMALL} pixels"
        advice = "the network needs to see heads and their surroundings; take larger pictures"
        yield survey.finding(WARNING, "pictures.small", what, advice, small)
    if large := those(lambda width, height: width * height > _LARGE):
        what = f"{len(large)} pictures have more than {_LARGE // 10**6} million pixels"
        advice = "they take much memory and time; scale them, and their points, down if heads allow"
        yield survey.finding(NOTE, "pictures.large", what, advice, large)
    if crop.mode == "fixed":
        least = those(lambda width, height: height < crop.height or width < crop.width)
        if least:
            what = f"{len(least)} pictures are smaller than a crop of {crop.width} x {crop.height}"
            yield survey.finding(NOTE, "pictures.crop", what, "they are taken whole", least)


def _same(survey: Survey) -> Iterator[Finding]:
    """Pictures that are there twice, exactly or nearly."""
    by_pixels = collections.defaultdict(list)
    for entry in survey.seen:
        by_pixels[entry.picture.digest].append(entry)
    exact = [group for group in by_pixels.values() if len(group) > 1]
    near = [
        [survey.seen[i], survey.seen[j]]
        for i, j in twins.similar([entry.picture.thumbnail for entry in survey.seen])
        if survey.seen[i].picture.digest != survey.seen[j].picture.digest
    ]
    groups = (
        ("pictures.same", "the same as another", exact, WARNING),
        ("pictures.similar", "nearly the same as another (size, colour, next frame)", near, NOTE),
    )
    for name, how, found, mark in groups:
        across = [group for group in found if len({entry.split for entry in group}) > 1]
        within = [group for group in found if len({entry.split for entry in group}) == 1]
        if across:
            what = f"{_number(across)} pictures are {how} in another split"
            advice = "a test on what was trained on is too good; remove them from one split"
            yield survey.finding(WARNING, "pictures.overlap", what, advice, _flat(across))
        if within:
            what = f"{_number(within)} pictures are {how} in their split"
            advice = "one may be held out and the other trained on; keep one of each"
            yield survey.finding(mark, name, what, advice, _flat(within))
    if not exact and not near:
        yield survey.finding(OK, "pictures.same", "no picture is there twice")


def _flat(groups: Sequence[Sequence[Entry]]) -> list[Entry]:
    return [entry for group in groups for entry in group]


def _number(groups: Sequence[Sequence[Entry]]) -> int:
    return len(set(map(id, _flat(groups))))
