"""Weights of ours as one file: nothing is lost, and what is none is told."""

import dataclasses
import json
import subprocess
import sys

import h5py
import jax
import numpy as np
import pytest
import safetensors.numpy
from released_files import arrays
from work_folders import STEP, untrained

import cmtl_jax
from cmtl_jax import config as base_config
from cmtl_jax import trained_model, version
from cmtl_jax.errors import UserError
from cmtl_jax.interop import safetensors_file
from cmtl_jax.parallel import Parallel

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 56), np.uint8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Weights of a work folder whose preprocessing is that of no preset."""

    def other(original=base_config.base):
        config = original()
        config.input.update(mean=90.5, std=41.0, resize="multiple_of_4")
        config.loss.density_scale = 7.0
        return config

    folder = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base_config, "base", other)
        untrained(folder, output_activation="softplus")
    return trained_model.restore(folder, Parallel())


def about_of(trained):
    return {**trained.about, "program": version.describe(), "step": trained.step}


@pytest.fixture(scope="module")
def file(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("file") / "own.safetensors"
    safetensors_file.write(path, trained.params, about_of(trained))
    return path


def test_what_is_written_is_read(trained, file):
    params, about = safetensors_file.read(file)
    assert about == about_of(trained)
    assert jax.tree.structure(params) == jax.tree.structure(trained.params)
    jax.tree.map(np.testing.assert_array_equal, params, trained.params)
    assert {x.dtype for x in jax.tree.leaves(params)} == {np.dtype(np.float32)}
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_any_safetensors_reader_understands_it(trained, file):
    """Against the library alone, which knows nothing of us."""
    there = safetensors.numpy.load_file(file)
    kernel = trained.params["shared"]["conv1"]["conv"]["kernel"]
    np.testing.assert_array_equal(there["shared/conv1/conv/kernel"], kernel)
    with safetensors.safe_open(file, "numpy") as opened:
        metadata = opened.metadata()
    assert json.loads(metadata["config"])["input"]["mean"] == 90.5
    assert json.loads(metadata["step"]) == STEP


def test_restored_it_is_the_same_counter(trained, file):
    restored = trained_model.restore(file, Parallel())
    assert restored.config == trained.config
    assert restored.groups == trained.groups
    assert restored.step == STEP and restored.source == str(file)
    assert restored.about["data"] == trained.about["data"]
    expected = cmtl_jax.load(trained.source)(PICTURE)
    result = cmtl_jax.load(file)(PICTURE)
    assert expected.count > 0
    np.testing.assert_array_equal(result.density, expected.density)
    assert result.weights == str(file)


def test_float16_is_half_the_size_and_rounds_once(trained, file, tmp_path):
    path = tmp_path / "half.safetensors"
    safetensors_file.write(path, trained.params, about_of(trained), "float16")
    params, _ = safetensors_file.read(path)
    for x, y in zip(jax.tree.leaves(params), jax.tree.leaves(trained.params), strict=True):
        assert x.dtype == np.float32
        np.testing.assert_allclose(x, y, rtol=2**-11, atol=2**-25)  # half a unit in the last place
    assert path.stat().st_size < 0.51 * file.stat().st_size


def test_float16_refuses_what_it_cannot_hold(tmp_path):
    about = dict.fromkeys(safetensors_file.NEEDED)
    large = {"a": {"b": np.array([1.0, 7e4], np.float32)}}
    with pytest.raises(UserError, match=r"a/b is beyond what float16 holds"):
        safetensors_file.write(tmp_path / "x.safetensors", large, about, "float16")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="bfloat16"):
        safetensors_file.write(tmp_path / "x.safetensors", large, about, "bfloat16")
    with pytest.raises(ValueError, match="config"):
        safetensors_file.write(tmp_path / "x.safetensors", large, {"step": 1})


def test_layouts_in_memory_do_not_matter(tmp_path):
    """Slices and transposes are written by their values; scalars stay scalars."""
    whole = np.arange(24, dtype=np.float64).reshape(4, 6)
    params = {"a": whole.T, "b": {"c": whole[::2, 1::3], "d": np.float32(2.5)}}
    about = dict.fromkeys(safetensors_file.NEEDED, {"x": [1, "ü"]})
    safetensors_file.write(tmp_path / "x", params, about)
    read, again = safetensors_file.read(tmp_path / "x")
    jax.tree.map(np.testing.assert_array_equal, read, params)
    assert read["b"]["d"].shape == () and again == about


def test_a_full_disk_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    about = dict.fromkeys(safetensors_file.NEEDED)
    with pytest.raises(UserError, match="cannot write"):
        safetensors_file.write(tmp_path / "file" / "x.safetensors", {"a": np.zeros(2)}, about)


# What is none of ours.


def foreign(path, metadata=None, **tensors):
    safetensors.numpy.save_file(tensors or {"model.weight": np.zeros(3)}, path, metadata)
    return path


def refused(path, match):
    with pytest.raises(UserError, match=match) as raised:
        trained_model.restore(path, Parallel())
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_safetensors_of_others_are_named_as_such(tmp_path):
    refused(foreign(tmp_path / "a.safetensors"), "not of cmtl_jax's weights: it holds model.weight")
    refused(foreign(tmp_path / "b.safetensors", {"format": "pt"}), "says format 'pt'")
    refused(foreign(tmp_path / "c.h5"), "is a safetensors file, but not of cmtl_jax's weights")
    refused(foreign(tmp_path / "d.safetensors", {"format": "cmtl_jax 9"}), "another version")


def test_the_name_of_a_file_does_not_matter(file, tmp_path):
    own = tmp_path / "weights.h5"
    own.write_bytes(file.read_bytes())
    assert trained_model.restore(own, Parallel()).step == STEP
    with h5py.File(tmp_path / "released.safetensors", "w") as released:
        for key, array in arrays("mcnn").items():
            released[key] = array
    restored = trained_model.restore(tmp_path / "released.safetensors", Parallel())
    assert restored.config.model.name == "mcnn"


def test_damaged_files_are_told(file, tmp_path):
    data = file.read_bytes()
    for i, wrong in enumerate((data[:-9], data[:200], b"", b"x" * 99)):
        (tmp_path / f"{i}").write_bytes(wrong)
        refused(tmp_path / f"{i}", "cannot be read")


def test_what_it_says_of_itself_must_fit(trained, tmp_path):
    about, path = about_of(trained), tmp_path / "x.safetensors"
    other = {**about["config"], "model": {**about["config"]["model"], "up_maps": (16, 18)}}
    safetensors_file.write(path, trained.params, about | {"config": other})
    refused(path, "not those of the network that it describes")
    safetensors_file.write(path, trained.params, about | {"config": {"crop": 3}})
    refused(path, "what this program does not understand")
    safetensors_file.write(path, trained.params, about | {"groups": {"edges": 3}})
    refused(path, "what this program does not understand")
    tensors = safetensors.numpy.load_file(path)
    safetensors.numpy.save_file(tensors, path, {"format": "cmtl_jax 1", "config": "{"})
    refused(path, "cannot be read")
    safetensors.numpy.save_file(tensors, path, {"format": "cmtl_jax 1", "config": "{}"})
    refused(path, "does not say groups")


# Names of shipped weights.


@pytest.fixture
def shipped(file, tmp_path, monkeypatch):
    """A package with weights under the names one and two, and an empty current folder."""
    folder, current = tmp_path / "weights", tmp_path / "current"
    folder.mkdir()
    current.mkdir()
    for name in ("two.safetensors", "one.safetensors", "one.card.md"):
        (folder / name).write_bytes(file.read_bytes())
    monkeypatch.setattr(trained_model, "SHIPPED", folder)
    monkeypatch.chdir(current)
    return current


def test_a_bare_name_is_that_of_shipped_weights(shipped, trained):
    assert trained_model.shipped() == ["one", "two"]
    counter = cmtl_jax.load("one")
    assert counter.trained.step == STEP and counter.trained.source == "one"
    (shipped / "one").mkdir()  # a folder of something else
    assert cmtl_jax.load("one").trained.source == "one"


def test_own_files_and_work_folders_come_before_shipped_names(shipped, trained):
    untrained(shipped / "one", name="single_stage")
    assert cmtl_jax.load("one").trained.config.model.name == "single_stage"
    safetensors_file.write("two", trained.params, about_of(trained) | {"step": 77})
    assert cmtl_jax.load("two").trained.step == 77


def test_an_unknown_name_is_answered_with_those_there(shipped, monkeypatch):
    for wrong in ("three", "one.card", "weights/one", "../weights/one"):
        refused(wrong, r"come with the program \(one, two\)")
    monkeypatch.setattr(trained_model, "SHIPPED", shipped / "none")
    refused("three", "this version has none")


def test_a_file_is_used_without_orbax_and_hdf5(file):
    """They take longer to import than the file to read."""
    program = (
        "import sys, cmtl_jax, numpy\n"
        f"cmtl_jax.load({str(file)!r})\n"
        "slow = {'orbax', 'h5py', 'matplotlib', 'grain', 'optax'}\n"
        "print(sorted(slow & {name.partition('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_trained_models_of_both_kinds_are_alike(trained, file):
    """Nothing that later code reads is missing from a file."""
    restored = trained_model.restore(file, Parallel())
    for field in dataclasses.fields(trained):
        assert type(getattr(restored, field.name)) is type(getattr(trained, field.name))
    assert trained.about.keys() <= restored.about.keys()
