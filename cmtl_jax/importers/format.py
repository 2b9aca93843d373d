"""A format of annotation files."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from cmtl_jax.importers.marked import Marked


@dataclasses.dataclass(frozen=True)
class Format:
    """A format of annotation files.

    Attributes:
        name: for --format.
        title: for people.
        suffix: of its files, in small letters.
        matches: (path, content) -> whether a file is of this format; see `registry.CONTENTS` for
            what the content is.
        read: (path, content) -> the pictures that the file annotates. Raises UserError, or
            KeyError, TypeError, ValueError, IndexError or AttributeError, where the content is
            not as documented.
    """

    name: str
    title: str
    suffix: str
    matches: Callable[[pathlib.Path, Any], bool]
    read: Callable[[pathlib.Path, Any], list[Marked]]
