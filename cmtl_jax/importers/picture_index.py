"""Which picture an annotation is of."""

import collections
import os
import pathlib
import unicodedata
from typing import NamedTuple

from cmtl_jax import pictures
from cmtl_jax.datasets import point_folder
from cmtl_jax.errors import UserError
from cmtl_jax.importers.marked import Marked

ANYWHERE, NAMED = 0, 1  # how sure a match is: the file's name alone, or its folders, too


class Match(NamedTuple):
    """The picture found for an annotation.

    Attributes:
        name: of the picture, below the folder of pictures.
        sure: ANYWHERE or NAMED.
    """

    name: str
    sure: int


def _key(name: str) -> str:
    """Equal for names that differ in small and capital letters, or in how accents are spelt."""
    return unicodedata.normalize("NFC", name).casefold()


class PictureIndex:
    """The pictures below a folder, to be found by what annotation files call them."""

    def __init__(self, folder: pathlib.Path, besides: pathlib.Path | None = None):
        """Lists the pictures.

        Args:
            folder: searched with its sub-folders; hidden files are left out.
            besides: a folder whose pictures do not count.

        Raises:
            UserError: no such folder, or no pictures there.
        """
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder; name the folder of pictures by --pictures")
        self.folder = folder
        self.names = [
            path.relative_to(folder).as_posix()
            for path in point_folder.files(folder)
            if path.suffix.lower() in pictures.SUFFIXES
            and not (besides and path.resolve().is_relative_to(besides.resolve()))
        ]
        if not self.names:
            raise UserError(
                f"no pictures in {folder} (looked for {', '.join(pictures.SUFFIXES)}); name their "
                "folder by --pictures"
            )
        self._exact = {os.path.realpath(folder / name): name for name in self.names}
        self._by_name: dict[str, list[str]] = collections.defaultdict(list)
        self._by_stem: dict[str, list[str]] = collections.defaultdict(list)
        for name in self.names:
            pure = pathlib.PurePosixPath(name)
            self._by_name[_key(pure.name)].append(name)
            self._by_stem[_key(pure.stem)].append(name)

    def path(self, name: str) -> pathlib.Path:
        """Where a picture is."""
        return self.folder / name

    def find(self, marked: Marked, root: pathlib.Path) -> Match | None:
        """The picture that an annotation is of.

        Looks beside the annotation file and from the folder of pictures on, then anywhere below it
        by the file's name alone. Among several of that name it takes the one that shares more
        folders with the annotation.

        Args:
            marked: the annotation.
            root: folder that the sub-folders of annotation files count from.

        Returns:
            None where there is no such picture.

        Raises:
            UserError: several fit equally well.
        """
        name = marked.name.replace("\\", "/").rsplit("://", 1)[-1]
        if name:
            for place in (marked.source.parent, self.folder):
                exact = self._exact.get(os.path.realpath(place / name))
                if exact is not None:
                    return Match(exact, NAMED)
        named = pathlib.PurePosixPath(name)
        candidates = self._by_name.get(_key(named.name), []) if name else []
        if not candidates and marked.stem:
            for stem in point_folder.stems(marked.source.with_name(f"{marked.stem}.x")):
                candidates = candidates or self._by_stem.get(_key(stem), [])
        if not candidates:
            return None
        inner = marked.source.relative_to(root) if marked.source.is_relative_to(root) else named
        hints = {_key(part) for part in (*named.parts[:-1], *inner.parts[:-1])}
        shared = {
            one: len(hints & set(map(_key, pathlib.PurePosixPath(one).parts[:-1])))
            for one in candidates
        }
        best = [one for one in candidates if shared[one] == max(shared.values())]
        beside = [one for one in best if self.path(one).parent == marked.source.parent]
        if len(best) > 1 and len(beside) != 1:
            raise UserError(
                f"{marked.source}: {marked.name or marked.stem} may be any of "
                f"{point_folder.some(best)}; give each its own name"
            )
        return Match((beside or best)[0], NAMED if beside else ANYWHERE)
