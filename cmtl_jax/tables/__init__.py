"""The paper's Tables 1 and 2 with published and own numbers: python -m cmtl_jax.tables."""
