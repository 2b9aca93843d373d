"""Weights to export, for tests."""

import jax
import numpy as np
import pytest
import released_files
from work_folders import random_params

from cmtl_jax import config as base_config
from cmtl_jax import trained_model
from cmtl_jax.input_pipeline.count_groups import CountGroups
from cmtl_jax.parallel import Parallel
from cmtl_jax.prediction.counter import Counter
from cmtl_jax.trained_model import TrainedModel

STEP = 7


def single() -> Parallel:
    return Parallel("jit", jax.local_devices()[:1])


def trained(**changes) -> TrainedModel:
    """Random weights; a change `model__name="mcnn"` is of config.model.name."""
    config = base_config.base()
    config.name = config.dataset.name = "synthetic"
    for key, value in changes.items():
        section, name = key.split("__")
        config[section][name] = value
    model = trained_model.build_model(config)
    params = random_params(model, config.input.channels)
    if "modulation" in params:  # zeros, unless it was trained
        kernel = params["modulation"]["dense"]["kernel"]
        drawn = np.random.default_rng(0).normal(0, 0.3, kernel.shape)
        params["modulation"]["dense"]["kernel"] = drawn.astype(np.float32)
    groups = CountGroups(
        edges=tuple(0.5 + i for i in range(9)), class_weights=(1.0,) * 10, histogram=(1,) * 10
    )
    about = {"config": config.to_dict(), "data": "synthetic", "train_ids_sha256": "0" * 64}
    return TrainedModel(
        model, single().replicate(params), config, groups, about, STEP, "runs/some-run"
    )


def released(path, model: str = "mcnn") -> TrainedModel:
    """Random weights in a file of the authors' format, whose pictures are resized."""
    arrays = {
        key: np.abs(x) if key.startswith("DME.fuse") else x
        for key, x in released_files.arrays(model).items()
    }
    return trained_model.restore(released_files.write(path, arrays), single())


def counter(weights: TrainedModel) -> Counter:
    return Counter(weights, single())


def pictures(sizes, channels: int = 1) -> list[np.ndarray]:
    """Smoothed noise, uint8 [H, W, C] of each (height, width)."""
    rng = np.random.default_rng(5)
    drawn = []
    for height, width in sizes:
        coarse = rng.integers(0, 256, (height // 4 + 1, width // 4 + 1, channels))
        fine = coarse.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]
        noisy = fine + rng.integers(-20, 21, fine.shape)
        drawn.append(np.clip(noisy, 0, 255).astype(np.uint8))
    return drawn


def assert_counts_like(program, weights: TrainedModel, images, tolerance: float = 2e-6) -> None:
    """That a file counts as its weights do: maps within a share of their largest density."""
    count = counter(weights)
    for image in images:
        expected = count(image)
        density, number = program(image)
        assert expected.count > 0
        assert density.shape == image.shape[:2] and density.dtype == np.float32
        np.testing.assert_allclose(
            density, expected.density, rtol=0, atol=tolerance * expected.density.max()
        )
        assert number == pytest.approx(expected.count, rel=1e-5)
