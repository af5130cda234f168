"""A small network for a few hundred to a few thousand images of your own, in folders named after their classes.

    python launch.py --config configs/folder.py --config.dataset.data_dir=data --workdir runs/mine

Time and accuracies depend on the images. If it says that the accuracy is no better than always answering one class, try
a smaller radius first: attack.eps and attack.step_size, and for the evaluation evaluation.eps and
evaluation.step_size. Turn flips off where a mirrored image means something else.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Returns a ResNet-10 of width 16; schedule and warm-up are shortened in the paper's proportions."""
    config = base.get_config()
    config.dataset.name = "folder"
    config.dataset.validation_share = 0.2  # choose the best checkpoint
    config.model.depth = 10
    config.model.width = 16
    config.method.warmup_epochs = 25
    config.optim.num_epochs = 40
    config.optim.batch_size = 32
    config.optim.learning_rate = 0.05
    config.optim.weight_decay = 5e-4
    config.optim.milestones = (25, 30, 33)
    config.evaluation.batch_size = 100
    return config
