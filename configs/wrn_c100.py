"""WRN-34-10 on CIFAR-100 with Ours+MAIL, the paper's Tables 2 and 6.

python launch.py --config configs/wrn_c100.py
"""

from configs import wrn_c10


def get_config():
    """WRN-34-10 with 100 classes; tau stays 2 with this network."""
    config = wrn_c10.get_config()
    config.dataset.name = "cifar100"
    return config
