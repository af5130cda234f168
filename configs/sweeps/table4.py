"""Table 4: Ours+MAIL with and without the similarity on CIFAR-10, with WRN-34-10.

    python launch.py --config configs/sweeps/table4.py

10 runs with five seeds. The runs with similarity are those of Table 1.
"""

from ml_collections import ConfigDict

from configs.sweeps import base


def get_config() -> ConfigDict:
    """Returns the runs of Table 4."""
    config = base.get_config()
    config.sweep.configs = ("../wrn_c10.py",)
    config.sweep.variants = tuple(
        {"method": {"name": "ours_mail", "similarity": flag}} for flag in (True, False)
    )
    return config
