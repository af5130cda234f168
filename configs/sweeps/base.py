"""Every field of a sweep, once. A sweep is a list of runs: config files x variants x seeds.

    python launch.py --config configs/sweeps/table1.py                       run what is missing
    python launch.py --config configs/sweeps/table1.py --list                print one command a run, for a queue

`--config.FIELD=VALUE` with a field of configs/base.py goes to every run; `--config.sweep.seeds=(0,1,2)` is the sweep's.
"""

from ml_collections import ConfigDict

from jaxrw.methods import METHODS


def get_config():
    """A sweep without runs; locked, so that a misspelt field raises."""
    config = ConfigDict()
    config.sweep = ConfigDict()
    config.sweep.configs = ()  # config files, relative to the file of the sweep
    config.sweep.variants = ()  # what a run changes in them, shaped as a config: {"method": {"tau": 3.0}}
    config.sweep.seeds = (0, 1, 2, 3, 4)  # of every variant; all of the first are run before the second
    # True: runs that differ by their method alone share one warm-up, in which all weights are 1: the first of them
    # trains it and the others begin where it ended. With the paper's schedule that saves 75 of their 120 epochs.
    config.sweep.share_warmup = False
    return config.lock()


def methods(*names):
    """Variants that differ by their method alone; without names, one for each method."""
    return tuple({"method": {"name": name}} for name in names or METHODS)
