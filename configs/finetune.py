"""Weights that exist, trained further on your own pictures (see docs/train_on_own_pictures.md).

    python -m cmtl_jax.main --config=configs/finetune.py --config.dataset.raw_dir=DIR \
        --config.init_from=WEIGHTS

DIR is a folder as for configs/point_folder.py, such as `python -m cmtl_jax.importers` writes;
WEIGHTS a work folder, a file or the name of weights that come with the program. The report has
the MAE on held-out pictures before and after. What the run leaves is its last checkpoint: some tens
of pictures hold out too few to choose by.
"""

from cmtl_jax import config as base_config


def get_config(preset=None):
    config = base_config.base()
    config.name = "finetune"
    config.dataset.name = "point_folder"
    config.init_from = "sha"
    base_config.apply_preset(config, preset)
    if config.preset == "recommended":
        # What the weights `sha` want; others: contrast=0, detail=0, close=0, as a warning says. Those
        # of grey pictures are spread over the colours.
        config.input.update(scale=0.5, contrast=66.0, detail=36.0, close=7.0, close_scale=0.7)
        config.input.channels = 3
        config.train.steps = 800
        config.train.eval_every = 200
        config.train.keep_best = False
        config.optimizer.learning_rate = 5e-4
        config.optimizer.warmup_steps = 50
        config.optimizer.ema = 0.99  # averages over a tenth of the steps
        config.dataset.val_fraction = 0.2  # of some tens of pictures
    return config
