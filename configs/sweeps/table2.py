"""Table 2: the last model of five methods on CIFAR-100, with ResNet-18 and WRN-34-10.

    python launch.py --config configs/sweeps/table2.py

50 runs of five seeds. Table 6 needs the same runs and GAIRAT and EWAT.
"""

from configs.sweeps import base


def get_config():
    """The runs of Table 2."""
    config = base.get_config()
    config.sweep.configs = ("../resnet18_c100.py", "../wrn_c100.py")
    config.sweep.variants = base.methods("standard", "wmmr", "mail", "ours_wmmr", "ours_mail")
    return config
