"""Table 8: Ours+MAIL with tau 2, 3 and 4 on CIFAR-10 and CIFAR-100, with ResNet-18.

    python launch.py --config configs/sweeps/table8.py

30 runs with five seeds. The runs with the tau of their config are those of Tables 1 and 2.
"""

from ml_collections import ConfigDict

from configs.sweeps import base


def get_config() -> ConfigDict:
    """Returns the runs of Table 8."""
    config = base.get_config()
    config.sweep.configs = ("../resnet18_c10.py", "../resnet18_c100.py")
    config.sweep.variants = tuple({"method": {"name": "ours_mail", "tau": tau}} for tau in (2.0, 3.0, 4.0))
    return config
