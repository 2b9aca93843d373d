"""Shared fixtures: the folder of research data, and flags parsed for Grain's workers."""

import os
import pathlib

import pytest
from absl import flags
from work_folders import kept_logging

flags.FLAGS.mark_as_parsed()
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"  # before jax is imported

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder with research data and the authors' outputs; skips where it is missing."""
    folder = pathlib.Path(os.environ.get("CMTL_SHARED_DIR", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"research data not found in {folder} (set CMTL_SHARED_DIR)")
    return folder


@pytest.fixture(autouse=True)
def logging_as_before():
    """Commands called in a test log to its standard error, which is closed when it ends."""
    with kept_logging():
        yield
