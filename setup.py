"""The configs lie beside the package, and are installed inside it; all else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["cmtl_jax", "cmtl_jax.*"]), "cmtl_jax.configs"],
    package_dir={"cmtl_jax.configs": "configs"},
)
