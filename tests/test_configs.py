"""Configs: the shipped ones have the fields of base and the published values; one of an earlier version still runs."""

import pathlib
import re

import pytest
from ml_collections import ConfigDict

from configs import base
from jaxrw import command_line, settings
from jaxrw.system.errors import UserError

ROOT = pathlib.Path(__file__).parent.parent


def test_a_config_of_a_version_without_a_field_is_the_same_run():
    """A field that came later is None where it has no effect."""
    config = base.get_config()
    with config.unlocked():
        del config.dataset.validation_share
        del config.objective
        del config.attack.norm
    new, old = (
        settings.completed(settings.flatten(settings.as_json(c))) for c in (base.get_config(), config)
    )
    assert settings.differences(new, old) == []
    assert settings.with_effect(new) == settings.with_effect(old)


def test_a_config_file_of_a_version_without_a_field_runs(tmp_path):
    """Of a user who has copied all of an earlier base.py."""
    (tmp_path / "mine.py").write_text(
        "from configs import digits\n"
        "def get_config():\n"
        "    config = digits.get_config()\n"
        "    with config.unlocked():\n"
        "        del config.objective, config.awp, config.average, config.extra, config.attack.norm\n"
        "    return config\n"
    )
    config = command_line.parse(["launch.py", f"--config={tmp_path / 'mine.py'}"]).config
    settings.check(config, num_devices=1)
    assert (config.objective.name, config.awp.gamma, config.attack.norm) == ("standard", None, "linf")


def test_base_names_every_choice():
    """Comments of configs/base.py name the choices of fields that have no records."""
    text = (ROOT / "configs" / "base.py").read_text()
    for field in ("model.dtype", "attack.start", "average.name", "optim.schedule"):
        before, after = text.split(f"    config.{field} = ")
        comment = before.splitlines()[-1] + after.splitlines()[0]
        for choice in settings.CHOICES[field]:
            assert re.search(rf"\b{choice}\b", comment), (field, choice)


@pytest.mark.parametrize(
    "name", ["base", "digits", "folder", "resnet18_c10", "resnet18_c100", "wrn_c10", "wrn_c100"]
)
def test_shipped_configs(name):
    """Every config is locked and has exactly the fields of base; the paper's have the paper's values."""
    module = __import__(f"configs.{name}", fromlist=["get_config"])
    config = module.get_config()
    assert isinstance(config, ConfigDict)
    assert config.is_locked
    assert set(command_line.field_names(config)) == set(command_line.field_names(base.get_config()))
    assert f"configs/{name}.py" in module.__doc__ or name == "base"
    if name in ("base", "digits", "folder"):
        return
    wide, hundred = name.startswith("wrn"), name.endswith("c100")
    assert config.model.name == ("wrn34_10" if wide else "resnet18")
    assert config.dataset.name == ("cifar100" if hundred else "cifar10")
    assert config.method.tau == (3 if hundred and not wide else 2)
    assert config.optim.to_dict() == {
        "num_epochs": 120,
        "batch_size": 128,
        "schedule": "milestones",
        "learning_rate": 0.1 if wide else 0.01,
        "milestones": (75, 90, 100),
        "decay": 0.1,
        "rise_epochs": 0,
        "peak": 0.025,
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 5e-4 if wide else 3.5e-3,
        "decay_all": True,
        "clip_norm": None,
    }
    assert (config.objective.name, config.objective.smoothing) == ("standard", 0)
    assert (config.awp.gamma, config.average.name, config.extra.path) == (None, "none", None)
    assert (config.attack.eps, config.attack.step_size, config.attack.num_steps) == (8 / 255, 2 / 255, 10)
    assert (config.evaluation.eps, config.evaluation.step_size) == (8 / 255, 2 / 255)
    assert (config.method.warmup_epochs, config.method.beta, config.method.gamma) == (75, 0.5, 10)
    assert (config.method.alpha, config.method.multiplier, config.method.lam) == (2, 3, -1)


# Of configs beyond the paper: objective, method, AWP's gamma, average, and the network.
RECIPES = {
    "trades_c10": ("trades", "standard", None, "none", "wrn34_10"),
    "mart_c10": ("mart", "standard", None, "none", "resnet18"),
    "mail_trades_c10": ("trades", "mail", None, "none", "resnet18"),
    "awp_c10": ("standard", "standard", 0.01, "none", "resnet18"),
    "trades_awp_c10": ("trades", "standard", 0.005, "none", "wrn34_10"),
    "wang2023_c10": ("trades", "standard", None, "ema", "dm_wrn"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_recipes(name):
    """Each can be used, has exactly the fields of base, and its page says where it is from and what it costs."""
    module = __import__(f"configs.{name}", fromlist=["get_config"])
    config = module.get_config()
    settings.check(config, num_devices=1)
    assert config.is_locked
    assert set(command_line.field_names(config)) == set(command_line.field_names(base.get_config()))
    assert (
        config.objective.name,
        config.method.name,
        config.awp.gamma,
        config.average.name,
        config.model.name,
    ) == RECIPES[name]
    for words in (f"configs/{name}.py", "Time, computed", "FLOP"):
        assert words in module.__doc__


def test_a_field_that_is_missing_is_named():
    """Whichever it is, of all that configs/base.py has."""
    names = list(settings.flatten(base.get_config().to_dict()))
    assert len(names) > 70
    for name in names:
        config = base.get_config().copy_and_resolve_references().unlock()
        section, _, field = name.rpartition(".")
        del (config[section] if section else config)[field]
        with pytest.raises(
            UserError, match=f"^{name} is missing from the config; begin with configs/base.py"
        ):
            settings.check(config, num_devices=1)
