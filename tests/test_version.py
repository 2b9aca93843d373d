"""The name of the program in results."""

import shutil
import subprocess

import pytest

from cmtl_jax import version

GIT = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A checkout of its own that holds the module."""
    folder = tmp_path / "cmtl_jax"
    folder.mkdir()
    shutil.copy(version.__file__, folder / "version.py")
    monkeypatch.setattr(version, "__file__", str(folder / "version.py"))
    version.describe.cache_clear()
    yield folder
    version.describe.cache_clear()


def test_without_a_checkout_there_is_no_commit(package):
    assert "commit" not in version.describe()


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_checkout_is_named_by_its_commit_and_changes_are_told(package):
    root = package.parent
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*GIT, "-C", str(root), *command], check=True)
    head = subprocess.run(
        [*GIT, "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert version.describe().endswith(f", commit {head[:12]}")
    (package / "version.py").write_text("# something else\n")
    version.describe.cache_clear()
    assert version.describe().endswith(f", commit {head[:12]} changed")
