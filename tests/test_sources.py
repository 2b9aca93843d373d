"""What names on the command line mean."""

import os
import pathlib

import pytest

from cmtl_jax.errors import UserError
from cmtl_jax.prediction import sources


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Files that are only looked at by name."""
    for name in (
        "in/b.png", "in/a.JPG", "in/deep/er/a.png", "in/.hidden/c.png", "in/._b.png", "in/b.csv",
        "in/b.overlay.png", "in/b.density.png", "in/b.Overlay.PNG", "in/v.MP4", "in/v.overlay.mp4",
        "videos/a.mov", "odd/x[1].png", "odd/x1.png", "odd/noend",
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "in/d.png").mkdir()
    (tmp_path / "empty/deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def named(name):
    return [(source.path, source.kind) for source in sources.find(name)]


def pictures(*paths):
    return [(path, "picture") for path in paths]


def test_a_folder_means_its_pictures():
    assert named("in") == pictures("in/a.JPG", "in/b.png", "in/deep/er/a.png")
    assert named("./in/") == named("in")
    assert named(pathlib.Path("in")) == named("in")


def test_a_file_is_what_its_suffix_says():
    assert named("in/b.png") == pictures("in/b.png")
    assert named("in/v.MP4") == [("in/v.MP4", "video")]
    assert named("odd/noend") == pictures("odd/noend")
    assert named("in/b.overlay.png") == pictures("in/b.overlay.png")  # who names it wants it


def test_patterns():
    assert named("in/*.png") == pictures("in/b.png")
    assert named("in/*") == pictures("in/a.JPG", "in/b.png", "in/deep/er/a.png") + [
        ("in/v.MP4", "video")
    ]
    assert named("**/a.*") == pictures("in/a.JPG", "in/deep/er/a.png") + [("videos/a.mov", "video")]
    assert named("in/[ab].???") == pictures("in/a.JPG", "in/b.png")
    assert len(named("**")) == len(set(named("**")))  # a folder and what is in it


def test_a_name_with_brackets_is_a_name_first():
    assert named("odd/x[1].png") == pictures("odd/x[1].png")
    assert named("odd/x[12].png") == pictures("odd/x1.png")


@pytest.mark.parametrize(
    "name, says",
    [
        ("empty", "no pictures in empty"),
        ("videos", "no pictures in videos.*name its videos"),
        ("missing.png", "missing.png cannot be read .No such file"),
        ("missing/*.png", "nothing to count at missing.*no match"),
        ("in/*.csv", "none of the 1 matches"),
        ("empty/*", "none of the 1 matches"),
        ("a\0*", "null"),
        ("x" * 300, "too long"),
    ],
)
def test_nothing_there_is_told(name, says):
    with pytest.raises(UserError, match=says):
        sources.find(name)


@pytest.mark.parametrize(
    "name, shown, stem",
    [
        ("camera:0", "camera:0", "camera-0"),
        ("rtsp://u:p@host:554/a b?x=1", "rtsp://host:554/a b?x=1", "rtsp-host-554-a-b-x-1"),
        ("HTTP://host/..", "HTTP://host/..", "HTTP-host"),
    ],
)
def test_cameras_and_streams(name, shown, stem):
    (source,) = sources.find(name)
    assert (source.path, source.kind) == (name, "camera")
    assert (source.name, source.stem) == (shown, stem)  # no password is printed


def test_a_file_may_be_called_like_a_camera(folder):
    (folder / "camera:0").touch()
    assert named("./camera:0") == pictures("camera:0")


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="no device files here")
def test_a_device_is_a_camera():
    assert named("/dev/null") == [("/dev/null", "camera")]
