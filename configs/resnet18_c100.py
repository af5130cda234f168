"""ResNet-18 on CIFAR-100 with Ours+MAIL, the paper's Tables 2, 6 and 8.

    python launch.py --config configs/resnet18_c100.py

Time, computed: 120 epochs of 49,000 images, 23 passes of 1.11 GFLOP an image, are 150 PFLOP: 13 to 25 minutes on one
TPU v5e, from the program compiled for it (docs/performance.md). No accelerator was at hand to measure it.
Expected in the paper (last model, 5 seeds): clean 57.50, PGD-100 31.23, CW-PGD 25.30, AutoAttack 22.61.
"""

from configs import base


def get_config():
    """ResNet-18 with 100 classes and the larger tau that the paper found for it."""
    config = base.get_config()
    config.dataset.name = "cifar100"
    config.method.tau = 3.0
    return config
