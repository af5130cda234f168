"""TRADES-AWP (Wu et al. 2020): WRN-34-10 on CIFAR-10, as the authors' train_trades_cifar.py.

    python launch.py --config configs/trades_awp_c10.py

Time, computed: 200 epochs of 49,000 images with 33 passes of 13.3 GFLOP each are 4.3 EFLOP, 2.4 times
configs/wrn_c10.py: 27 of TRADES, and 6 to perturb the weights.
Published (the authors): clean 85.36, AutoAttack 56.17.
"""

from ml_collections import ConfigDict

from configs import trades_c10


def get_config() -> ConfigDict:
    """Returns TRADES with AWP."""
    config = trades_c10.get_config()
    config.awp.gamma = 0.005
    config.awp.start_epoch = 9  # the authors count epochs from 1: AWP from 10 on, drops at 100 and 150
    config.attack.eps = 8 / 255
    config.attack.step_size = 2 / 255
    config.optim.num_epochs = 200
    config.optim.weight_decay = 5e-4
    config.optim.milestones = (99, 149)
    return config
