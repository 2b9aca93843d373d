"""ShanghaiTech part B (Zhang et al., CVPR 2016).

    python -m cmtl_jax.main --config=configs/shb.py[:recommended|paper|reference]

The raw data lies in $CMTL_DATA_DIR/ShanghaiTech (default data/ShanghaiTech), or where
--config.dataset.raw_dir says.
"""

from cmtl_jax import config as base_config


def get_config(preset=None):
    config = base_config.base()
    config.name = "shb"
    config.dataset.name = "shanghaitech"
    config.dataset.options.part = "part_b"
    base_config.apply_preset(config, preset)
    if config.preset == "recommended":
        # Its crops hold a tenth of the people of part A's, and so is the density loss.
        config.loss.group_weight = 0.002
    return config
