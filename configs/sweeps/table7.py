"""Table 7: Ours+MAIL with and without the similarity on CIFAR-10, last and best, with WRN-34-10.

    python launch.py --config configs/sweeps/table7.py

10 runs with five seeds. They are those of Table 4, which shows fewer columns.
"""

from ml_collections import ConfigDict

from configs.sweeps import table4


def get_config() -> ConfigDict:
    """Returns the runs of Table 7."""
    return table4.get_config()
