"""The authors' weights: recognised, computed with as by the authors' code, used everywhere."""

import csv
import functools
import itertools
import json

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import released_files
import scipy.signal
import small_run
from PIL import Image
from work_folders import CommandLine, kept_logging, only_error

import cmtl_jax
from cmtl_jax import config as base_config
from cmtl_jax import trained_model
from cmtl_jax.errors import UserError
from cmtl_jax.evaluation import run
from cmtl_jax.input_pipeline import data as data_lib
from cmtl_jax.input_pipeline.loader import Shard
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


def plain_cmtl(theirs, grey):
    """What CMTL's definition gives on the authors' own arrays, in float64.

    Args:
        theirs: arrays by key.
        grey: [H, W], H and W multiples of 4.

    Returns:
        People a pixel [H, W], and logits [10].
    """
    theirs = {k.removeprefix("CCN."): v.astype(np.float64) for k, v in theirs.items()}

    def prelu(x, key):
        return np.where(x >= 0, x, theirs[f"{key}.weight"] * x)

    def conv(x, key, activation=None):
        weight, bias = theirs[f"{key}.conv.weight"], theirs[f"{key}.conv.bias"]
        maps = [
            sum(scipy.signal.correlate2d(c, w, "same") for c, w in zip(x, kernel, strict=True)) + b
            for kernel, b in zip(weight, bias, strict=True)
        ]
        return (activation or (lambda x: prelu(x, f"{key}.relu")))(np.stack(maps))

    def pool(x):
        return np.maximum.reduce([x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)])

    def stage(x, key):
        x = pool(conv(pool(conv(x, f"{key}.0")), f"{key}.2"))
        return conv(conv(x, f"{key}.4"), f"{key}.5")

    def up(x, key):
        """Each value adds its 4x4 window to the map of twice the size, stride 2, padding 1."""
        height, width = x.shape[1:]
        weight = theirs[f"{key}.weight"]  # [in, out, 4, 4]
        y = np.zeros((weight.shape[1], 2 * height + 2, 2 * width + 2))
        for i, j in itertools.product(range(4), repeat=2):
            part = np.einsum("chw,co->ohw", x, weight[:, :, i, j])
            y[:, i : i + 2 * height : 2, j : j + 2 * width : 2] += part
        return y[:, 1:-1, 1:-1] + theirs[f"{key}.bias"][:, None, None]

    shared = conv(conv(grey[None].astype(np.float64), "base_layer.0"), "base_layer.1")
    prior = stage(shared, "hl_prior_1")
    bins = [
        [(i * side // 32, -(-(i + 1) * side // 32)) for i in range(32)] for side in prior.shape[1:]
    ]
    pooled = [[prior[:, a:b, c:d].max(axis=(1, 2)) for c, d in bins[1]] for a, b in bins[0]]
    x = conv(np.array(pooled).transpose(2, 0, 1), "hl_prior_2.1").ravel()
    for key in ("hl_prior_fc1", "hl_prior_fc2", "hl_prior_fc3"):
        x = prelu(theirs[f"{key}.fc.weight"] @ x + theirs[f"{key}.fc.bias"], f"{key}.relu")
    y = np.concatenate([prior, stage(shared, "de_stage_1")])
    y = conv(conv(y, "de_stage_2.0"), "de_stage_2.1")
    for n in (2, 4):
        y = prelu(up(y, f"de_stage_2.{n}"), f"de_stage_2.{n + 1}")
    return conv(y, "de_stage_2.6", lambda y: np.maximum(y, 0))[0], x


@jax.jit
def outputs(params, image):
    """What the released network computes of grey levels [H, W], by the names of the fixtures."""
    output, state = registry.build("cmtl", **released.ARCHITECTURE).apply(
        {"params": params},
        image[None, ..., None],
        jnp.array([image.shape]),
        capture_intermediates=lambda module, _: module.path in (("prior",), ("head", "reduce")),
    )
    inner = state["intermediates"]
    maps = {
        "prior_features": inner["prior"]["__call__"][0],
        "pooled": inner["head"]["reduce"]["__call__"][0],
        "density": output.density,
    }
    # The authors' framework has channels first.
    return {name: x.transpose(0, 3, 1, 2) for name, x in maps.items()} | {
        "logits": output.group_logits
    }


@pytest.mark.parametrize("crop", "abcd")
def test_all_outputs_equal_the_released_networks(shared, crop):
    golden = np.load(shared / "fixtures/cmtl_golden.npz")
    params = released.read(shared / "fixtures/cmtl_random.h5")
    for name, ours in outputs(params, golden[f"{crop}_image"]).items():
        theirs = golden[f"{crop}_{name}"]
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max(), name


def test_the_density_path_equals_the_released_networks_on_the_stored_crop(tmp_path):
    """The smallest crop and the density path's weights are part of the tests."""
    arrays, image, expected = golden_crop()
    assert sum(array.size for array in arrays.values()) == 222_017
    whole = released_files.zeros("cmtl") | arrays
    ours = outputs(released.read(released_files.write(tmp_path / "x.h5", whole)), image)
    for name, theirs in expected.items():
        assert np.abs(ours[name] - theirs).max() <= 1e-5 * np.abs(theirs).max(), name
    density, _ = plain_cmtl(whole, image)  # the measure of the training below
    theirs = expected["density"][0, 0]
    assert np.abs(density - theirs).max() <= 1e-5 * theirs.max()


def golden_crop():
    """Of the released network: the density path's arrays, grey levels [H, W] and its outputs."""
    arrays = dict(np.load(released_files.GOLDEN))
    image = arrays.pop("image").astype(np.float32)
    return arrays, image, {name: arrays.pop(name) for name in ("density", "prior_features")}


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
    refused(tmp_path / "none.h5", "no such work folder or ")
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


def test_evaluation_and_prediction_count_as_the_released_code_does(
    files, config, tmp_path, caplog
):
    """Pictures of odd sizes, against the plain network on the picture resized."""
    import cv2

    c = config("mcnn", eval__triptychs=2)
    c.dataset.options.update(height=(41, 63), width=(41, 63))
    with caplog.at_level("INFO"):
        result = run.evaluate_checkpoint(c, tmp_path)
    assert "input.resize multiple_of_4" in caplog.text  # not this config's
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


@pytest.mark.parametrize("model", [pytest.param("cmtl", marks=pytest.mark.slow), "mcnn"])
def test_training_goes_on_from_what_the_released_network_computes(
    config, tmp_path, model, monkeypatch
):
    """Three steps of preset reference, without dropout: its values are theirs, not ours."""
    one_device = functools.partial(Parallel, devices=jax.devices()[:1])  # programs half as large
    monkeypatch.setattr(train, "Parallel", one_device)
    arrays = released_files.arrays(model) | (golden_crop()[0] if model == "cmtl" else {})
    path = released_files.write(tmp_path / "x.h5", arrays)
    c = config(model, groups__number=10)
    base_config.apply_preset(c, "reference")
    c.init_from = str(path)
    c.model.update(name=model, dropout=0.0)
    c.train.update(steps=3, eval_every=3, log_every=1)
    c.dataset.val_fraction = 0.0
    base_config.validate(c)

    data = data_lib.load(c)
    groups = data_lib.fit_groups(c, data.pictures("train"))
    stream = data_lib.training_stream(c, data.pictures("train"), groups, start=0, shard=Shard())
    batch = next(stream)
    grey, density = batch.image[0, ..., 0], batch.density[0, ..., 0]
    if model == "cmtl":
        people, logits = plain_cmtl(arrays, grey)
        probability = np.exp(logits) / np.exp(logits).sum()
        truth = np.arange(10) == batch.group[0]
        entropy = -np.log(np.where(truth, probability, 1 - probability))
        group_loss = np.mean(groups.class_weights * entropy)
    else:
        people, group_loss = released_files.plain_mcnn(arrays, grey), 0.0
        people = people.repeat(4, axis=0).repeat(4, axis=1) / 16
    expected = {"density_loss": np.mean((people - density) ** 2), "group_loss": group_loss}
    assert expected["density_loss"] > 1.1 * np.mean(density.astype(np.float64) ** 2)

    assert train.train(c, tmp_path / "w") == 0
    lines = [line for line in small_run.lines(tmp_path / "w") if "train/loss" in line]
    assert [line["step"] for line in lines] == [1, 2, 3]
    for name, value in expected.items():
        assert lines[0].get(f"train/{name}", 0.0) == pytest.approx(value, rel=1e-5), name
    total = expected["density_loss"] + 1e-4 * group_loss
    assert lines[0]["train/loss"] == pytest.approx(total, rel=1e-5)

    # Adam's steps are no longer than the learning rate; the first moves nearly all by as much.
    trained = trained_model.restore(tmp_path / "w", Parallel(), "latest")
    assert trained.step == 3
    moved = jax.tree.leaves(
        jax.tree.map(lambda x, y: np.abs(x - y), trained.params, released.read(path))
    )
    assert max(x.max() for x in moved) <= 3.1e-5
    assert np.mean([x.max() > 0.9e-5 for x in moved]) > 0.9
    result = small_run.metrics(tmp_path / "w")
    assert result["checkpoint_step"] == 3 and result["num_images"] == 3
    assert result["mean_count_pred"] > 0


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
