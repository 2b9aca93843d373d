"""Shared fixtures: the folder of research data, and flags parsed for Grain's workers.

    CMTL_TEST_XLA_FLAGS  what XLA is told beside the number of devices
"""

import importlib.metadata
import os
import pathlib

import pytest
from absl import flags
from work_folders import kept_logging

flags.FLAGS.mark_as_parsed()

# Most of the time goes into compiling; without LLVM's optimisation and, where there is a choice,
# without these fusions it takes much less. Results change by the last bits alone. XLA ends a
# process over a flag that it does not know.
_older = tuple(map(int, importlib.metadata.version("jax").split(".")[:2])) < (0, 11)
_quick = "--xla_backend_optimization_level=0"
_quick += " --xla_cpu_use_fusion_emitters=false" if _older else ""
os.environ["XLA_FLAGS"] = " ".join(  # before jax is imported
    ("--xla_force_host_platform_device_count=4", os.environ.get("CMTL_TEST_XLA_FLAGS", _quick))
)

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
