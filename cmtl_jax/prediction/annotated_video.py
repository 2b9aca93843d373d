"""Annotated videos: overlays in a row, at the pace at which their frames were taken."""

import os
import pathlib

import cv2
import numpy as np
from PIL import Image

from cmtl_jax.errors import UserError
from cmtl_jax.prediction import ffmpeg

_SLOWEST, _FASTEST = 1.0, 60.0  # frames per second that players take


class AnnotatedVideo:
    """An .mp4 file (MPEG-4 Visual, which OpenCV encodes everywhere) that appears whole when closed.

    Its rate is constant: a picture is shown until the next, so that an hour stays an hour.
    """

    def __init__(self, path: pathlib.Path, rate: float):
        """Nothing is written before the first picture.

        Args:
            path: of the file, ending in .mp4.
            rate: pictures per second that are expected, held between 1 and 60.
        """
        self._path = path
        # OpenCV tells the format from the suffix.
        self._partial = path.with_name(f".{path.stem}.{os.getpid()}.tmp.mp4")
        self._rate = min(max(rate, _SLOWEST), _FASTEST)
        self._writer: cv2.VideoWriter | None = None
        self._last: np.ndarray | None = None
        self._size = (0, 0)
        self._written = 0

    def write(self, picture: Image.Image, seconds: float) -> None:
        """Adds a picture; those of another size than the first are resized.

        Args:
            picture: RGB.
            seconds: when it begins, since the start of the video.

        Raises:
            UserError: the file cannot be written.
        """
        frame = cv2.cvtColor(np.asarray(picture), cv2.COLOR_RGB2BGR)
        # The format wants even sides.
        height, width = frame.shape[:2]
        frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._writer is None:
            self._size = (frame.shape[1], frame.shape[0])
            self._writer = ffmpeg.writer(self._partial, "mp4v", self._rate, self._size)
            if not self._writer.isOpened():
                raise self._unwritable()
        elif self._size != (frame.shape[1], frame.shape[0]):  # some streams change on the way
            frame = cv2.resize(frame, self._size, interpolation=cv2.INTER_AREA)
        while self._last is not None and self._written < round(seconds * self._rate):
            self._put(self._last)
        self._last = frame

    def close(self) -> None:
        """Writes the last picture, and gives the file its name; without pictures there is none.

        Raises:
            UserError: the file could not be written, such as for lack of room.
        """
        if self._writer is None:
            return
        try:
            if self._last is not None:
                self._put(self._last)
            self._writer.release()  # fails without a word
            capture = ffmpeg.reader(self._partial)
            whole = capture.get(cv2.CAP_PROP_FRAME_COUNT) == self._written
            capture.release()
            if not whole:
                raise self._unwritable()
            os.replace(self._partial, self._path)
        except OSError as error:
            raise self._unwritable() from error
        finally:
            self._writer = None
            self._partial.unlink(missing_ok=True)

    def _put(self, frame: np.ndarray) -> None:
        self._writer.write(frame)
        self._written += 1

    def _unwritable(self) -> UserError:
        return UserError(
            f"cannot write {self._path}; make room or choose another folder with --out"
        )
