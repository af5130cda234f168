r"""Does WMMR help, and margin reweighting it? Both, beside the runs of mini_controls.py with the same seeds.

    python launch.py --config configs/sweeps/mini_wmmr.py --workdir runs/controls \
        --config.evaluation.attacks="('clean',)" --config.evaluation.selection_steps=10 \
        --config.evaluation.figure_examples=0
    python launch.py --config configs/sweeps/mini_wmmr.py --workdir runs/controls --mode evaluate \
        --checkpoint last --config.evaluation.attacks="('clean','pgd100','apgd_t')" \
        --config.evaluation.selection_steps=10 --config.evaluation.figure_examples=0

What is compared was written down before: results/controls/wmmr.md.
"""

from ml_collections import ConfigDict

from configs.sweeps import base


def get_config() -> ConfigDict:
    """Returns two runs for each of the ten seeds of mini_controls.py."""
    config = base.get_config()
    config.sweep.configs = ("../mini_c10.py",)
    config.sweep.variants = base.methods("wmmr", "ours_wmmr")
    config.sweep.seeds = tuple(range(30, 40))
    config.sweep.share_warmup = True
    return config
