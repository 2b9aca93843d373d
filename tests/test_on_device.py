"""Crops cut on the device: those that the host cuts, pixel by pixel."""

import dataclasses

import jax
import numpy as np
import pytest
import small_run
from test_loader import GROUPS, MEAN, SIZES, STD, memory_pictures

from cmtl_jax import config as base_config
from cmtl_jax.errors import UserError
from cmtl_jax.input_pipeline import buckets, on_device
from cmtl_jax.input_pipeline.crops import Augmentation, CropRule
from cmtl_jax.input_pipeline.loader import Shard, TrainingLoader
from cmtl_jax.input_pipeline.plan import TrainingPlan
from cmtl_jax.training import train

# The noise is drawn elsewhere.
QUIET = Augmentation(flip=0.5, contrast=0.3, brightness=25, sharpness=0.8, grey=0.3)
BATCH = 8


class Both:
    """The same batches cut on the host and on the device."""

    def __init__(self, rule, augmentation=QUIET, channels=1, shard=Shard()):
        pictures = memory_pictures(channels=channels)
        sizes = [(entry.height, entry.width) for entry in pictures.index]
        crops = [rule.size(*size) for size in sizes]
        chosen = buckets.choose(crops, 1)
        self.plan = TrainingPlan(crops, chosen, BATCH, 1000, seed=3)
        self.host = TrainingLoader(
            pictures, GROUPS, BATCH, MEAN, STD, shard, rule, augmentation, seed=3
        )
        points = [pictures.points(i) for i in range(len(pictures))]
        self.cuts = on_device.CutLoader(
            sizes, points, GROUPS, BATCH, rule, augmentation, 3, shard
        )
        self.cutter = on_device.cutter(
            pictures, rule, chosen.shapes[0], mean=MEAN, std=STD,
            augmentation=augmentation,
        )
        self.device = jax.jit(lambda cutter, cuts: cutter(cuts))

    def __call__(self, number):
        planned = self.plan[number]
        made = self.device(self.cutter, self.cuts(planned))
        return self.host(planned), jax.tree.map(np.asarray, made)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("where", ["all", "centres", "released"])
def test_without_zoom_they_are_equal(where, channels):
    both = Both(CropRule("fixed", 24, 32, where), channels=channels)
    for number in range(6):
        host, device = both(number)
        for name, one, other in zip(host._fields, host, device, strict=True):
            assert one.dtype == other.dtype and one.shape == other.shape, name
            assert np.allclose(one, other, atol=2e-6, rtol=1e-6), name


def test_zoomed_crops_agree_to_rounding():
    both = Both(CropRule("fixed", 24, 32, "centres", zoom=0.6))
    factors = []
    for number in range(12):
        host, device = both(number)
        boxes = both.cuts(both.plan[number]).box
        factors += (boxes[:, 2] / host.size[:, 0]).tolist()
        assert np.abs(host.density - device.density).max() < 1e-6
        assert np.allclose(host.density.sum((1, 2, 3)), device.density.sum((1, 2, 3)), rtol=1e-5)
        levels = np.abs(host.image - device.image) * STD
        # OpenCV rounds its weights of bicubic interpolation to 11 bits, and half levels otherwise.
        assert np.quantile(levels, 0.99) < 1.4 and levels.mean() < 0.05
        for name in ("size", "count", "group", "weight"):
            assert np.array_equal(getattr(host, name), getattr(device, name)), name
    assert min(factors) < 0.7 and max(factors) > 1.4, "crops were shrunk and enlarged"


def test_noise_is_uniform_and_its_own_for_each_crop():
    both = Both(CropRule("fixed", 24, 32), Augmentation(noise=0.5, noise_level=10, clip=False))
    noisy = []
    for number in range(8):
        host, device = both(number)
        cuts = both.cuts(both.plan[number])
        for i in range(BATCH):
            h, w = host.size[i]
            clean = both.cutter.store.image[:, 0]
            top, left = cuts.box[i, :2]
            store = both.cutter.store
            start, width = store.start[cuts.picture[i]], store.width[cuts.picture[i]]
            rows = start + (top + np.arange(h))[:, None] * width + left + np.arange(w)
            noise = device.image[i, :h, :w, 0] * STD + MEAN - clean[rows]
            if cuts.noise[i]:
                noisy.append(noise)
            else:
                assert np.abs(noise).max() < 1e-3
    flat = np.concatenate([one.ravel() for one in noisy])
    assert len(noisy) > 15 and flat.min() > -10.001 and flat.max() < 10.001
    assert abs(flat.mean()) < 0.3 and abs(flat.std() - 20 / 12**0.5) < 0.2
    large = [one for one in noisy if one.shape == (24, 32)]
    assert abs(np.corrcoef(large[0].ravel(), large[1].ravel())[0, 1]) < 0.2


def test_shards_are_parts_of_the_batch():
    whole = Both(CropRule("fixed", 24, 32)).cuts
    parts = [dataclasses.replace(whole, shard=Shard(i, 4)) for i in range(4)]
    planned = Both(CropRule("fixed", 24, 32)).plan[5]
    cuts = [part(planned) for part in parts]
    for name, array in zip(whole(planned)._fields, whole(planned), strict=True):
        assert np.array_equal(array, np.concatenate([getattr(one, name) for one in cuts])), name


def test_fillers_weigh_nothing():
    both = Both(CropRule("fixed", 24, 32))
    short = dataclasses.replace(both.plan[0], positions=both.plan[0].positions[:5])
    made = both.device(both.cutter, both.cuts(short))
    host = both.host(short)
    assert np.array_equal(made.weight, [1, 1, 1, 1, 1, 0, 0, 0])
    for name, one, other in zip(host._fields, host, made, strict=True):
        assert np.allclose(one, other, atol=2e-6), name


def test_a_store_has_every_pixel_once():
    pictures = memory_pictures()
    made = on_device.store(pictures)
    assert len(made.image) == sum(h * w for h, w in SIZES) == len(made.density)
    for i, (h, w) in enumerate(SIZES):
        start = int(made.start[i])
        assert made.width[i] == w
        assert np.array_equal(made.image[start : start + h * w].reshape(h, w, 1), pictures[i].image)


SMALL = {"parallel": "pmap", "augment__zoom": 0.3, "train__log_every": 1}


@pytest.fixture
def folder(tmp_path_factory):
    folder = small_run.common(tmp_path_factory)
    small_run.compile_once(folder)
    return folder


def test_a_run_learns_the_same_on_four_devices(folder, tmp_path):
    losses = []
    for there in (False, True):
        config = small_run.config(
            folder, train__steps=3, train__eval_every=3, augment__noise=0.0,
            dataset__on_device=there, **SMALL,
        )  # fmt: skip
        workdir = tmp_path / str(there)
        assert train.train(config, workdir) == 0
        lines = [line for line in small_run.lines(workdir) if "train/loss" in line]
        losses.append([line["train/loss"] for line in lines])
    assert len(losses[0]) == 3
    # Resized grey levels differ by the rounding of OpenCV's weights.
    assert np.allclose(*losses, rtol=2e-3)


def test_a_stopped_run_goes_on_bit_for_bit(folder, tmp_path, monkeypatch):
    config = small_run.config(
        folder, train__steps=4, train__eval_every=4, dataset__on_device=True, **SMALL
    )
    assert train.train(config, tmp_path / "whole") == 0
    asked = train._Run.stop_requested
    monkeypatch.setattr(
        train._Run, "stop_requested", lambda run, step: asked(run, step) or step == 2
    )
    train.train(config, tmp_path / "stopped")
    monkeypatch.setattr(train._Run, "stop_requested", asked)
    assert train.train(config, tmp_path / "stopped") == 0
    whole, stopped = (small_run.arrays(tmp_path / name, 4) for name in ("whole", "stopped"))
    for name, array in whole.items():
        np.testing.assert_array_equal(stopped[name], array, err_msg=name)


@pytest.mark.parametrize(
    ("key", "value"),
    [("crop.mode", "quarter"), ("crop.jpeg", 75), ("groups.count", "density"),
     ("train.folds_at_once", 5)],
)  # fmt: skip
def test_what_the_device_cannot_do_is_said(key, value):
    config = base_config.base()
    config.dataset.name = "synthetic"
    config.dataset.on_device = True
    config.update_from_flattened_dict({key: value})
    with pytest.raises(UserError, match=rf"{key}.*on_device"):
        base_config.validate(config)


def test_too_many_pixels_are_refused(monkeypatch):
    monkeypatch.setattr(on_device, "_MOST_PIXELS", 1000)
    with pytest.raises(UserError, match="on_device"):
        on_device.store(memory_pictures())
