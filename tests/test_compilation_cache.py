"""Compiled programs are kept for the next process, and nothing about that can fail a run."""

import logging
import pathlib
import subprocess
import sys

import jax
import pytest

from cmtl_jax import compilation_cache

_KEYS = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
)
_SHORTEST = _KEYS[-1]


@pytest.fixture
def no_cache(monkeypatch):
    """JAX without a folder for its programs, as a new process has it."""
    before = {name: getattr(jax.config, name) for name in _KEYS}
    for name in ("JAX_COMPILATION_CACHE_DIR", _SHORTEST.upper()):
        monkeypatch.delenv(name, raising=False)
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update(_SHORTEST, 1.0)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_programs_are_kept_in_the_users_cache(no_cache, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = compilation_cache.enable()
    assert folder.parent == tmp_path / "cmtl_jax" / "xla" and folder.is_dir()
    assert jax.config.jax_compilation_cache_dir == str(folder)
    assert list(folder.iterdir()) == []
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    jax.config.update("jax_compilation_cache_dir", None)
    assert compilation_cache.enable() == tmp_path / "home/.cache/cmtl_jax/xla" / folder.name


@pytest.mark.parametrize("own", ["", "elsewhere"])
def test_a_users_own_folder_is_left_alone(no_cache, tmp_path, monkeypatch, own):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", own)
    assert compilation_cache.enable() is None
    assert jax.config.jax_compilation_cache_dir is None  # JAX itself reads it when it starts
    assert list(tmp_path.iterdir()) == []


def test_short_programs_are_kept_unless_the_user_says_otherwise(no_cache, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(_SHORTEST.upper(), "3")
    compilation_cache.enable()
    assert getattr(jax.config, _SHORTEST) == 1.0  # what the fixture set: untouched
    monkeypatch.delenv(_SHORTEST.upper())
    compilation_cache.enable()
    assert 0 < getattr(jax.config, _SHORTEST) <= 0.2


def _no_folder(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))


def _read_only(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(pathlib.Path, "mkdir", refuse)


def _full(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compilation_cache.tempfile, "TemporaryFile", refuse)


def _no_home(_, monkeypatch):
    def refuse():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pathlib.Path, "home", refuse)


@pytest.mark.parametrize("spoil", [_no_folder, _read_only, _full, _no_home])
def test_a_home_that_cannot_be_written_is_only_warned_of(
    no_cache, tmp_path, monkeypatch, caplog, spoil
):
    spoil(tmp_path, monkeypatch)
    with caplog.at_level(logging.WARNING):
        assert compilation_cache.enable() is None
    assert "compiled programs are not kept" in caplog.text
    assert jax.config.jax_compilation_cache_dir is None


_PROGRAM = """
import logging, jax, jax.numpy as jnp
from cmtl_jax import compilation_cache
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
compilation_cache._SHORTEST = 0
compilation_cache.enable()
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
print(float(jax.jit(lambda x: jnp.sin(x).sum())(jnp.arange(8.0))))
print(sum("cache_hits" in name for name in hits))
"""


def test_the_next_process_finds_the_program_even_beside_a_damaged_one(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)

    def run():
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True
        )
        result, hits = done.stdout.split()
        return float(result), int(hits)

    result, hits = run()
    assert hits == 0
    again, hits = run()
    assert hits > 0 and again == result
    for path in tmp_path.rglob("*-cache"):
        path.write_bytes(path.read_bytes()[:50])
    assert run() == (result, 0)  # compiled once more
