"""From annotation files and pictures to a folder of training data."""

import collections
import dataclasses
import pathlib
from collections.abc import Collection, Sequence

from cmtl_jax.datasets import point_folder
from cmtl_jax.errors import UserError
from cmtl_jax.importers import heads as heads_lib
from cmtl_jax.importers import output, registry
from cmtl_jax.importers import sources as sources_lib
from cmtl_jax.importers.heads import Heads
from cmtl_jax.importers.marked import BOX, ELLIPSE, Marked
from cmtl_jax.importers.picture_index import PictureIndex
from cmtl_jax.importers.sources import Sources


@dataclasses.dataclass
class Report:
    """What an import did, for people.

    Attributes:
        recognised: lines on what the annotation files are.
        imported: heads of each picture, by its name below the folder of pictures.
        splits: (pictures, heads) of each split; of '' where there are none.
        notes: lines on what to know: boxes, duplicates, pictures that are not annotated.
        problems: lines on what was left out as something is wrong with it.
    """

    recognised: list[str] = dataclasses.field(default_factory=list)
    imported: dict[str, Heads] = dataclasses.field(default_factory=dict)
    splits: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)


def import_points(
    sources: Sequence[pathlib.Path],
    out: pathlib.Path,
    *,
    folder: pathlib.Path | None = None,
    format: str = "auto",
    labels: Collection[str] = (),
    box_point: str = heads_lib.BOX_POINTS[0],
    listed_are_empty: bool = False,
    overwrite: bool = False,
) -> Report:
    """Imports annotations: copies their pictures and writes their head points beside them.

    Args:
        sources: annotation files, or folders of them with their sub-folders.
        out: folder to write, for --config.dataset.raw_dir of configs/finetune.py.
        folder: of the pictures; that of the first source if None.
        format: a name of `registry.NAMES`, or 'auto'.
        labels: of the marks to take; empty takes all where they have one label, and refuses
            several; ('all',) takes all.
        box_point: 'top' or 'centre': the point that a box becomes.
        listed_are_empty: take pictures that are listed without any mark as without people; some
            programs list every picture that was opened.
        overwrite: replace pictures and points that are in `out` already.

    Raises:
        UserError: nothing to import, or `out` holds other pictures or points of the same names.
    """
    folder = folder or (sources[0] if sources[0].is_dir() else sources[0].parent)
    if out.resolve() == folder.resolve():
        raise UserError(f"--out={out} is the folder of pictures; name another one to write")
    read = sources_lib.read(sources, format, besides=out)
    report = Report(recognised=read.describe(), problems=list(read.problems))
    chosen = _labels(read.marked, labels)
    index = PictureIndex(folder, besides=out)
    matched = _match(read, index, report)
    unmarked = [n for n, one in matched.items() if not (one.marks or one.empty or listed_are_empty)]
    for name in [name for name in matched if name not in set(unmarked)]:
        try:
            found = heads_lib.of(matched[name], index.path(name), chosen, box_point)
            _require_usable(matched[name], found)
        except UserError as error:
            report.problems.append(f"{name} left out: {error}")
            continue
        report.imported[name] = found
        report.notes += [f"{name}: {note}" for note in _remarks(matched[name], found)]
    report.notes += _shapes(report.imported, box_point)
    report.notes += [
        f"{len(names)} {what}: {point_folder.some(names)}"
        for names, what in (
            (_with_exif(report.imported, matched), "pictures are turned by EXIF; their points are "
             "taken as of the upright picture"),
            (_of_others(report.imported, matched), "pictures have marks of other labels alone, "
             "taken as without people"),
            (unmarked, "pictures are listed without any mark, left out; --empty takes them as "
             "without people"),
            ([n for n in index.names if n not in matched], "pictures without annotation, left out"),
            (list(map(str, _files_like_annotations(read))), "files are no annotations, left out"),
        )
        if names
    ]  # fmt: skip
    if not report.imported:
        raise UserError(f"nothing to import: {(report.problems + report.notes)[0]}")
    _write(report, index, out, overwrite)
    return report


def _labels(marked: list[Marked], asked: Collection[str]) -> set[str] | None:
    """The labels to take; None for all.

    Raises:
        UserError: several labels and none asked for, or one asked for that there is not.
    """
    there = collections.Counter(mark.label for one in marked for mark in one.marks)
    if "all" in asked and "all" not in there:
        return None
    listed = ", ".join(f"{label or 'none'} {number}" for label, number in there.most_common(20))
    missing = [label for label in asked if label not in there]
    if missing:
        raise UserError(f"no marks with label {missing[0]!r}; there are {listed or 'no marks'}")
    if asked:
        return set(asked)
    if len([label for label in there if label]) > 1:
        raise UserError(
            f"the marks have several labels ({listed}); choose those of heads with --label=LABEL, "
            "or --label=all"
        )
    return None


def _match(read: Sources, index: PictureIndex, report: Report) -> dict[str, Marked]:
    """The annotation of each picture, in the order of the pictures."""
    found: dict[str, list[tuple[int, Marked]]] = collections.defaultdict(list)
    missing = []
    for one in read.marked:
        try:
            match = index.find(one, read.roots[one.source])
        except UserError as error:
            report.problems.append(str(error))
            continue
        if match is None:
            missing.append(one.name or str(one.source))
        else:
            found[match.name].append((match.sure, one))
    matched = {}
    for name in [name for name in index.names if name in found]:
        surest = max(sure for sure, _ in found[name])
        best = [one for sure, one in found[name] if sure == surest]
        missing += [one.name or str(one.source) for sure, one in found[name] if sure < surest]
        if len(best) == 1:
            matched[name] = best[0]
            continue
        files = point_folder.some([str(one.source) for one in best])
        report.problems.append(
            f"{name} left out: annotated {len(best)} times, in {files}; give one of them, or "
            "choose by --format"
        )
    if missing:
        report.problems.append(
            f"{len(missing)} annotated pictures are not in {index.folder}: "
            f"{point_folder.some(missing)}"
        )
    return matched


def _require_usable(marked: Marked, found: Heads) -> None:
    """A picture of whose people nothing but unreadable marks is known is not one without people."""
    if marked.marks and not len(found.points) and (found.shapes or found.not_finite):
        kinds = ", ".join(f"{number} {kind}" for kind, number in found.shapes.items())
        raise UserError(
            f"{marked.source} has no points of it that can be used ({kinds or 'not finite'}); mark "
            "heads as points or boxes"
        )


def _remarks(marked: Marked, found: Heads) -> list[str]:
    """What to know of one picture."""
    remarks = []
    for number, what in (
        (found.not_finite, "without finite coordinates, left out"),
        (found.outside, "outside the picture, kept; training moves them to its edge"),
        (found.duplicates, "where another one is, kept"),
    ):
        if number:
            remarks.append(f"{number} point{'s' if number > 1 else ''} {what}")
    if found.turned:
        remarks.append(
            "annotated lying as it is stored; its points are turned with the picture "
            f"(EXIF orientation {found.orientation})"
        )
    if not marked.finished:
        remarks.append("not marked as finished, taken with the heads it has")
    return remarks


def _shapes(imported: dict[str, Heads], box_point: str) -> list[str]:
    """What became of shapes that are no points."""
    shapes: collections.Counter[str] = collections.Counter()
    for found in imported.values():
        shapes += found.shapes
    boxes, ellipses = shapes.pop(BOX, 0), shapes.pop(ELLIPSE, 0)
    notes = []
    if boxes and box_point == "top":
        notes.append(
            f"{boxes} boxes became points, the middle of their upper edge; --boxes=centre where "
            "they enclose the head alone"
        )
    elif boxes:
        notes.append(
            f"{boxes} boxes became points, their centre; --boxes=top where they enclose the whole "
            "person"
        )
    if ellipses:
        notes.append(f"{ellipses} circles and ellipses became points, their centre")
    return notes + [f"{number} marks left out: {kind}" for kind, number in shapes.items()]


def _with_exif(imported: dict[str, Heads], matched: dict[str, Marked]) -> list[str]:
    """Pictures with an orientation where the size does not tell how they were annotated."""
    return [
        name
        for name, found in imported.items()
        if found.orientation > 1
        and not found.turned
        and (found.orientation < 5 or matched[name].size is None)
    ]


def _of_others(imported: dict[str, Heads], matched: dict[str, Marked]) -> list[str]:
    """Pictures with marks, none of them of the labels to take."""
    return [
        name for name, found in imported.items() if matched[name].marks and not len(found.points)
    ]


def _files_like_annotations(read: Sources) -> list[pathlib.Path]:
    """Files with the suffix of a format; programs leave others beside their annotations, too."""
    return [path for path in read.unknown if path.suffix.lower() in registry.CONTENTS]


def _write(report: Report, index: PictureIndex, out: pathlib.Path, overwrite: bool) -> None:
    placed = output.places(report.imported)
    names: dict[output.Place, str] = {}
    for name, place in placed.items():
        if place in names:
            raise UserError(f"{names[place]} and {name} both become {place.name}; rename one")
        names[place] = name
    output.write(
        out,
        {place: (index.path(name), report.imported[name].points) for place, name in names.items()},
        overwrite,
    )
    for split in sorted({place.split for place in names}, reverse=True):
        these = [name for place, name in names.items() if place.split == split]
        report.splits[split] = len(these), sum(len(report.imported[n].points) for n in these)
    moved = [name for name, place in placed.items() if place.split != output.said(name).split]
    if moved:
        report.notes.append(
            f"{len(moved)} pictures outside train/ and test/ became {placed[moved[0]].split} "
            f"pictures: {point_folder.some(moved)}"
        )
