"""Table 3: Ours+MAIL with tau 2, 3 and 4 on CIFAR-10 and CIFAR-100, with WRN-34-10.

    python launch.py --config configs/sweeps/table3.py

30 runs with five seeds. The runs with tau 2 are those of Tables 1 and 2.
"""

from ml_collections import ConfigDict

from configs.sweeps import base


def get_config() -> ConfigDict:
    """Returns the runs of Table 3."""
    config = base.get_config()
    config.sweep.configs = ("../wrn_c10.py", "../wrn_c100.py")
    config.sweep.variants = tuple({"method": {"name": "ours_mail", "tau": tau}} for tau in (2.0, 3.0, 4.0))
    return config
