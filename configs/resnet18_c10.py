"""ResNet-18 on CIFAR-10 with Ours+MAIL, the paper's Tables 1, 5 and 8.

    python launch.py --config configs/resnet18_c10.py
    python launch.py --config configs/resnet18_c10.py --config.method.name=standard --config.seed=1

Time, computed: 120 epochs of 49,000 images, 23 passes of 1.11 GFLOP an image, are 150 PFLOP: 13 to 25 minutes on one
TPU v5e, from the program compiled for it (docs/performance.md). No accelerator was at hand to measure it.
Expected in the paper (last model, 5 seeds): clean 82.66, PGD-100 57.96, CW-PGD 47.24, AutoAttack 44.78.
"""

from configs import base


def get_config():
    """The base config: its values are this experiment's."""
    return base.get_config()
