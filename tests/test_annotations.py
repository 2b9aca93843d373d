"""Readers of head points."""

import json

import numpy as np
import pytest
import scipy.io

from cmtl_jax.datasets import annotations
from cmtl_jax.errors import UserError

POINTS = np.array([[1.0, 1.0], [10.25, 20.5], [3.5, 7.0]])  # 1-based


def save_shanghaitech(path, points):
    """The nested struct of the released files."""
    info = np.empty((1, 1), object)
    info[0, 0] = {"location": points, "number": np.array([[len(points)]])}
    scipy.io.savemat(path, {"image_info": info})


@pytest.mark.parametrize("number", [0, 1, 3])
def test_mat_files(tmp_path, number):
    points = POINTS[:number]
    save_shanghaitech(tmp_path / "a.mat", points)
    scipy.io.savemat(tmp_path / "b.mat", {"annPoints": points})
    scipy.io.savemat(tmp_path / "c.mat", {"points": points.squeeze()})
    for name, reader in [
        ("a", annotations.read_shanghaitech),
        ("b", annotations.read_ucf_cc_50),
        ("a", annotations.read),
        ("b", annotations.read),
        ("c", annotations.read),
    ]:
        found = reader(tmp_path / f"{name}.mat")
        assert found.dtype == np.float32 and found.shape == (number, 2)
        np.testing.assert_array_equal(found, points - 1)


def test_released_files(shared):
    for part, split, pictures, heads in [
        ("A", "train", 300, 162_707),
        ("B", "train", 400, 49_280),
        ("B", "test", 316, 39_208),
    ]:
        folder = shared / f"data/ShanghaiTech/part_{part}_final/{split}_data/ground_truth"
        counts = [len(annotations.read_shanghaitech(path)) for path in folder.glob("*.mat")]
        assert (len(counts), sum(counts)) == (pictures, heads)
    counts = [
        len(annotations.read_ucf_cc_50(path))
        for path in (shared / "data/UCF_CC_50").glob("*_ann.mat")
    ]
    assert (len(counts), sum(counts)) == (50, 63_974)


def test_mat_errors(tmp_path):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"boxes": POINTS, "other": 1})
    with pytest.raises(UserError, match=r"a\.mat.*found boxes, other"):
        annotations.read(path)
    with pytest.raises(UserError, match="annPoints"):
        annotations.read_ucf_cc_50(path)
    scipy.io.savemat(path, {"annPoints": [[1.0, np.nan], [2.0, 2.0]]})
    with pytest.raises(UserError, match="point 1 is not finite"):
        annotations.read(path)
    scipy.io.savemat(path, {"annPoints": np.ones((4, 3))})
    with pytest.raises(UserError, match="two columns"):
        annotations.read(path)
    scipy.io.savemat(path, {"image_info": POINTS})
    with pytest.raises(UserError, match="a.mat"):
        annotations.read_shanghaitech(path)
    path.write_bytes(b"not a mat file at all")
    with pytest.raises(UserError, match="not a readable .mat"):
        annotations.read(path)
    with pytest.raises(UserError, match="none.mat"):
        annotations.read(tmp_path / "none.mat")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x,y\n1.5,2\n3,4\n", [[1.5, 2], [3, 4]]),
        ("1.5,2\n3,4", [[1.5, 2], [3, 4]]),
        ("\ufeffX, Y\r\n1, 2\r\n\r\n", [[1, 2]]),
        ("5,6\n", [[5, 6]]),
        ("x,y\n", []),
        ("", []),
    ],
)
def test_csv(tmp_path, text, expected):
    path = tmp_path / "a.csv"
    path.write_text(text, encoding="utf-8", newline="")
    found = annotations.read(path)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.reshape(expected, (-1, 2)))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("y,x\n1,2\n", "header"),
        ("1,2,3\n", "line 1: 3 columns"),
        ("x,y\n1,2\n3\n", "line 3: 1 columns"),
        ("1,2\nnan,3\n", "line 2.*not finite"),
        ("1,2\nx,y\n", "line 2"),
        ("a,b\n", "line 1"),
    ],
)
def test_csv_errors(tmp_path, text, match):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"a\.csv.*{match}"):
        annotations.read(path)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([[1, 2], [3.5, 4]], [[1, 2], [3.5, 4]]),
        ({"points": [[1, 2]]}, [[1, 2]]),
        ([{"x": 1, "y": 2, "id": 7}], [[1, 2]]),
        ({"points": [{"y": 2, "x": 1}]}, [[1, 2]]),
        ([], []),
        ({"points": []}, []),
    ],
)
def test_json(tmp_path, value, expected):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(value))
    np.testing.assert_array_equal(annotations.read(path), np.reshape(expected, (-1, 2)))


@pytest.mark.parametrize(
    "text",
    ['{"heads": []}', "[[1, 2, 3]]", "[[1, 2], [3]]", '[["a", 2]]', "[[NaN, 1]]", "{", "7"]
    + ['[{"x": 1}]', '{"points": null}', "[[null, 1]]"],
)
def test_json_errors(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"a\.json"):
        annotations.read(path)


def test_tables(tmp_path):
    (tmp_path / "points.csv").write_text("file,x,y\na.jpg,1,2\nb/c.jpg,3,4\na.jpg,5,6\nd.jpg,,\n")
    table = annotations.read_csv_table(tmp_path / "points.csv")
    assert {name: points.tolist() for name, points in table.items()} == {
        "a.jpg": [[1, 2], [5, 6]],
        "b/c.jpg": [[3, 4]],
        "d.jpg": [],
    }
    (tmp_path / "points.json").write_text('{"a.jpg": [[1, 2]], "b.jpg": []}')
    table = annotations.read_json_table(tmp_path / "points.json")
    assert {name: points.tolist() for name, points in table.items()} == {
        "a.jpg": [[1, 2]],
        "b.jpg": [],
    }


def test_check_points():
    points = np.array([[90.0, 10.0], [80.0, 40.0], [99.9, 49.9], [70.0, 0.0]])
    assert annotations.check_points(points, 50, 100, "a") == 0
    with pytest.raises(UserError, match="a.csv: x and y seem swapped"):
        annotations.check_points(points[:, ::-1], 50, 100, "a.csv")
    beyond = np.concatenate([points, [[-1.0, 3.0], [100.0, 3.0], [5.0, 50.0]]])
    assert annotations.check_points(beyond, 50, 100, "a") == 3
    assert annotations.check_points(np.zeros((0, 2)), 50, 100, "a") == 0
