"""Annotated videos: their pace, and files that appear whole."""

import pathlib

import cv2
import numpy as np
import pytest
from PIL import Image

from cmtl_jax.errors import UserError
from cmtl_jax.prediction.annotated_video import AnnotatedVideo


def grey(level, size=(65, 49)):
    return Image.new("RGB", size, (level, level, level))


def levels(path):
    capture = cv2.VideoCapture(str(path))
    found = []
    while True:
        whole, frame = capture.read()
        if not whole:
            return found, capture.get(cv2.CAP_PROP_FPS), frame_size(capture)
        found.append(round(frame.mean() / 10) * 10)


def frame_size(capture):
    return capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)


def test_each_picture_is_shown_until_the_next(tmp_path):
    video = AnnotatedVideo(tmp_path / "a.mp4", 10.0)
    for level, seconds in ((50, 0.0), (100, 0.1), (150, 0.5), (200, 0.52), (250, 0.7)):
        video.write(grey(level), seconds)
    assert [path.name for path in tmp_path.iterdir()] != ["a.mp4"]  # not before it is whole
    video.close()
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    found, rate, size = levels(tmp_path / "a.mp4")
    # 150 came and went within one picture's time.
    assert found == [50, 100, 100, 100, 100, 200, 200, 250]
    assert rate == 10.0 and size == (66, 50)  # even sides


@pytest.mark.parametrize("rate, number", [(0.04, 26), (25.0, 2), (1e3, 2)])
def test_any_rate_plays(tmp_path, rate, number):
    video = AnnotatedVideo(tmp_path / "a.mp4", rate)
    video.write(grey(50), 0.0)
    video.write(grey(100), 1 / rate)
    video.close()
    found, played, _ = levels(tmp_path / "a.mp4")
    assert 1 <= played <= 60 and len(found) == (number if rate < 1e3 else 1)


def test_a_picture_of_another_size_is_fitted(tmp_path):
    video = AnnotatedVideo(tmp_path / "a.mp4", 10.0)
    video.write(grey(50), 0.0)
    video.write(grey(100, (200, 100)), 0.1)
    video.close()
    assert levels(tmp_path / "a.mp4")[0] == [50, 100]


def test_no_pictures_no_file(tmp_path):
    AnnotatedVideo(tmp_path / "a.mp4", 10.0).close()
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_told(tmp_path):
    video = AnnotatedVideo(tmp_path / "missing/a.mp4", 10.0)
    with pytest.raises(UserError, match="cannot write .*a.mp4.*--out"):
        video.write(grey(50), 0.0)


def test_a_full_disk_leaves_no_part_of_a_file(tmp_path, monkeypatch):
    class Full:
        """OpenCV does not say that a disk is full."""

        def __init__(self, path, *_):
            self._path = pathlib.Path(path)

        def isOpened(self):
            return True

        def write(self, frame):
            self._path.write_bytes(b"half")

        def release(self):
            pass

    monkeypatch.setattr(cv2, "VideoWriter", Full)
    video = AnnotatedVideo(tmp_path / "a.mp4", 10.0)
    video.write(grey(50), 0.0)
    with pytest.raises(UserError, match="cannot write"):
        video.close()
    assert not list(tmp_path.iterdir())


def test_colours_are_kept(tmp_path):
    video = AnnotatedVideo(tmp_path / "a.mp4", 10.0)
    video.write(Image.new("RGB", (64, 48), (200, 100, 20)), 0.0)
    video.close()
    whole, frame = cv2.VideoCapture(str(tmp_path / "a.mp4")).read()
    assert whole and np.abs(frame.mean(axis=(0, 1)) - [20, 100, 200]).max() < 8
