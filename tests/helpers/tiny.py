"""A complete experiment small enough for a test: digits, a WideResNet of depth 10 and width 1, two attack steps."""

import functools

from configs import digits


def config(method="ours_mail", **overrides):
    """The digits config shrunk; overrides as `optim__num_epochs=2`."""
    config = digits.get_config()
    config.method.name = method
    config.method.warmup_epochs = 1
    config.dataset.train_size = 64
    config.dataset.validation_size = 32
    config.dataset.test_size = 30
    config.model.name = "wrn"
    config.model.depth = 10
    config.model.width = 1
    config.attack.num_steps = 2
    config.optim.num_epochs = 3
    config.optim.batch_size = 16
    config.optim.milestones = (2,)
    config.evaluation.attacks = ("clean", "pgd20")
    config.evaluation.selection_steps = 2
    config.evaluation.batch_size = 16
    config.evaluation.figure_examples = 0
    for field, value in overrides.items():
        *sections, name = field.split("__")
        functools.reduce(getattr, sections, config)[name] = value
    return config


def with_attacks(*attacks, **overrides):
    """One that learns within seconds, and what it is evaluated with."""
    fields = {"dataset__train_size": 512, "attack__num_steps": 0, "optim__num_epochs": 4}
    return config("standard", **(fields | {"evaluation__attacks": attacks} | overrides))
