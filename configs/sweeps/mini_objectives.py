"""Reweighting beyond the paper at a laptop's scale: TRADES, MART, AWP, EMA, and controls with constant weights.

    python launch.py --config configs/sweeps/mini_objectives.py --workdir runs/mini_c10

MAIL on TRADES has the authors' beta and gamma, and TRADES' lam, so that the weights are the only difference. Two
controls tell which examples count from how much: MAIL's mean weight after the warm-up is 0.04 here, so `constant` gives
that weight to every example, and `normalize` divides MAIL's weights by their mean.
"""

from ml_collections import ConfigDict

from configs.sweeps import base

_TRADES = {"objective": {"name": "trades"}}
_ON_TRADES = {"beta": 0.0, "gamma": 2.0}


def get_config() -> ConfigDict:
    """Returns eight runs for each of three seeds."""
    config = base.get_config()
    config.sweep.configs = ("../mini_c10.py",)
    config.sweep.variants = (
        {"method": {"name": "standard"}, **_TRADES},
        {"method": {"name": "mail", **_ON_TRADES}, **_TRADES},
        {"method": {"name": "ours_mail", **_ON_TRADES}, **_TRADES},
        {"method": {"name": "constant", "constant": 0.04}},
        {"method": {"name": "mail", "normalize": True}},
        {"method": {"name": "standard"}, "awp": {"gamma": 0.01}},
        {"method": {"name": "standard"}, "objective": {"name": "mart", "lam": 5.0}},
        {"method": {"name": "standard"}, "average": {"name": "ema"}},
    )
    config.sweep.seeds = (0, 1, 2)
    config.sweep.share_warmup = True
    return config
