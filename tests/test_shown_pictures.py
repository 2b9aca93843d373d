"""Which pictures a report shows."""

import math

from cmtl_jax.evaluation import shown_pictures
from cmtl_jax.metrics import ImageMetrics


def images(errors, stray):
    return [
        ImageMetrics(str(i), 100, 100.0 + error, None, None, (0.0,) * 4, stray=people)
        for i, (error, people) in enumerate(zip(errors, stray, strict=True))
    ]


def test_a_third_each_and_none_twice():
    many = images([9, -30, 1, 20, 0, 5, -3, 40, 2], [0, 0, 50, 0, 7, 9, 0, 60, 0.5])
    assert shown_pictures.choose(many, 6) == {
        "largest errors": [7, 1],
        "most counted where nobody is": [2, 5],
        "smallest errors": [4, 8],
    }


def test_nobody_counted_where_nobody_is_leaves_room_for_others():
    shown = shown_pictures.choose(images([1, 2, 3, 4], [0.2, math.nan, 0.9, 0]), 3)
    assert shown["most counted where nobody is"] == []
    assert shown["largest errors"] == [3] and shown["smallest errors"] == [0, 1]


def test_few_pictures_or_none():
    two = images([1, 2], [3, 3])
    assert shown_pictures.choose(two, 12) == {
        "largest errors": [1], "most counted where nobody is": [], "smallest errors": [0]
    }  # fmt: skip
    assert not any(shown_pictures.choose(two, 0).values())
