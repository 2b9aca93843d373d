"""What is to be counted: pictures, videos and cameras, as people name them."""

import dataclasses
import glob
import os
import pathlib
import re
import stat
from collections.abc import Iterable
from typing import Literal

from cmtl_jax.errors import UserError
from cmtl_jax.pictures import SUFFIXES

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts",
    ".wmv", ".flv", ".3gp", ".ogv", ".mjpeg", ".mjpg",
)  # fmt: skip

_WRITTEN = (".overlay.png", ".density.png", ".overlay.mp4")  # by the counting command
_CAMERA = re.compile(r"camera:\d{1,4}")
_STREAM = re.compile(r"(?:rtsps?|rtmp|rtp|srt|udp|https?)://", re.IGNORECASE)
_PASSWORD = re.compile(r"(?<=://)[^/@]*@")


@dataclasses.dataclass(frozen=True)
class Source:
    """One picture, video or camera.

    Attributes:
        path: what to open.
        kind: `picture`, `video` (a file) or `camera` (a device or stream).
    """

    path: str
    kind: Literal["picture", "video", "camera"] = "picture"

    @property
    def name(self) -> str:
        """The path for people to read: without the user and password of an address."""
        return _PASSWORD.sub("", self.path) if self.kind == "camera" else self.path

    @property
    def stem(self) -> str:
        """What the names of files about it begin with."""
        if self.kind == "camera":
            return re.sub(r"[^\w.-]+", "-", self.name).strip("-.") or "camera"
        return pathlib.Path(self.path).stem


def find(named: str | os.PathLike) -> list[Source]:
    """What a name means.

    A file, whatever its name, is a video if its suffix is one of `VIDEO_SUFFIXES`, else a picture;
    a folder means the pictures in it and its sub-folders, sorted; `camera:0` the first camera, as
    does a device file; an address with `rtsp://`, `http://` and the like a stream. Anything else
    is a pattern: `*`, `?`, `[...]`, and `**` for sub-folders. Of folders and patterns, hidden
    files and what the counting command wrote are left out.

    Raises:
        UserError: nothing is there, or a folder or pattern holds no pictures.
    """
    named = os.fspath(named)
    if _CAMERA.fullmatch(named) or _STREAM.match(named):
        return [Source(named, "camera")]
    try:
        mode = os.stat(named).st_mode
        if stat.S_ISDIR(mode):
            return _in_folder(pathlib.Path(named))
    except (OSError, ValueError) as error:  # ValueError: a null character
        if glob.has_magic(named) and "\0" not in named:
            return _matching(named)
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{named} cannot be read ({reason}); check the path") from error
    path = str(pathlib.Path(named))
    if stat.S_ISCHR(mode):
        return [Source(path, "camera")]
    return [Source(path, "video" if _is_video(path) else "picture")]


def _is_video(path: str | pathlib.Path) -> bool:
    return str(path).lower().endswith(VIDEO_SUFFIXES)


def _usable(path: pathlib.Path, suffixes: tuple[str, ...]) -> bool:
    name = path.name.lower()
    return name.endswith(suffixes) and not name.endswith(_WRITTEN) and path.is_file()


def _pictures_in(folder: pathlib.Path) -> list[Source]:
    return [
        Source(str(path))
        for path in sorted(folder.rglob("*"))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and _usable(path, SUFFIXES)
    ]


def _in_folder(folder: pathlib.Path) -> list[Source]:
    inside = _pictures_in(folder)
    if not inside:
        videos = any(_usable(path, VIDEO_SUFFIXES) for path in folder.rglob("*"))
        what = "; name its videos one by one, or by a pattern" if videos else ""
        raise UserError(f"no pictures in {folder}; looked for {', '.join(SUFFIXES)}{what}")
    return inside


def _matching(pattern: str) -> list[Source]:
    found: dict[str, Source] = {}
    number = 0
    for match in sorted(glob.iglob(pattern, recursive=True)):
        number += 1
        path = pathlib.Path(match)
        if path.is_dir():
            inside: Iterable[Source] = _pictures_in(path)
        elif _usable(path, SUFFIXES + VIDEO_SUFFIXES):
            inside = [Source(str(path), "video" if _is_video(path) else "picture")]
        else:
            continue
        found |= {source.path: source for source in inside}
    if not found:
        reason = f"none of the {number} matches is a picture or video" if number else "no match"
        raise UserError(f"nothing to count at {pattern} ({reason}); check the pattern")
    return list(found.values())
