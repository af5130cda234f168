"""The paper's methods at a laptop's scale: a small ResNet on 2,000 CIFAR-10 images of half the size.

    python launch.py --config configs/mini_c10.py
    python launch.py --config configs/sweeps/mini_c10.py --workdir runs/mini_c10  # all methods: RESULTS.md

Batches are small because reweighting needs many steps to show: after the warm-up nearly all weights are close to 0.
The weight decay is large because the schedule is short: learning rate x weight decay x steps shrinks the parameters, so
the paper's weight decay would have no effect here.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Returns a ResNet-10 of width 16; schedule and warm-up are shortened in the paper's proportions."""
    config = base.get_config()
    config.dataset.downscale = 2  # 16x16
    config.dataset.train_size = 2000
    config.dataset.validation_size = 500
    config.dataset.test_size = 1000
    config.dataset.pad = 0
    config.model.depth = 10
    config.model.width = 16
    config.method.warmup_epochs = 37
    config.attack.eps = 4 / 255  # half the paper's, because each pixel is the mean of four
    config.attack.step_size = 1 / 255
    config.optim.num_epochs = 60
    config.optim.batch_size = 16
    config.optim.learning_rate = 0.05
    config.optim.weight_decay = 2e-3
    config.optim.milestones = (37, 45, 50)
    config.evaluation.eps = 4 / 255
    config.evaluation.step_size = 1 / 255
    return config
