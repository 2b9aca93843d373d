"""The guard against a dead or constant density output."""

import logging

import jax
import pytest
import small_run
from initial_parameters import initial_parameters

from cmtl_jax import trained_model
from cmtl_jax.errors import UserError
from cmtl_jax.evaluation import evaluate
from cmtl_jax.input_pipeline import data as data_lib
from cmtl_jax.input_pipeline.loader import Shard
from cmtl_jax.training import train
from cmtl_jax.training.guard import DeadOutputGuard


def test_ends_a_run_after_so_many_dead_looks_in_a_row():
    guard = DeadOutputGuard(patience=2, stop=True)
    guard.look(1, 0.0, 0.0, 1.0, 0.01)
    guard.look(2, 0.01, 2e-4, 1.0, 0.01)  # alive again
    guard.look(3, 0.0, 0.0, 1.0, 0.01)
    with pytest.raises(UserError, match="dead at step 4.*seed.*init=he"):
        guard.look(4, 0.0, 0.0, 1.0, 0.01)


def test_no_gradient_is_dead_too():
    with pytest.raises(UserError, match="without gradient"):
        DeadOutputGuard(patience=1, stop=True).look(1, 0.01, 2e-4, 0.0, 0.01)


def test_a_density_that_vanished_is_dead_though_not_exactly_0():
    guard = DeadOutputGuard(patience=1, stop=True)
    guard.look(1, 0.001, 1e-5, 1.0, 0.01)  # low, but alive
    guard.look(2, 1e-8, 3e-12, 1.0, 0.0)  # a batch without people
    with pytest.raises(UserError, match="dead at step 3: it is 0 everywhere"):
        guard.look(3, 1e-8, 3e-12, 1.0, 0.01)


def test_only_warns_if_asked(caplog):
    with caplog.at_level(logging.WARNING):
        DeadOutputGuard(patience=1, stop=False).look(1, 0.0, 0.0, 0.0, 0.01)
    assert "dead at step 1" in caplog.text


def test_warns_of_a_constant_output(caplog):
    guard = DeadOutputGuard(patience=1, stop=True)
    with caplog.at_level(logging.WARNING):
        guard.look(1, 0.01, 2e-4, 1.0, 0.01)  # deviation 0.01, as large as the mean
        assert not caplog.records
        guard.look(2, 0.01, 0.01**2 * (1 + 1e-6), 1.0, 0.01)  # rounding of float32 sums
    assert "constant at step 2" in caplog.text


def test_ends_a_run_with_a_dead_seed(tmp_path, tmp_path_factory):
    """About half of all seeds of the authors' initialisation are dead on real pictures."""
    folder = small_run.common(tmp_path_factory)
    small_run.compile_once(folder)
    config = small_run.config(
        folder, model__name="single_stage", model__init="released", train__log_every=1,
        train__dead_patience=2,
    )  # fmt: skip
    data = data_lib.load(config)
    pictures = data.pictures("train")
    groups = data_lib.fit_groups(config, pictures)
    batch = next(data_lib.training_stream(config, pictures, groups, start=0, shard=Shard()))
    model = trained_model.build_model(config)
    step = jax.jit(evaluate.make_eval_step(model))
    dead = [
        seed
        for seed in range(12)
        if not step(initial_parameters(model, seed, 1), batch).density.any()
    ]
    assert 0 < len(dead) < 12
    config.seed = dead[0]
    with pytest.raises(UserError, match="the density output is dead at step 2: it is 0 everywhere"):
        train.train(config, tmp_path)
    assert small_run.lines(tmp_path)[-1]["step"] == 2
