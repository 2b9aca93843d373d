"""Which program it was: what a result needs beside it to be made again."""

import functools
import importlib.metadata
import pathlib
import subprocess


@functools.cache
def describe() -> str:
    """'cmtl_jax 0.1.0, commit 1a2b3c4d5e6f', '... changed' where files differ from the commit.

    Without a git checkout, the version alone.
    """
    try:
        version = importlib.metadata.version("cmtl_jax")
    except importlib.metadata.PackageNotFoundError:  # run from a clone, not installed
        version = "from a clone"
    root = pathlib.Path(__file__).parent.parent
    name = f"cmtl_jax {version}"
    # A site-packages folder may lie in somebody else's repository.
    if not (root / ".git").exists():
        return name
    commit = _git(root, "rev-parse", "--short=12", "HEAD")
    if not commit:
        return name
    changed = " changed" if _git(root, "status", "--porcelain", "-uno") else ""
    return f"{name}, commit {commit}{changed}"


def _git(root: pathlib.Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):  # no git
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
