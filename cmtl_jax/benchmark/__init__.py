"""Measures this project beside PyTorch on the same machine, in one run.

python -m cmtl_jax.benchmark [--rooms=ROOM,...] [--json=FILE] [--plot=FILE]

Every side of a comparison is a process of its own, which imports one framework alone; the sides
take turns, and none runs while another is measured.
"""
