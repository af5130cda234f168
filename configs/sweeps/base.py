"""Every field of a sweep. A sweep is a list of runs: config files x variants x seeds.

    python launch.py --config configs/sweeps/table1.py            run what is missing
    python launch.py --config configs/sweeps/table1.py --list     print its commands, one for each run, for a queue
    python launch.py --config configs/sweeps/table1.py --launcher ray    run what is missing on a Ray cluster

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
    # With --launcher ray: what a run needs of one machine, by Ray's names. A dict in its place can have other names.
    config.sweep.resources = ConfigDict({"CPU": 1, "GPU": 0, "TPU": 0})
    return config.lock()


def methods(*names: str) -> tuple[dict[str, dict[str, str]], ...]:
    """Returns one variant for each of these methods; without names, for those of the paper and for one's own."""
    every = [method.name for method in METHODS.values() if not method.beyond_paper]
    return tuple({"method": {"name": name}} for name in names or every)
