"""The paper's methods at a laptop's scale: a small ResNet on 2,000 CIFAR-10 images of half the size.

    python launch.py --config configs/mini_c10.py
    python launch.py --config configs/sweeps/mini_c10.py --workdir results/mini_c10  # all methods: RESULTS.md

The paper's effect needs a network that fits its training images under attack before the warm-up ends: few images, no
crop and a radius of 4/255 let this one pass 60 % there. So it overfits, and its test accuracies are low.
"""

from configs import base


def get_config():
    """A ResNet-10 of width 16; schedule and warm-up shortened in the paper's proportions."""
    config = base.get_config()
    config.dataset.downscale = 2  # 16x16
    config.dataset.train_size = 2000
    config.dataset.validation_size = 500
    config.dataset.test_size = 1000
    config.dataset.pad = 0
    config.model.depth = 10
    config.model.width = 16
    config.method.warmup_epochs = 30
    config.attack.eps = 4 / 255  # half the paper's, as a pixel is the mean of four
    config.attack.step_size = 1 / 255
    config.optim.num_epochs = 48
    config.optim.batch_size = 32
    config.optim.learning_rate = 0.05
    config.optim.weight_decay = 5e-4
    config.optim.milestones = (30, 36, 40)
    config.evaluation.eps = 4 / 255
    config.evaluation.step_size = 1 / 255
    return config
