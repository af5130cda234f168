"""Every field of a sweep. A sweep is a list of runs: config files x variants x seeds.

    python launch.py --config configs/sweeps/table1.py            run what is missing
    python launch.py --config configs/sweeps/table1.py --list     print its commands, one for each run, for a queue

`--config.FIELD=VALUE` with a field of configs/base.py applies to every run; `--config.sweep.seeds=(0,1)` to the sweep.
"""

from ml_collections import ConfigDict

from jaxrw.methods import METHODS


def get_config() -> ConfigDict:
    """Returns a sweep without runs; locked, so that a misspelt field raises."""
    config = ConfigDict()
    config.sweep = ConfigDict()
    config.sweep.configs = ()  # config files, relative to the file of the sweep
    config.sweep.variants = ()  # changes to a config file, as in {"method": {"tau": 3.0}}
    config.sweep.seeds = (0, 1, 2, 3, 4)  # the runs of one seed come before those of the next
    # True: of runs that differ in their method alone, only the first trains the warm-up, in which all weights are 1.
    # The others begin at its end, which saves 75 of the paper's 120 epochs.
    config.sweep.share_warmup = False
    return config.lock()


def methods(*names: str) -> tuple[dict[str, dict[str, str]], ...]:
    """Returns one variant for each of these methods; without names, for those of the paper and for one's own."""
    every = [method.name for method in METHODS.values() if not method.beyond_paper]
    return tuple({"method": {"name": name}} for name in names or every)
