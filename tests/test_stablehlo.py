"""Weights as a StableHLO program."""

import json
import re
import subprocess
import sys

import exports
import jax
import numpy as np
import pytest
import released_files
from conftest import ROOT

from cmtl_jax.interop import stablehlo
from cmtl_jax.kernels import library

SIZES = [(32, 48), (29, 46)]  # one program for both


def program(path, weights):
    path.write_bytes(stablehlo.encode(weights))
    return stablehlo.Program(path)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "model__name": "single_stage",
            "model__output_activation": "softplus",
            "input__channels": 3,
            "input__mean": 100.0,
        },
        {"model__prior_fusion": "film"},
    ],
    ids=["cmtl", "single_stage", "film"],
)
def test_it_counts_as_the_weights_do(tmp_path, changes):
    weights = exports.trained(**changes)
    images = exports.pictures(SIZES, weights.config.input.channels)
    exports.assert_counts_like(program(tmp_path / "x", weights), weights, images)


def test_the_authors_resizing_is_inside(tmp_path):
    """Pictures whose sides 4 does not divide are resized, and their maps brought back."""
    weights = exports.released(tmp_path / "x.h5")
    assert weights.config.input.resize == "multiple_of_4"
    run = program(tmp_path / "x", weights)
    exports.assert_counts_like(run, weights, exports.pictures([(29, 46), (3, 9)]), 2e-5)
    assert "resized inside" in run.about["preprocessing"]
    # By the definition of the network, where nothing is resized.
    image = exports.pictures([(32, 48)])[0]
    people = released_files.plain_mcnn(
        released_files.read(tmp_path / "x.h5"), image[..., 0].astype(np.float64)
    )
    density, count = run(image)
    cells = density.reshape(8, 4, 12, 4).sum((1, 3))
    np.testing.assert_allclose(cells, people, rtol=0, atol=1e-5 * people.max())
    assert count == pytest.approx(people.sum(), rel=1e-5)


def test_a_map_resized_by_a_known_ratio():
    """8 pixels on 6: each new pixel is 4/3 old ones, and bilinear values lie on a ramp's line."""
    old, new = np.array([8]), np.array([6])
    ramp = np.arange(8.0)
    spread = np.asarray(stablehlo._spread(old, new, 8))[0] @ ramp
    assert spread[:3] == pytest.approx([1 / 3, 2 / 3 + 2 * 2 / 3, 2 / 3 + 3])
    assert spread.sum() == pytest.approx(ramp.sum()) and not spread[6:].any()
    line = np.asarray(stablehlo._bilinear(old, new, 8))[0] @ ramp
    assert line[:6] == pytest.approx((np.arange(6) + 0.5) * 8 / 6 - 0.5)


def test_a_batch_of_pictures_of_several_sizes():
    """Each counts as alone, whatever lies beside it."""
    weights = exports.trained(model__name="mcnn")
    alone = exports.counter(weights)
    images = exports.pictures([(21, 27), (32, 20), (1, 1)])
    batch = np.random.default_rng(0).integers(0, 256, (3, 32, 28, 1), dtype=np.uint8)
    for row, image in zip(batch, images, strict=True):
        row[: image.shape[0], : image.shape[1]] = image
    size = np.array([image.shape[:2] for image in images], np.int32)
    result = stablehlo.build(weights).call(batch, size)
    for i, image in enumerate(images):
        height, width = image.shape[:2]
        expected = alone(image)
        got = np.array(result["density"][i, ..., 0])
        np.testing.assert_allclose(
            got[:height, :width], expected.density, rtol=0, atol=1e-6 * expected.density.max()
        )
        assert float(result["count"][i]) == pytest.approx(expected.count, rel=1e-5)
        got[:height, :width] = 0
        assert not got.any()


_ALONE = """
import builtins, json, sys
def refuse(name, *arguments, real=builtins.__import__, **named):
    first = name.partition(".")[0]
    if first in ("flax", "cmtl_jax", "optax", "orbax", "ml_collections", "h5py", "safetensors",
                 "tensorflow_datasets", "grain", "cv2", "PIL"):
        raise ImportError(f"{first} is not to be had")
    return real(name, *arguments, **named)
builtins.__import__ = refuse
import jax, numpy as np
from jax import export
with open(sys.argv[1], "rb") as file:
    data = file.read()
about = json.loads(data.splitlines()[-1])
exported = export.deserialize(bytearray(data))
image = np.load(sys.argv[2])
height, width = image.shape[:2]
batch = np.pad(image, ((0, -height % 4), (0, -width % 4), (0, 0)))[None]
result = exported.call(batch, np.array([[height, width]], np.int32))
np.save(sys.argv[3], np.asarray(result["density"])[0, :height, :width, 0])
print(json.dumps([float(result["count"][0]), about["preprocessing"], about["step"]]))
"""


def test_a_fresh_process_with_jax_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(library, "available", lambda: False)  # XLA computes both
    weights = exports.trained()
    image = exports.pictures([(29, 46)])[0]
    np.save(tmp_path / "image.npy", image)
    (tmp_path / "x.stablehlo").write_bytes(stablehlo.encode(weights))
    files = [tmp_path / name for name in ("x.stablehlo", "image.npy", "density.npy")]
    done = subprocess.run(
        [sys.executable, "-c", _ALONE, *map(str, files)],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    count, preprocessing, step = json.loads(done.stdout.splitlines()[-1])
    expected = exports.counter(weights)(image)
    assert count == pytest.approx(expected.count, rel=1e-5)
    density = np.load(tmp_path / "density.npy")
    np.testing.assert_allclose(
        density, expected.density, rtol=0, atol=1e-6 * expected.density.max()
    )
    assert "(value - 113) / 64 is done inside" in preprocessing and step == exports.STEP


def test_what_is_inside():
    """No unused head, no trick that only one device or shape knows, no path of this machine."""
    weights = exports.trained()
    sizes = {
        name: sum(x.nbytes for x in jax.tree.leaves(part)) for name, part in weights.params.items()
    }
    data = stablehlo.encode(weights)
    needed = sum(sizes.values()) - sizes["head"]
    assert needed < len(data) < needed + sizes["head"] / 10
    exported = jax.export.deserialize(bytearray(data))
    assert exported.platforms == ("cpu", "cuda")
    text = exported.mlir_module()
    # Symbolic shapes take the plain convolution, on every device.
    found = re.findall(r"stablehlo\.convolution.*?tensor<(\d+x\d+x\d+x\d+)xf32>\) ->", text)
    kernels = {
        "x".join(map(str, x.shape))
        for name, part in weights.params.items() if name != "head"
        for x in jax.tree.leaves(part) if x.ndim == 4 and x.shape[0] % 2  # not those of up1, up2
    }  # fmt: skip
    assert kernels <= set(found) and len(kernels) > 10
    assert set(re.findall(r"custom_call @(\w+)", text)) <= {"shape_assertion"}
    assert "stablehlo.fft" not in text
    assert "precision HIGHEST" in text and "precision DEFAULT" not in text
    assert str(ROOT).encode() not in data and b".py" not in data


def test_precision_is_a_choice():
    weights = exports.trained(model__name="mcnn")
    text = stablehlo.build(weights, precision="tensorfloat32").mlir_module()
    assert "precision HIGHEST" not in text


def test_sides_that_4_does_not_divide_are_refused(tmp_path):
    exported = stablehlo.build(exports.trained(model__name="mcnn"))
    with pytest.raises(ValueError, match="4"):
        exported.call(np.zeros((1, 61, 48, 1), np.uint8), np.array([[61, 48]], np.int32))
