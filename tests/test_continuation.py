"""What must not change between a run and its continuation."""

import pytest

from cmtl_jax import config as base_config
from cmtl_jax.errors import UserError
from cmtl_jax.training import continuation


def about(ids="a", **changes):
    config = base_config.base()
    config.update_from_flattened_dict(changes)
    return {"config": config.to_dict(), "data": "synthetic", "train_ids_sha256": ids}


def test_length_devices_and_places_may_change():
    changed = {"train.steps": 7, "parallel": "pmap", "dataset.tfds_dir": "x", "eval.split": "val"}
    continuation.check(about(), about(**changed), "runs/x")


@pytest.mark.parametrize(
    "changed",
    [{"seed": 1}, {"loss.density_scale": 1.0}, {"train.batch_size": 3}, {"crop.height": 64}],
)
def test_what_a_step_computes_may_not(changed):
    (key,) = changed
    with pytest.raises(UserError, match=rf"runs/x holds a run with config\.{key}=.*--workdir"):
        continuation.check(about(), about(**changed), "runs/x")


def test_the_training_pictures_may_not():
    with pytest.raises(UserError, match="other training pictures"):
        continuation.check(about("a"), about("b"), "runs/x")
