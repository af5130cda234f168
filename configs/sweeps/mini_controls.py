r"""Is it which examples count, or how much? The paper's margins against controls, on fresh seeds at a laptop's scale.

    python launch.py --config configs/sweeps/mini_controls.py --workdir runs/controls \
        --config.evaluation.attacks="('clean',)" --config.evaluation.selection_steps=10 \
        --config.evaluation.figure_examples=0
    python launch.py --config configs/sweeps/mini_controls.py --workdir runs/controls --mode evaluate \
        --checkpoint last --config.evaluation.attacks="('clean','pgd100','cw_pgd','scaled_pgd','apgd_t')" \
        --config.evaluation.selection_steps=10 --config.evaluation.figure_examples=0

What is compared was written down before: results/controls/protocol.md. After the warm-up the mean weight is 0.04 for
MAIL and 0.05 for Ours+MAIL at this scale, hence the constant.
"""

from ml_collections import ConfigDict

from configs.sweeps import base


def get_config() -> ConfigDict:
    """Returns five runs for each of ten seeds that no earlier sweep has used."""
    config = base.get_config()
    config.sweep.configs = ("../mini_c10.py",)
    config.sweep.variants = (
        *base.methods("standard", "mail", "ours_mail"),
        {"method": {"name": "constant", "constant": 0.04}},
        {"method": {"name": "mail", "normalize": True}},
    )
    config.sweep.seeds = tuple(range(30, 40))
    config.sweep.share_warmup = True
    return config
