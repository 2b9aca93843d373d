"""Raw data sets to prepared ones: annotation readers, density maps, TFDS builders.

Importing this package makes the builders `shanghaitech`, `ucf_cc_50`, `point_folder` and
`synthetic` known to TFDS. `prepare.prepare` is the way in for the rest of the project.
"""

from cmtl_jax.datasets import point_folder, shanghaitech, synthetic, ucf_cc_50

__all__ = ["point_folder", "shanghaitech", "synthetic", "ucf_cc_50"]
