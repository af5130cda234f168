"""Table 6: the best model of all seven methods on CIFAR-100, with ResNet-18 and WRN-34-10.

    python launch.py --config configs/sweeps/table6.py

70 runs of five seeds. Fifty of them are the runs of Table 2: every run evaluates its last and its best model.
"""

from configs.sweeps import base


def get_config():
    """The runs of Table 6."""
    config = base.get_config()
    config.sweep.configs = ("../resnet18_c100.py", "../wrn_c100.py")
    config.sweep.variants = base.methods()
    return config
