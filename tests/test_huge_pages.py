"""A program started anew with huge pages: same arguments, same number, same exit status."""

import os
import subprocess
import sys

import pytest

from cmtl_jax import huge_pages

PROGRAM = """
import os, sys
from cmtl_jax import huge_pages
print(os.getpid(), flush=True)
huge_pages.enable()
print(os.environ.get("GLIBC_TUNABLES"), sys.argv[1:])
sys.exit(7)
"""


def run(tunables):
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path)}
    if tunables is not None:
        environment["GLIBC_TUNABLES"] = tunables
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "--a=b c", "ü"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 7, done.stderr
    *numbers, last = done.stdout.splitlines()
    return numbers, last


needs_tunable = pytest.mark.skipif(
    not huge_pages._has_tunable(), reason="only Linux with glibc 2.35 or newer has huge pages"
)


@needs_tunable
def test_starts_anew_once_as_the_same_process_with_the_same_arguments():
    numbers, last = run(None)
    assert len(numbers) == 2 and numbers[0] == numbers[1]
    assert last == "glibc.malloc.hugetlb=1 ['--a=b c', 'ü']"


@needs_tunable
def test_other_settings_of_the_user_stay():
    assert run("glibc.malloc.arena_max=2")[1].startswith(
        "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1 "
    )
    numbers, last = run("glibc.malloc.hugetlb=0")
    assert len(numbers) == 1 and last.startswith("glibc.malloc.hugetlb=0 ")


def test_without_the_tunable_nothing_happens(monkeypatch):
    monkeypatch.setattr(huge_pages, "_has_tunable", lambda: False)
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("started anew"))
    huge_pages.enable()
