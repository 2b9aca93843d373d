"""The authors' weights: recognised, computed with as by the authors' code, used everywhere."""

import csv
import json

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import released_files
import small_run
from PIL import Image
from work_folders import CommandLine, kept_logging, only_error

import cmtl_jax
from cmtl_jax import trained_model
from cmtl_jax.errors import UserError
from cmtl_jax.evaluation import run
from cmtl_jax.input_pipeline import data as data_lib
from cmtl_jax.interop import released
from cmtl_jax.models import registry
from cmtl_jax.parallel import Parallel
from cmtl_jax.training import train


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A file of each model with random weights."""
    folder = tmp_path_factory.mktemp("files")
    return {
        model: released_files.write(folder / f"{model}.h5", released_files.arrays(model))
        for model in ("cmtl", "mcnn")
    }


@pytest.mark.parametrize("crop", "abcd")
def test_density_and_logits_equal_the_released_networks(shared, crop):
    golden = np.load(shared / "fixtures/cmtl_golden.npz")
    params = released.read(shared / "fixtures/cmtl_random.h5")
    model = registry.build("cmtl", **released.ARCHITECTURE)
    image = golden[f"{crop}_image"].astype(np.float32)
    height, width = image.shape[-2:]
    image = jnp.asarray(image.reshape(1, height, width, 1))
    output = jax.jit(model.apply)({"params": params}, image, jnp.array([[height, width]]))
    for name, ours in (("density", output.density), ("logits", output.group_logits)):
        theirs = golden[f"{crop}_{name}"]
        difference = np.abs(np.asarray(ours).reshape(theirs.shape) - theirs).max()
        assert difference <= 1e-5 * np.abs(theirs).max()


def test_the_density_path_equals_the_released_networks_on_the_stored_crop(tmp_path):
    """The smallest crop and the density path's weights are part of the tests."""
    golden = dict(np.load(released_files.GOLDEN))
    image = golden.pop("image")
    expected = {name: golden.pop(name) for name in ("density", "prior_features")}
    assert sum(array.size for array in golden.values()) == 222_017
    path = released_files.write(tmp_path / "x.h5", released_files.zeros("cmtl") | golden)
    model = registry.build("cmtl", **released.ARCHITECTURE)

    @jax.jit
    def compute(params, image):
        output, state = model.apply(
            {"params": params},
            image,
            jnp.array([image.shape[1:3]]),
            capture_intermediates=lambda module, _: module.name == "prior",
        )
        return output.density, state["intermediates"]["prior"]["__call__"][0]

    density, prior = compute(released.read(path), image[None, :, :, None].astype(np.float32))
    for name, ours in (("density", density), ("prior_features", prior)):
        theirs = expected[name]
        difference = np.abs(np.asarray(ours).transpose(0, 3, 1, 2) - theirs).max()
        assert difference <= 1e-5 * np.abs(theirs).max(), name


@pytest.mark.parametrize("name", ["cmtl_random", "mcnn_shtechA_660", "mcnn_shtechB_110"])
def test_there_and_back_is_the_same_to_the_bit(shared, name):
    path = shared / f"fixtures/{name}.h5"
    weights = released.load(path)
    back, before = released.to_theirs(weights.model, weights.params), released_files.read(path)
    assert back.keys() == before.keys()
    for key, array in before.items():
        assert back[key].shape == array.shape and back[key].tobytes() == array.tobytes(), key


@pytest.mark.parametrize("model", ["cmtl", "mcnn"])
def test_files_are_recognised_and_bring_their_preprocessing(files, model, tmp_path):
    trained = trained_model.restore(files[model], Parallel())
    c = trained.config
    assert c.model.name == model and trained.step is None and not trained.groups.edges
    assert (c.input.channels, c.input.mean, c.input.std) == (1, 0.0, 1.0)
    assert c.input.resize == "multiple_of_4" and c.loss.density_scale == 1.0
    assert c.model.logit_activation == "prelu"
    expected = jax.tree.map(jnp.shape, released.shapes(model))
    assert jax.tree.map(jnp.shape, trained.params) == expected

    # Saved by training, under a name without suffix, without the prefix.
    arrays = released_files.read(files[model])
    arrays = {key.split(".", 1)[1]: array for key, array in arrays.items()}
    arrays["loss_bce_fn.weight"] = np.ones(10, np.float32)
    again = trained_model.restore(released_files.write(tmp_path / "x", arrays), Parallel())
    jax.tree.map(np.testing.assert_array_equal, again.params, trained.params)


def test_attributes_say_other_preprocessing(files, tmp_path):
    attributes = {"input_mean": 113, "input_std": 64.0, "input_resize": "none"}
    arrays = released_files.read(files["mcnn"])
    path = released_files.write(tmp_path / "x.h5", arrays, density_scale=50.0, **attributes)
    c = trained_model.restore(path, Parallel()).config
    assert (c.input.mean, c.input.std, c.input.resize) == (113.0, 64.0, "none")
    assert c.loss.density_scale == 50.0
    for wrong in (
        {"input_std": 0.0},
        {"input_mean": "dark"},
        {"input_resize": "half"},
        {"about": "{"},
        {"about": "{}"},
        {"about": json.dumps({"config": {"model": 3}, "groups": {}, "data": ""})},
    ):
        path = released_files.write(tmp_path / "x.h5", arrays, **wrong)
        with pytest.raises(UserError, match=r"x\.h5"):
            trained_model.restore(path, Parallel())


def test_other_files_are_refused_with_what_they_are(files, tmp_path):
    def refused(path, match):
        with pytest.raises(UserError, match=match):
            trained_model.restore(path, Parallel())

    (tmp_path / "x.pth").write_bytes(b"PK\x03\x04")
    refused(tmp_path / "x.pth", r"x\.pth cannot be read as HDF5")
    refused(tmp_path / "none.h5", "no such work folder or released file")
    path = tmp_path / "x.h5"
    released_files.write(path, {"layer1.weight": np.ones(3), "fc.bias": np.ones(1)})
    refused(path, r"neither CMTL .* nor MCNN .*; it holds fc\.bias, layer1\.weight")
    with h5py.File(path, "w") as file:  # as Keras writes them
        file.create_group("model_weights")
    refused(path, "no arrays under names of its own")
    for model, name in (("cmtl", "CMTL"), ("mcnn", "MCNN")):
        arrays = released_files.read(files[model])
        key = sorted(arrays)[7]
        released_files.write(path, {k: v for k, v in arrays.items() if k != key})
        refused(path, f"holds {name}, but {key} is missing")
        released_files.write(path, arrays | {key: arrays[key][None]})
        refused(path, f"holds {name}, but {key} has shape")
        released_files.write(path, arrays | {"CCN.extra.weight": np.ones(1)})
        refused(path, f"holds {name} and .*extra.weight, which that does not have")
    raw = files["mcnn"].read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    refused(path, "HDF5")


@pytest.fixture
def config(tmp_path_factory, files):
    folder = small_run.common(tmp_path_factory)
    small_run.compile_once(folder)
    return lambda model, **changes: small_run.config(
        folder, init_from=str(files[model]), **changes
    )


def counts(folder) -> dict[str, float]:
    with (folder / "per_image.csv").open() as file:
        return {row["id"]: float(row["count_pred"]) for row in csv.DictReader(file)}


def test_evaluation_and_prediction_count_as_the_released_code_does(files, config, tmp_path):
    """Pictures of odd sizes, against the plain network on the picture resized."""
    import cv2

    c = config("mcnn", eval__triptychs=2)
    c.dataset.options.update(height=(41, 63), width=(41, 63))
    result = run.evaluate_checkpoint(c, tmp_path)
    assert result["checkpoint_step"] is None and result["num_images"] == 3
    assert "resized down to a multiple of 4" in result["protocol"]["pictures"]
    assert result["protocol"]["trained on"] == "not known, model mcnn"
    assert result["protocol"]["selection"] == "as released"
    found = counts(tmp_path / "eval/synthetic-test")
    counter = cmtl_jax.load(files["mcnn"])
    pictures = data_lib.load(c).pictures("test")
    arrays = released_files.read(files["mcnn"])
    odd = 0
    shown = []
    for i in range(len(pictures)):
        grey = pictures[i].image[..., 0]
        height, width = grey.shape
        odd += height % 4 > 0 or width % 4 > 0
        seen = cv2.resize(grey.astype(np.float32), (width // 4 * 4, height // 4 * 4))
        expected = released_files.plain_mcnn(arrays, seen).sum()
        assert found[pictures[i].id] == pytest.approx(expected, rel=1e-4)
        counted = counter(grey)
        assert counted.count == pytest.approx(expected, rel=1e-5)
        assert counted.density.shape == grey.shape
        assert counted.density.sum(dtype=np.float64) == pytest.approx(expected, rel=1e-5)
        np.testing.assert_array_equal(counted.picture, grey)
        shown.append(grey)
    assert odd
    for i, counted in enumerate(counter.batch(shown, batch_size=2)):
        assert counted.density.shape == shown[i].shape
        assert counted.count == pytest.approx(found[pictures[i].id], rel=1e-4)


def test_as_weights_of_prediction(files, tmp_path, capfd):
    from cmtl_jax import predict

    Image.fromarray(np.arange(37 * 50, dtype=np.uint8).reshape(37, 50)).save(tmp_path / "a.png")
    with kept_logging():
        assert predict.main([str(tmp_path / "a.png"), f"--weights={files['cmtl']}"]) == 0
    out, err = capfd.readouterr()
    counted = cmtl_jax.load(str(files["cmtl"]))(tmp_path / "a.png").count
    assert out == f"{tmp_path / 'a.png'}\t{counted:.1f}\n" and err == ""
    (tmp_path / "x.h5").write_bytes(b"no")
    with kept_logging():
        assert predict.main([str(tmp_path / "a.png"), f"--weights={tmp_path}/x.h5"]) == 1
    assert "x.h5 cannot be read as HDF5" in only_error(capfd.readouterr()[1])


def test_resizing_is_of_the_weights_not_of_the_data_sets_config(files, config, tmp_path):
    """The same weights with an attribute that says not to resize count otherwise."""
    c = config("mcnn")
    c.dataset.options.update(height=(41, 63), width=(41, 63))
    before = run.evaluate_checkpoint(c, tmp_path / "a")
    path = released_files.write(
        tmp_path / "x.h5", released_files.read(files["mcnn"]), input_resize="none"
    )
    c.init_from = str(path)
    after = run.evaluate_checkpoint(c, tmp_path / "b")
    assert "not resized" in after["protocol"]["pictures"]
    assert after["mean_count_true"] == before["mean_count_true"]
    assert after["mean_count_pred"] != pytest.approx(before["mean_count_pred"], rel=1e-5)
    padded = cmtl_jax.load(path)
    pictures = data_lib.load(c).pictures("test")
    found = counts(tmp_path / "b/eval/synthetic-test")
    for i in range(len(pictures)):
        assert padded(pictures[i].image).count == pytest.approx(found[pictures[i].id], rel=1e-4)


def initial_weights(c, tmp_path):
    data = data_lib.load(c)
    return train._Run(c, tmp_path, Parallel(), data, None)._initial_weights()


def test_training_starts_from_them(files, config, tmp_path, caplog):
    as_released = {"input__mean": 0.0, "input__std": 1.0, "loss__density_scale": 1.0}
    c = config("mcnn", model__name="mcnn", **as_released)
    expected = released.read(files["mcnn"])
    jax.tree.map(np.testing.assert_array_equal, initial_weights(c, tmp_path), expected)
    assert "other settings" not in caplog.text
    c.input.mean = 113.0
    c.loss.density_scale = 100.0
    jax.tree.map(np.testing.assert_array_equal, initial_weights(c, tmp_path), expected)
    assert "--config.input.mean=0 --config.loss.density_scale=1" in caplog.text
    assert "input.std" not in caplog.text


def test_training_another_model_from_them_is_refused(config, tmp_path):
    for c in (config("mcnn"), config("cmtl", groups__number=10)):  # without PReLU on the logits
        with pytest.raises(UserError, match="of another model than this config's"):
            initial_weights(c, tmp_path)


@pytest.mark.slow
def test_official_mcnn_on_part_b(shared, tmp_path, monkeypatch, capfd):
    """What the authors' own code gives with these weights."""
    status, _, err = CommandLine(monkeypatch, capfd)(
        f"--config={small_run.ROOT / 'configs/shb.py'}", "--mode=eval", f"--workdir={tmp_path}",
        f"--config.init_from={shared / 'fixtures/mcnn_shtechB_110.h5'}",
        f"--config.dataset.raw_dir={shared / 'data/ShanghaiTech'}",
        f"--config.dataset.tfds_dir={tmp_path / 'tfds'}",
    )  # fmt: skip
    assert status == 0, err
    text = (tmp_path / "eval/shanghaitech-part_b-test/metrics.json").read_text()
    result = json.loads(text)
    assert result["num_images"] == 316
    assert result["mae"] == pytest.approx(25.20, abs=0.02)
    assert result["rmse"] == pytest.approx(43.68, abs=0.02)
