"""MAIL-TRADES (Wang et al. 2021): TRADES whose KL divergences are weighted by MAIL, ResNet-18 on CIFAR-10.

    python launch.py --config configs/mail_trades_c10.py
    python launch.py --config configs/mail_trades_c10.py --config.method.name=ours_mail   # margin reweighting on TRADES

beta 0, gamma 2 and lam 5 are the authors', whose clean images also count in BatchNorm's statistics. The warm-up is
TRADES without weights.
Time, computed: 120 epochs of 49,000 images with 27 passes of 1.11 GFLOP each are 176 PFLOP, 1.17 times
configs/resnet18_c10.py.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Returns MAIL-TRADES with the paper's schedule."""
    config = base.get_config()
    config.method.name = "mail"
    config.method.beta = 0.0
    config.method.gamma = 2.0
    config.objective.name = "trades"
    config.objective.lam = 5.0
    config.attack.start = "normal"
    return config
