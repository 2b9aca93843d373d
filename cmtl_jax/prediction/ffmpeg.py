"""Video files through OpenCV's FFmpeg, without its own lines on the terminal.

What is wrong with a file is told by whoever reads or writes it, in one line.
"""

import os

import cv2

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # FFmpeg reads it when it is first used
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def reader(path: str | os.PathLike) -> cv2.VideoCapture:
    """Opens a video file; `isOpened` says whether that worked."""
    # An absolute path is never taken for an address or a pattern.
    return cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG)


def writer(
    path: str | os.PathLike, code: str, rate: float, size: tuple[int, int]
) -> cv2.VideoWriter:
    """Begins a video file; `isOpened` says whether that worked, and later failures stay silent.

    Args:
        path: its suffix says the format.
        code: of the encoder, four letters.
        rate: frames per second.
        size: width and height of frames, even numbers.
    """
    fourcc = cv2.VideoWriter_fourcc(*code)
    return cv2.VideoWriter(os.path.abspath(path), cv2.CAP_FFMPEG, fourcc, rate, size)
