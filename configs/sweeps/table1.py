"""Table 1: the last model of five methods on CIFAR-10, with ResNet-18 and WRN-34-10.

    python launch.py --config configs/sweeps/table1.py

50 runs with five seeds. Table 5 has the same runs, GAIRAT and EWAT.
"""

from ml_collections import ConfigDict

from configs.sweeps import base


def get_config() -> ConfigDict:
    """Returns the runs of Table 1."""
    config = base.get_config()
    config.sweep.configs = ("../resnet18_c10.py", "../wrn_c10.py")
    config.sweep.variants = base.methods("standard", "wmmr", "mail", "ours_wmmr", "ours_mail")
    return config
