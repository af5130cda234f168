"""Command-line flags of an experiment small enough for a test, and flags of XLA for several devices."""

import os
import pathlib

ROOT = pathlib.Path(__file__).parents[2]
DIGITS = f"--config={ROOT / 'configs' / 'digits.py'}"

TINY = [
    f"--config.{field}"
    for field in (
        "dataset.train_size=64",
        "dataset.validation_size=32",
        "dataset.test_size=30",
        "model.name=wrn",
        "model.depth=10",
        "model.width=1",
        "method.warmup_epochs=1",
        "attack.num_steps=2",
        "optim.num_epochs=2",
        "awp.start_epoch=0",
        "average.start_epoch=0",
        "optim.batch_size=16",
        "evaluation.attacks=('clean','pgd20')",
        "evaluation.selection_steps=2",
        "evaluation.figure_examples=0",
    )
]


def xla_flags(devices):
    """$XLA_FLAGS of this process, and so many CPU devices."""
    return f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
