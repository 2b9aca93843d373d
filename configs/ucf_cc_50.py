"""UCF_CC_50 (Idrees et al., CVPR 2013), 5-fold cross-validation, all folds in one command.

    python -m cmtl_jax.main --config=configs/ucf_cc_50.py[:PRESET]

trains and tests the folds one after the other in fold_1 ... fold_5 of the work folder, and puts the
50 pictures together in eval/ucf_cc_50-cross_validation. Stopped and run again, it goes on. One fold
alone: --config.dataset.fold=1.

Folds are the pictures 1-10, 11-20, ... (the most common reproducible choice); random folds:
--config.dataset.options.folds=random_7. Raw data: $CMTL_DATA_DIR/UCF_CC_50 (default
data/UCF_CC_50).
"""

from cmtl_jax import config as base_config


def get_config(preset=None):
    config = base_config.base()
    config.name = "ucf_cc_50"
    config.dataset.name = "ucf_cc_50"
    config.dataset.options.folds = "sequential"
    config.dataset.fold = 0
    base_config.apply_preset(config, preset)
    if config.preset == "recommended":
        # Heads of these pictures come in all sizes, and a crop should hold many: as for part B.
        config.input.scale = 0.5
        config.augment.zoom = 0.5
        config.loss.block_weight = 32.0  # for dense crowds
        config.dataset.val_fraction = 0.0  # four held-out pictures choose by chance
        config.train.steps = 2400
        config.train.eval_every = 1200
    if config.preset == "c3":
        # Its mean and deviation of the pictures, averaged over the colours.
        config.input.update(mean=102.9, std=68.5)
        config.crop.update(height=576, width=768)
        config.train.update(batch_size=4, steps=10_000, eval_every=100)
    return config
