"""Weights as an ONNX graph, run by ONNX Runtime."""

import json

import exports
import jax
import numpy as np
import pytest
import released_files

onnx = pytest.importorskip("onnx", reason="onnx is missing: see requirements-onnx.txt")
pytest.importorskip("onnxruntime", reason="onnxruntime is missing: see requirements-onnx.txt")

from cmtl_jax import pictures as picture_files  # noqa: E402
from cmtl_jax.interop import onnx_file  # noqa: E402

SIZES = [(32, 48), (29, 46), (4, 9)]


def program(path, weights):
    path.write_bytes(onnx_file.encode(weights))
    return onnx_file.Program(path)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model__name": "single_stage", "model__output_activation": "softplus"},
        {"model__name": "mcnn", "input__channels": 3, "input__mean": 100.0},
        {"model__prior_fusion": "film"},
        {
            "model__prior_fusion": "film",
            "model__prior_pool": "spp",
            "model__logit_activation": "prelu",
            "model__up_maps": (16, 18),
        },
    ],
    ids=["cmtl", "single_stage", "mcnn", "film", "film_spp"],
)
def test_it_counts_as_the_weights_do(tmp_path, changes):
    weights = exports.trained(**changes)
    images = exports.pictures(SIZES, weights.config.input.channels)
    exports.assert_counts_like(program(tmp_path / "x", weights), weights, images, 1e-5)


def test_the_authors_resizing_is_inside(tmp_path):
    weights = exports.released(tmp_path / "x.h5")
    assert weights.config.input.resize == "multiple_of_4"
    run = program(tmp_path / "x", weights)
    exports.assert_counts_like(run, weights, exports.pictures(SIZES), 2e-5)
    assert "resized inside" in run.about["preprocessing"] and "from 4 on" in run.about["image"]
    # By the definition of the network, where nothing is resized.
    image = exports.pictures([(32, 44)])[0]
    people = released_files.plain_mcnn(
        released_files.read(tmp_path / "x.h5"), image[..., 0].astype(np.float64)
    )
    density, count = run(image)
    cells = density.reshape(8, 4, 11, 4).sum((1, 3))
    np.testing.assert_allclose(cells, people, rtol=0, atol=1e-5 * people.max())
    assert count == pytest.approx(people.sum(), rel=1e-5)


def test_a_batch_counts_as_its_pictures_do(tmp_path):
    import onnxruntime

    run = program(tmp_path / "x", exports.trained())
    images = exports.pictures([(37, 22)] * 3)
    session = onnxruntime.InferenceSession(
        str(tmp_path / "x"), providers=["CPUExecutionProvider"]
    )
    batch = np.stack(images).transpose(0, 3, 1, 2)
    density, count = session.run(None, {"image": batch})
    assert density.shape == (3, 1, 37, 22) and count.shape == (3,)
    for i, image in enumerate(images):
        alone, number = run(image)
        np.testing.assert_allclose(density[i, 0], alone, rtol=0, atol=1e-5 * alone.max())
        assert count[i] == pytest.approx(number, rel=1e-5)


def test_real_pictures(tmp_path, shared):
    """Parts of part B's test pictures, by the weights that the authors of MCNN released."""
    from cmtl_jax import trained_model

    source = shared / "fixtures/mcnn_shtechB_110.h5"
    weights = trained_model.restore(source, exports.single())
    folder = shared / "data/ShanghaiTech/part_B_final/test_data/images"
    files = sorted(folder.glob("*.jpg"))[:5]
    images = [picture_files.read(file)[300:493, 200:449] for file in files]
    assert len(images) == 5
    exports.assert_counts_like(program(tmp_path / "x", weights), weights, images, 2e-5)


def test_what_the_file_says(tmp_path):
    weights = exports.trained(input__scale=0.5)
    model = onnx.load_from_string(onnx_file.encode(weights))
    onnx.checker.check_model(model, full_check=True)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", onnx_file.OPSET)]
    shapes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in [*model.graph.input, *model.graph.output]
    }
    assert shapes == {
        "image": ["batch", 1, "height", "width"],
        "density": ["batch", 1, "height", "width"],
        "count": ["batch"],
    }
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert "first resize both sides to 0.5 times" in said["preprocessing"]
    assert "(value - 113) / 64 is done inside" in said["preprocessing"]
    assert said["step"] == str(exports.STEP) and float(said["input_std"]) == 64
    assert "Sindagi" in json.loads(said["cite"])[0]
    assert "do not divide" in model.doc_string


def test_the_unused_head_is_left_out():
    weights = exports.trained()
    data = onnx_file.encode(weights)
    held = {tuple(x.dims) for x in onnx.load_from_string(data).graph.initializer}
    needed = sum(
        x.nbytes
        for name, part in weights.params.items()
        if name != "head"
        for x in jax.tree.leaves(part)
    )
    assert (4096, 512) not in held
    assert needed < len(data) < needed + 50_000
