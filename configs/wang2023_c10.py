"""TRADES with EMA, one cycle of the learning rate, and generated images (Wang et al. 2023): WRN-28-10 on CIFAR-10.

    python launch.py --config configs/wang2023_c10.py --config.extra.path=1m.npz

`1m.npz` is the authors' file of a million images, available from their repository, DM-Improves-AT; without
`--config.extra.path` only the 49,000 training images are used. The settings are those of its command of 400 epochs.
Time, computed: 400 epochs of 95 steps of 512 images with 27 passes of 10.5 GFLOP each are 5.5 EFLOP, 3 times
configs/wrn_c10.py.
Published (the authors, 20 million images, 2,400 epochs): clean 92.44, AutoAttack 67.31.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Returns the recipe that leaders of RobustBench share."""
    config = base.get_config()
    config.model.name = "dm_wrn"  # WRN-28-10 with SiLU
    config.model.mean = (0.4914, 0.4822, 0.4465)
    config.model.std = (0.2471, 0.2435, 0.2616)
    config.method.name = "standard"
    config.objective.name = "trades"
    config.objective.lam = 5.0
    config.objective.smoothing = 0.1
    config.objective.clean_statistics = False
    config.average.name = "ema"
    config.average.decay = 0.995
    config.average.start_epoch = 10  # 2.5 % of the epochs
    config.extra.share = 0.7
    config.optim.num_epochs = 400
    config.optim.batch_size = 512
    config.optim.schedule = "one_cycle"
    config.optim.peak = 0.025
    config.optim.learning_rate = 0.2
    config.optim.nesterov = True
    config.optim.weight_decay = 5e-4
    config.optim.decay_all = False
    return config
