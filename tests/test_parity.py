"""Exported files against the weights they were made of."""

import dataclasses
import json

import exports
import numpy as np
import pytest
from PIL import Image

from cmtl_jax.errors import UserError
from cmtl_jax.input_pipeline import resize
from cmtl_jax.interop import parity


@pytest.fixture(scope="module")
def counter():
    return exports.counter(exports.trained(model__name="mcnn", input__scale=0.5))


@pytest.fixture
def file(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"0123456789")
    return tmp_path / "x.onnx"


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(exports.pictures([(57, 41)])[0][..., 0]).save(path)
    return path


@pytest.fixture(autouse=True)
def small_drawings(monkeypatch):
    monkeypatch.setattr(parity, "_DRAWN", ((35, 42), (51, 33)))


@pytest.fixture(scope="module")
def unscaled():
    return exports.counter(exports.trained(model__name="mcnn"))


def honest(unscaled, factor=1.0, added=0.0):
    """What a file does that was exported from the weights, on pictures already scaled."""

    def program(picture):
        result = unscaled(picture)
        return result.density * np.float32(factor), result.count + added

    return program


def test_averaged_weights_are_named(file, counter, unscaled, monkeypatch):
    averaged = dataclasses.replace(counter.trained, source="runs/a,runs/b")
    monkeypatch.setattr(counter, "trained", averaged)
    assert "against the weights a+b\n" in parity.check(
        file, honest(unscaled), counter, []
    ).read_text()


def test_a_file_that_counts_as_its_weights_do(file, photo, counter, unscaled):
    text = parity.check(file, honest(unscaled), counter, [photo]).read_text()
    assert "x.onnx (10 bytes) against the weights some-run\nagrees\n" in text
    assert "photo.png (41x57)" in text
    result = json.loads(file.with_name("x.onnx.parity.json").read_text())
    assert result["agrees"] and result["step"] == exports.STEP
    assert result["sha256"].startswith("84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f")
    assert [(one["height"], one["width"]) for one in result["pictures"]][-1] == (57, 41)
    assert len(result["pictures"]) == 3
    one = result["pictures"][-1]
    assert one["count_weights"] == pytest.approx(counter(photo).count)
    assert result["map_relative"] < 1e-6 > result["count_relative"]
    assert str(file.parent) not in text + json.dumps(result)


@pytest.mark.parametrize("fault", [{"factor": 1.01}, {"added": 2.0}])
def test_a_file_that_does_not_is_told(file, photo, counter, fault, unscaled):
    with pytest.raises(UserError, match="does not count as runs/some-run does.*do not use it"):
        parity.check(file, honest(unscaled, **fault), counter, [photo])
    result = json.loads(file.with_name("x.onnx.parity.json").read_text())
    assert not result["agrees"]
    assert "DOES NOT AGREE" in file.with_name("x.onnx.parity.txt").read_text()
    if "factor" in fault:
        assert result["map_relative"] == pytest.approx(0.01, rel=1e-3)


def test_the_differences(counter, unscaled):
    """By hand: a map of which one pixel is wrong."""
    picture = exports.pictures([(40, 40)])[0]
    small = resize.scaled_image(picture, 0.5)
    program = honest(unscaled)

    def wrong(given):
        np.testing.assert_array_equal(given, small)
        density, count = program(given)
        density = density.copy()
        density[3, 5] += 0.5
        return density, count

    one = parity.compare("x", picture, wrong, counter)
    # A pixel of the small map is four of the picture's.
    assert one.map_difference == pytest.approx(0.125, rel=1e-4)
    assert one.map_relative == pytest.approx(0.125 / counter(picture).density.max(), rel=1e-4)
    assert one.count_relative < 1e-6


def test_a_picture_that_is_none(file, counter, tmp_path, unscaled):
    (tmp_path / "x.jpg").write_bytes(b"nothing")
    with pytest.raises(UserError, match="x.jpg is truncated or not a picture"):
        parity.check(file, honest(unscaled), counter, [tmp_path / "x.jpg"])
