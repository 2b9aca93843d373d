import ctypes
import pathlib
import subprocess
import sys

import pytest

from cmtl_jax import freed_memory

MEASURED = """
import ctypes, pathlib
from cmtl_jax import freed_memory

def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1])

c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
c.free.argtypes = [ctypes.c_void_p]
before = resident()
blocks = [c.malloc(50_000) for _ in range(2000)]  # too small for maps of their own
for block in blocks:
    ctypes.memset(block, 1, 50_000)
for block in blocks[:-1]:  # the last one holds the heap up
    c.free(block)
kept = resident()
assert freed_memory.give_back()
print(kept - before, resident() - before)
"""


def test_freed_memory_goes_back():
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("the C library is not glibc")
    run = subprocess.run(
        [sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True,
        cwd=pathlib.Path(__file__).parents[1],
    )  # fmt: skip
    kept, left = map(int, run.stdout.split())
    assert left < kept / 4


def test_nothing_happens_with_another_c_library(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    freed_memory._trim.cache_clear()
    try:
        assert freed_memory.give_back() is False
    finally:
        freed_memory._trim.cache_clear()
