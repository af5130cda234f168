"""ResNet-18 on CIFAR-100 with Ours+MAIL, the paper's Tables 2, 6 and 8.

    python launch.py --config configs/resnet18_c100.py

Time, computed: 120 epochs of 49,000 images with 23 passes of 1.11 GFLOP each are 150 PFLOP. One TPU v5e takes 13 to 25
minutes, by the program compiled for it (docs/performance.md). No accelerator was available to measure it.
Expected, from the paper (last model, 5 seeds): clean 57.50, PGD-100 31.23, CW-PGD 25.30, AutoAttack 22.61.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Returns ResNet-18 with 100 classes, and the larger tau that the paper chose for it."""
    config = base.get_config()
    config.dataset.name = "cifar100"
    config.method.tau = 3.0
    return config
