"""Where the results of an evaluation go."""

import pathlib

import pytest

from cmtl_jax import config as base_config
from cmtl_jax.evaluation import result_folder


@pytest.mark.parametrize(
    ("own", "init_from", "close", "name"),
    [
        (True, "", "", "b-test"),
        (True, "runs/x", "", "b-test-from-x"),
        (True, "", "runs/sha", "b-test-with-sha"),
        (True, "x.h5", "sha", "b-test-from-x.h5-with-sha"),
        (False, "runs/x", "", "b-test"),
        (False, "runs/x", "sha", "b-test-with-sha"),
    ],
)
def test_results_of_other_weights_stand_beside_a_runs_own(own, init_from, close, name):
    config = base_config.base()
    config.init_from, config.eval.close_weights = init_from, close
    folder = result_folder.of(config, pathlib.Path("w"), "b-test", own=own)
    assert folder == pathlib.Path("w/eval") / name
