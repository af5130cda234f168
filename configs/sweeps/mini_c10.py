"""All methods of the paper at a laptop's scale, and changes of their constants: the runs of RESULTS.md.

    python launch.py --config configs/sweeps/mini_c10.py --workdir runs/mini_c10

Twelve runs for each seed. beta = -0.5 is Algorithm 1, line 10 as printed.
"""

from ml_collections import ConfigDict

from configs.sweeps import base


def get_config() -> ConfigDict:
    """Returns twelve runs for each of three seeds."""
    config = base.get_config()
    config.sweep.configs = ("../mini_c10.py",)
    config.sweep.variants = (
        *base.methods("standard", "mail", "ours_mail", "gairat", "wmmr", "ours_wmmr", "ewat"),
        {"method": {"name": "mail", "beta": -0.5}},
        {"method": {"name": "ours_mail", "beta": -0.5}},
        {"method": {"name": "ours_mail", "tau": 4.0}},
        {"method": {"name": "ours_mail", "similarity": False}},
        {"method": {"name": "ours_mail", "tau": 3.0}},
    )
    config.sweep.seeds = (0, 1, 2)
    config.sweep.share_warmup = True
    return config
