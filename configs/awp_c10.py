"""AWP (Wu et al. 2020) on standard adversarial training: ResNet-18 on CIFAR-10, schedule as the authors' AT-AWP.

    python launch.py --config configs/awp_c10.py

Time, computed: 200 epochs of 49,000 images with 26 passes of 1.11 GFLOP each are 283 PFLOP, 1.9 times
configs/resnet18_c10.py. The perturbation of the weights costs 3 passes of a step.
Published: AutoAttack 53.97 with WRN-34-10 and clean 85.36 (the authors); 50.80 with ResNet-18 (the MAIR toolbox).
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Returns standard adversarial training with AWP from the first epoch on."""
    config = base.get_config()
    config.method.name = "standard"
    config.awp.gamma = 0.01
    config.optim.num_epochs = 200
    config.optim.learning_rate = 0.1
    config.optim.weight_decay = 5e-4
    config.optim.milestones = (100, 150)
    return config
