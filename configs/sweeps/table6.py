"""Table 6: the best model of all methods on CIFAR-100, with ResNet-18 and WRN-34-10.

    python launch.py --config configs/sweeps/table6.py

70 runs with five seeds. Fifty of them are those of Table 2, because each run evaluates its last and its best model.
"""

from ml_collections import ConfigDict

from configs.sweeps import base


def get_config() -> ConfigDict:
    """Returns the runs of Table 6."""
    config = base.get_config()
    config.sweep.configs = ("../resnet18_c100.py", "../wrn_c100.py")
    config.sweep.variants = base.methods()
    return config
