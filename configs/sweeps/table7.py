"""Table 7: Ours+MAIL with and without the similarity on CIFAR-10, last and best, with WRN-34-10.

    python launch.py --config configs/sweeps/table7.py

10 runs of five seeds. The same runs as Table 4's, with more columns.
"""

from configs.sweeps import base


def get_config():
    """The runs of Table 7."""
    config = base.get_config()
    config.sweep.configs = ("../wrn_c10.py",)
    config.sweep.variants = tuple(
        {"method": {"name": "ours_mail", "similarity": flag}} for flag in (True, False)
    )
    return config
