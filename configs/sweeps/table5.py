"""Table 5: the best model of all seven methods on CIFAR-10, with ResNet-18 and WRN-34-10.

    python launch.py --config configs/sweeps/table5.py

70 runs of five seeds. Fifty of them are the runs of Table 1: every run evaluates its last and its best model.
"""

from configs.sweeps import base


def get_config():
    """The runs of Table 5."""
    config = base.get_config()
    config.sweep.configs = ("../resnet18_c10.py", "../wrn_c10.py")
    config.sweep.variants = base.methods()
    return config
