"""Crowd counting with cascaded multi-task learning (CMTL) in JAX."""
