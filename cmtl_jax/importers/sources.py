"""Annotation files among the files that a user names."""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

from cmtl_jax import pictures
from cmtl_jax.datasets import point_folder
from cmtl_jax.errors import UserError
from cmtl_jax.importers import registry
from cmtl_jax.importers.marked import Marked
from cmtl_jax.importers.registry import Recognised


@dataclasses.dataclass
class Sources:
    """What annotation files say.

    Attributes:
        files: the annotation files.
        roots: of each file, the folder whose sub-folders tell where its pictures are.
        unknown: files that are neither annotations nor pictures.
        problems: lines on files that are damaged.
    """

    files: list[Recognised] = dataclasses.field(default_factory=list)
    roots: dict[pathlib.Path, pathlib.Path] = dataclasses.field(default_factory=dict)
    unknown: list[pathlib.Path] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)

    @property
    def marked(self) -> list[Marked]:
        """All pictures of all files."""
        return [one for file in self.files for one in file.pictures]

    def describe(self) -> list[str]:
        """A line for each format: its files and their pictures."""
        lines = []
        for title in dict.fromkeys(file.format.title for file in self.files):
            these = [file for file in self.files if file.format.title == title]
            named = point_folder.some([file.path.name for file in these])
            number = sum(len(file.pictures) for file in these)
            lines.append(f"{title}: {number} pictures in {named}")
        return lines


def read(
    sources: Sequence[pathlib.Path], format: str = "auto", besides: pathlib.Path | None = None
) -> Sources:
    """Reads annotation files.

    Args:
        sources: files, and folders searched with their sub-folders.
        format: a name of `registry.NAMES`, or 'auto' for all.
        besides: a folder whose files do not count.

    Raises:
        UserError: a source does not exist, or no annotations are there.
    """
    found = Sources()
    for source in sources:
        for path in _files(source, besides):
            try:
                file = registry.read(path, format)
            except UserError as error:
                found.problems.append(str(error))
                continue
            if file is not None:
                found.files.append(file)
                found.roots[path] = source if source.is_dir() else source.parent
            elif path.suffix.lower() not in pictures.SUFFIXES:
                found.unknown.append(path)
    if not found.files:
        raise _nothing(sources, format, found)
    return found


def _files(source: pathlib.Path, besides: pathlib.Path | None) -> Iterator[pathlib.Path]:
    if not source.exists():
        raise UserError(f"{source} does not exist; check the path")
    for path in point_folder.files(source) if source.is_dir() else [source]:
        if besides is None or not path.resolve().is_relative_to(besides.resolve()):
            yield path


def _nothing(sources: Sequence[pathlib.Path], format: str, found: Sources) -> UserError:
    if found.problems:
        return UserError(found.problems[0])
    wanted = [one for one in registry.FORMATS if format in ("auto", one.name)]
    titles = ", ".join(f"{one.title} *{one.suffix}" for one in wanted)
    there = ", ".join(map(str, sources))
    if found.unknown:
        path = found.unknown[0]
        there += f"; {path.name} is {registry.describe(path)}"
    return UserError(f"no annotations that are read here ({titles}) in {there}")
