"""ResNet-18 on CIFAR-100 with Ours+MAIL, the paper's Tables 2, 6 and 8.

    python launch.py --config configs/resnet18_c100.py

Time, computed: 120 epochs of 49,000 images, 23 passes of 1.11 GFLOP an image, are 150 PFLOP, which a TPU v5e at its
bfloat16 peak would do in 13 minutes. No accelerator was at hand to measure it; float32 takes several times as long.
Expected in the paper (last model, 5 seeds): clean 57.50, PGD-100 31.23, CW-PGD 25.30, AutoAttack 22.61.
"""

from configs import base


def get_config():
    """ResNet-18 with 100 classes and the larger tau that the paper found for it."""
    config = base.get_config()
    config.dataset.name = "cifar100"
    config.method.tau = 3.0
    return config
