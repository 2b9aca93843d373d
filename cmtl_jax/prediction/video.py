"""Frames of video files, streams and cameras, through OpenCV."""

import dataclasses
import datetime
import math
import threading
import time
from collections.abc import Iterator

import cv2
import numpy as np

from cmtl_jax.errors import UserError
from cmtl_jax.prediction import ffmpeg
from cmtl_jax.prediction.sources import Source

_TRIES = 250  # frames in a row that may be damaged before a file is given up
_WAIT = 0.2  # seconds between two looks at Ctrl-C
_PATIENCE = 2.0  # seconds that a camera gets to end a frame it has begun


@dataclasses.dataclass(frozen=True)
class Frame:
    """One frame.

    Attributes:
        image: uint8 [H, W, 3], RGB.
        number: of the frame in the video, from 0; damaged ones count where they can be told.
        seconds: since the first frame.
        time: when a camera took it, UTC, such as 2026-01-31T12:00:00.125Z; None for a file.
    """

    image: np.ndarray
    number: int
    seconds: float
    time: str | None = None


class Video:
    """Every Nth frame of a video, as an iterator; damaged frames come as errors among them.

    A camera or stream (whatever declares no length) is read at its own pace: frames that arrive
    while the last one is still being counted are dropped, so that the counts do not lag behind.

        with Video(source, every=5) as video:
            for frame in video:  # Frame or UserError
    """

    def __init__(
        self,
        source: Source,
        *,
        every: int = 1,
        seconds: float | None = None,
        max_pixels: int | None = None,
    ):
        """Opens it.

        Args:
            source: of kind `video` or `camera`.
            every: gives frames 0, every, 2 * every, ...
            seconds: ends after that time.
            max_pixels: larger frames are refused before one is decoded.

        Raises:
            UserError: cannot be opened, or larger frames.
        """
        self.name = source.name
        self._every, self._seconds = every, math.inf if seconds is None else seconds
        self._capture = _open(source)
        try:
            if not self._capture.isOpened():
                raise UserError(_cannot_open(source))
            sides = cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT
            width, height = map(self._get, sides)
            if max_pixels is not None and width * height > max_pixels:
                raise UserError(
                    f"{self.name} declares frames of {width:.0f} x {height:.0f} pixels, more than "
                    f"the limit of {max_pixels}; make them smaller or raise it (--max-pixels)"
                )
        except UserError:
            self._capture.release()
            raise
        declared = self._get(cv2.CAP_PROP_FRAME_COUNT)
        rate = self._get(cv2.CAP_PROP_FPS)
        self._rate = rate if 0 < rate < 1000 else 25.0
        self._declared = int(declared) if 0 < declared < 1e9 else 0
        self.live = source.kind == "camera" and not self._declared
        self._thread: threading.Thread | None = None
        self._newest: Frame | None = None
        self._arrived, self._done = threading.Condition(), threading.Event()

    @property
    def rate(self) -> float:
        """Frames given per second of the video."""
        return self._rate / self._every

    @property
    def frames(self) -> int | None:
        """How many will be given, as the file declares; None where it does not."""
        if not self._declared:
            return None
        number = min(self._declared, self._seconds * self._rate)
        return math.ceil(number / self._every)

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, *_) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join(_PATIENCE)
            if self._thread.is_alive():  # waits for the camera; to release it now would crash
                return
        self._capture.release()

    def __iter__(self) -> Iterator[Frame | UserError]:
        return self._live_frames() if self.live else self._file_frames()

    def _get(self, what: int) -> float:
        return self._capture.get(what)

    def _image(self) -> np.ndarray | None:
        whole, image = self._capture.retrieve()
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if whole and image is not None else None

    def _file_frames(self) -> Iterator[Frame | UserError]:
        number = damaged = given = 0
        end, first = 0.0, None
        while True:
            if not self._capture.grab():
                damaged += 1
                if damaged > _TRIES or number + damaged >= self._declared:
                    break
                continue
            if damaged:
                yield UserError(
                    f"{self.name}: {damaged} frames from {number / self._rate:.2f} s on are "
                    "damaged; they are left out"
                )
                number, damaged = number + damaged, 0
            stamp = self._get(cv2.CAP_PROP_POS_MSEC) / 1000
            # Some formats have no time stamps.
            at = stamp if stamp > 0 and math.isfinite(stamp) else number / self._rate
            first = at if first is None else first
            at = max(at - first, end)
            if at >= self._seconds:
                return
            end = at
            if number % self._every == 0:
                image = self._image()
                if image is None:
                    yield UserError(f"{self.name}: frame {number} is damaged; it is left out")
                else:
                    given += 1
                    yield Frame(image, number, at)
            number += 1
        if not given:
            yield UserError(f"{self.name} has no frame that can be read; record or copy it again")
        elif self._declared / self._rate - end > max(3 / self._rate, 0.2) + 1 / self._rate:
            yield UserError(
                f"{self.name} is damaged: it can be read up to {end:.2f} s of "
                f"{self._declared / self._rate:.2f} s; copy it again"
            )

    def _live_frames(self) -> Iterator[Frame | UserError]:
        self._thread = threading.Thread(target=self._receive, name=self.name, daemon=True)
        self._thread.start()
        given = 0
        while (frame := self._next()) is not None:
            if frame.seconds >= self._seconds:
                return
            given += 1
            yield frame
        what = "stopped sending frames" if given else "sends no frame"
        yield UserError(f"{self.name} {what}; check the camera and start again")

    def _receive(self) -> None:
        """Keeps the newest frame, until there are no more or the video is closed."""
        number, begin = 0, time.monotonic()
        while not self._done.is_set() and self._capture.grab():
            now, date = time.monotonic(), _utc(time.time())
            begin = begin if number else now
            if number % self._every == 0 and (image := self._image()) is not None:
                with self._arrived:
                    self._newest = Frame(image, number, now - begin, date)
                    self._arrived.notify()
            number += 1
        self._done.set()

    def _next(self) -> Frame | None:
        """The newest frame that was not yet given; waits for it. None: there are no more."""
        with self._arrived:
            while self._newest is None and not self._done.is_set():
                self._arrived.wait(_WAIT)
            frame, self._newest = self._newest, None
        return frame


def _open(source: Source) -> cv2.VideoCapture:
    if source.kind == "video":
        return ffmpeg.reader(source.path)
    if source.path.startswith("camera:"):
        return cv2.VideoCapture(int(source.path.removeprefix("camera:")))
    return cv2.VideoCapture(source.path)


def _cannot_open(source: Source) -> str:
    if source.kind == "camera":
        return f"{source.name} cannot be opened; check that it is there, and free to use"
    try:
        with open(source.path, "rb") as file:
            empty = not file.read(1)
    except OSError as error:
        return f"{source.path} cannot be read ({error.strerror or error}); check the path"
    reason = "it is empty" if empty else "unknown format, or cut short"
    return f"{source.path} is no video that can be read ({reason}); copy or convert it again"


def _utc(now: float) -> str:
    stamp = datetime.datetime.fromtimestamp(now, datetime.UTC)
    return stamp.isoformat(timespec="milliseconds").replace("+00:00", "Z")
