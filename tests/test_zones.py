"""Zones: exactly one zone for each pixel, and what is no zone."""

import fractions
import json

import numpy as np
import pytest

from cmtl_jax.errors import UserError
from cmtl_jax.prediction.zones import Zones


def zones(unit="pixels", **points):
    return Zones({name: np.array(p, float).reshape(-1, 2) for name, p in points.items()}, unit)


def inside(points, x, y):
    """Whether (x, y) lies in a polygon, exactly: the sides to its left are odd in number."""
    result = False
    points = [tuple(fractions.Fraction(round(c * 256), 256) for c in p) for p in points]
    for (x1, y1), (x2, y2) in zip(points, points[1:] + points[:1], strict=True):
        if (y1 <= y) != (y2 <= y):
            result ^= x1 + (y - y1) * (x2 - x1) / (y2 - y1) <= x
    return result


@pytest.fixture
def read(tmp_path):
    def call(content):
        path = tmp_path / "zones.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return Zones.read(path)

    return call


def test_a_rectangle_holds_the_pixels_whose_centres_it_holds():
    mask = zones(a=[[1, 2], [4, 2], [4, 5], [1, 5]]).masks(6, 7)["a"]
    expected = np.zeros((6, 7), bool)
    expected[2:5, 1:4] = True
    np.testing.assert_array_equal(mask, expected)
    # Half pixels: the centre on the left and upper border is inside, on the right and lower not.
    mask = zones(a=[[1.5, 2.5], [4.5, 2.5], [4.5, 5.5], [1.5, 5.5]]).masks(6, 7)["a"]
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("seed", range(4))
def test_any_polygon_is_the_rule_pixel_by_pixel(seed):
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    radius = rng.uniform(2, 8, 9)
    points = np.stack([10 + radius * np.cos(angles), 9 + radius * np.sin(angles)], axis=1)
    if seed % 2:
        points = np.round(points * 2) / 2  # corners on centres and between pixels
    mask = zones(a=points).masks(18, 20)["a"]
    half = fractions.Fraction(1, 2)
    expected = [[inside(points.tolist(), x + half, y + half) for x in range(20)] for y in range(18)]
    np.testing.assert_array_equal(mask, expected)
    assert mask.any() and not mask.all()


@pytest.mark.parametrize("size", [(48, 64), (47, 61), (480, 640), (1, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_zones_that_partition_a_picture_sum_to_its_count(size, seed):
    """Triangles around any point inside, cut once more: every border is shared."""
    height, width = size
    rng = np.random.default_rng(seed)
    middle = rng.uniform(0.2, 0.8, 2).round(seed + 1)
    low = [middle[0] * 0.5, 1.0]
    corners = [[0, 0], [1, 0], [1, 1], low, [0, 1]]  # one more corner on the lower side
    parts = {f"{i}": [corners[i], corners[(i + 1) % 5], middle] for i in range(5)}
    cut = zones("fraction", **parts)
    masks = cut.masks(height, width)
    np.testing.assert_array_equal(sum(mask.astype(int) for mask in masks.values()), 1)
    density = rng.random((height, width), np.float32)
    total = sum(cut.counts(density).values())
    assert total == pytest.approx(density.sum(dtype=np.float64), rel=1e-12)


def test_a_corner_on_a_slanted_side_leaves_no_gap():
    side = [[1, 0], [9, 16]]  # x = 1 + y / 2, through (3, 4) and the centre (3.5, 5)
    masks = zones(
        left=[[0, 0], *side, [0, 16]],
        above=[side[0], [16, 0], [16, 4], [3, 4]],
        below=[[3, 4], [16, 4], [16, 16], side[1]],
    ).masks(16, 16)
    np.testing.assert_array_equal(sum(mask.astype(int) for mask in masks.values()), 1)


def test_opencv_would_count_borders_twice():
    """Why the rule is our own."""
    cv2 = pytest.importorskip("cv2")
    left, right = [[0, 0], [5, 0], [5, 9], [0, 9]], [[5, 0], [9, 0], [9, 9], [5, 9]]
    drawn = sum(cv2.fillPoly(np.zeros((10, 10), np.uint8), [np.array(p)], 1) for p in (left, right))
    assert drawn.max() == 2


def test_the_whole_picture_and_overlaps():
    density = np.random.default_rng(0).random((30, 40))
    found = zones(
        all=[[0, 0], [40, 0], [40, 30], [0, 30]], top=[[0, 0], [40, 0], [40, 10], [0, 10]]
    ).counts(density)
    assert found["all"] == pytest.approx(density.sum())
    assert found["top"] == pytest.approx(density[:10].sum())


def test_fractions_follow_the_size_of_the_picture():
    half = zones("fraction", left=[[0, 0], [0.5, 0], [0.5, 1], [0, 1]])
    for width in (10, 20, 10):
        mask = half.masks(4, width)["left"]
        assert mask.shape == (4, width) and mask[:, : width // 2].all() and mask.mean() == 0.5
    np.testing.assert_array_equal(half.polygons(4, 10)["left"], [[0, 0], [5, 0], [5, 4], [0, 4]])


def test_direction_and_a_repeated_first_corner_do_not_matter():
    points = [[1, 1], [9, 2], [7, 8], [2, 6]]
    expected = zones(a=points).masks(10, 10)["a"]
    for same in (points[::-1], [*points, points[0]], [points[0], *points], points[2:] + points[:2]):
        np.testing.assert_array_equal(zones(a=same).masks(10, 10)["a"], expected)


def test_many_corners_are_no_trouble():
    angle = np.linspace(0, 2 * np.pi, 2000, endpoint=False)
    circle = np.stack([500 + 400 * np.cos(angle), 500 + 400 * np.sin(angle)], axis=1)
    mask = zones(a=circle).masks(1000, 1000)["a"]
    assert mask.sum() == pytest.approx(np.pi * 400**2, rel=1e-4)


def test_read(read):
    found = read({"zones": {"Nord 北": [[0, 0], [10, 0], [0, 10]]}})
    assert found.unit == "pixels" and list(found.points) == ["Nord 北"]
    found = read('\ufeff{"unit": "fraction", "zones": {"a": [[0, 0], [1, 0], [0, 1]]}}')
    assert found.unit == "fraction"


TRIANGLE = [[0, 0], [10, 0], [0, 10]]


@pytest.mark.parametrize(
    "content, says",
    [
        ("", "no readable JSON"),
        ("{", "no readable JSON"),
        ("[" * 100_000, "no readable JSON"),
        ("[]", "expected"),
        ({"zones": []}, "expected"),
        ({"zones": {}}, "there is no zone"),
        ({"zones": {"a": TRIANGLE}, "units": "pixels"}, "'units' is not understood"),
        ({"zones": {"a": TRIANGLE}, "unit": "feet"}, "must be one of"),
        ({"zones": {"a": TRIANGLE}, "unit": ["pixels"]}, "must be one of"),
        ('{"zones": {"a": [[0,0],[9,0],[0,9]], "a": [[0,0],[9,0],[0,9]]}}', "'a' is there twice"),
        ({"zones": {"": TRIANGLE}}, "needs a name"),
        ({"zones": {"a\nb": TRIANGLE}}, "needs a name"),
        ({"zones": {"\x1b[2J": TRIANGLE}}, "needs a name"),
        ({"zones": {"a" * 101: TRIANGLE}}, "needs a name"),
        ({"zones": {"a": 3}}, "'a' must be a list of corners"),
        ({"zones": {"a": [1, 2, 3]}}, "corner 1 is 1"),
        ({"zones": {"a": [[0, 0], [1, 2, 3], [4, 5]]}}, r"corner 2 is \[1, 2, 3\]"),
        ({"zones": {"a": [[0, 0], [1, "2"], [4, 5]]}}, "corner 2"),
        ({"zones": {"a": [[0, 0], [1, True], [4, 5]]}}, "corner 2"),
        ({"zones": {"a": [[0, 0], [1, float("nan")], [4, 5]]}}, "corner 2"),
        ({"zones": {"a": [[0, 0], [1, 10**400], [4, 5]]}}, "corner 2"),
        ({"zones": {"a": []}}, "fewer than 3"),
        ({"zones": {"a": [[0, 0], [9, 9]]}}, "fewer than 3"),
        ({"zones": {"a": [[0, 0], [9, 9], [0, 0]]}}, "fewer than 3"),
        ({"zones": {"a": [[0, 0], [5, 5], [9, 9]]}}, "cross or touch"),
        ({"zones": {"a": [[0, 0], [9, 9], [9, 0], [0, 9]]}}, r"\(0, 0\) and \(9, 0\) cross"),
        ({"zones": {"a": [[0, 0], [9, 0], [9, 9], [4, 0], [0, 9]]}}, "cross or touch"),
        ({"zones": {"a": [[0, 0], [9, 0], [9, 9], [9, 4], [9, 6], [0, 9]]}}, "cross or touch"),
        ({"zones": {"a": [[-1, 0], [9, 9], [9, 0]]}}, "outside the picture"),
        ({"unit": "fraction", "zones": {"a": [[0, 0], [1.1, 0], [0, 1]]}}, "0 to 1"),
        ({"zones": {"a": [[0, 0], [1, 0], [0, 0.5]]}}, "fraction"),
    ],
)
def test_what_is_no_zone(read, content, says, tmp_path):
    with pytest.raises(UserError, match=says) as info:
        read(content)
    assert str(tmp_path / "zones.json") in str(info.value)
    assert "\n" not in str(info.value) and "\x1b" not in str(info.value)


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="none.json.*No such file"):
        Zones.read(tmp_path / "none.json")


def test_a_corner_outside_the_picture_is_told_with_its_size():
    a = zones(a=[[0, 0], [640, 0], [640, 480]])
    a.masks(480, 640)
    with pytest.raises(UserError, match=r"'a' has a corner at \(640, 0\).*639x480 pixels"):
        a.counts(np.zeros((480, 639)))
    with pytest.raises(UserError, match="smaller than a pixel in a picture of 1x1"):
        zones("fraction", a=[[0, 0], [0.001, 0], [0, 0.001]]).masks(1, 1)
