r"""Weightings of our own against a constant: chosen on validation images, by results/own/protocol.md.

    python launch.py --config configs/sweeps/mini_own.py --workdir runs/own --config.dataset.test_split=validation \
        --config.dataset.test_size=500 --config.evaluation.attacks="('clean','pgd100','apgd_t')" \
        --config.evaluation.selection_steps=10 --config.evaluation.figure_examples=0

The weights are those of `configs/mini_own.py`, and MAIL's on the margin of the logits.
"""

from ml_collections import ConfigDict

from configs.sweeps import base


def get_config() -> ConfigDict:
    """Returns four runs for each of two seeds, which no comparison uses."""
    config = base.get_config()
    config.sweep.configs = ("../mini_own.py",)
    config.sweep.variants = (
        {"method": {"name": "constant"}},
        {"method": {"name": "half_mail"}},
        {"method": {"name": "mail_logits", "beta": 0.0, "gamma": 2.0, "multiplier": 0.08}},
        {"method": {"name": "far", "gamma": 2.0}},
    )
    config.sweep.seeds = (10, 11)
    config.sweep.share_warmup = True
    return config
