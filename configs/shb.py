"""ShanghaiTech part B (Zhang et al., CVPR 2016).

    python -m cmtl_jax.main --config=configs/shb.py[:recommended|paper|reference|c3]

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
        # Its pictures hold a tenth of the people of part A's: the network's output and the losses
        # are to be of the same size.
        config.loss.density_scale = 400.0
    if config.preset == "c3":
        # Its mean and deviation of the pictures, averaged over the colours.
        config.input.update(mean=113.2, std=57.7)
    return config
