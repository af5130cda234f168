"""ResNet-18 on CIFAR-10 with Ours+MAIL, the paper's Tables 1, 5 and 8.

    python launch.py --config configs/resnet18_c10.py
    python launch.py --config configs/resnet18_c10.py --config.method.name=standard --config.seed=1

Time, computed: 120 epochs of 49,000 images with 23 passes of 1.11 GFLOP each are 150 PFLOP. One TPU v5e takes 13 to 25
minutes, by the program compiled for it (docs/performance.md). No accelerator was available to measure it.
Expected, from the paper (last model, 5 seeds): clean 82.66, PGD-100 57.96, CW-PGD 47.24, AutoAttack 44.78.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Returns the base config, which is this experiment's."""
    return base.get_config()
