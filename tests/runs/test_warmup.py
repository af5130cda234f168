"""Warm-ups that a run keeps and another begins with: the same run as alone; those that do not fit are refused."""

import functools
import shutil

import jax
import numpy as np
import pytest
from helpers import tiny
from helpers.trained import last_state, lines

from jaxrw import runs, settings, train
from jaxrw.system.errors import UserError
from jaxrw.training.experiment import create_experiment


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A run of standard training that has kept its warm-up of two epochs."""
    workdir = tmp_path_factory.mktemp("runs") / "warm"
    train.run(tiny.config("standard", **KEPT), workdir)
    return workdir


KEPT = {"checkpoint__keep_warmup": True, "method__warmup_epochs": 2}


def test_a_run_that_begins_with_the_warmup_of_another_method_is_the_same_run(warm, tmp_path):
    """Same lines and state to rounding: the programs of two methods are two programs."""
    config = tiny.config("ours_mail", method__warmup_epochs=2)
    train.run(config, tmp_path / "alone")
    train.run(config, tmp_path / "forked", warmup_from=warm)
    assert runs.warmup.source_of(runs.read_metrics(tmp_path / "forked")) == str(warm)
    assert runs.warmup.source_of(runs.read_metrics(tmp_path / "alone")) is None
    assert len(list((tmp_path / "forked").glob("events.out.tfevents*"))) == 2
    assert not list((warm / "warmup").glob("*tfevents*"))  # TensorBoard would show it as a run
    (found, *steps), (expected, *expected_steps) = (
        last_state(tmp_path / "forked"),
        last_state(tmp_path / "alone"),
    )
    assert steps == expected_steps
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-4), found, expected)
    forked, alone = (lines(tmp_path / name, "train", "validation") for name in ("forked", "alone"))
    assert forked[:4] == lines(warm, "train", "validation")[:4]
    assert [line["step"] for line in forked] == [line["step"] for line in alone]
    # After it the weights are the method's own.
    assert forked[-2]["mean_weight"] == pytest.approx(alone[-2]["mean_weight"], abs=1e-4)
    assert forked[-2]["mean_weight"] != pytest.approx(1)


def test_settings_that_no_training_reads_are_none_of_the_warmup(warm):
    experiment = create_experiment(tiny.config("mail", method__warmup_epochs=2))
    for field, value in (("evaluation__surrogate", "bfloat16"), ("evaluation__version", "plus")):
        config = tiny.config("mail", method__warmup_epochs=2, **{field: value})
        runs.warmup.check(warm, config, experiment.dataset.fingerprint)


def test_a_kill_just_before_the_warmup_is_kept_loses_nothing(warm, tmp_path, monkeypatch):
    def killed(workdir):
        raise KeyboardInterrupt

    keep = runs.warmup.keep
    monkeypatch.setattr(runs.warmup, "keep", killed)
    with pytest.raises(KeyboardInterrupt):
        train.run(tiny.config("standard", **KEPT), tmp_path / "run")
    assert not (tmp_path / "run" / "warmup").exists()
    monkeypatch.setattr(runs.warmup, "keep", keep)
    train.run(tiny.config("standard", **KEPT), tmp_path / "run")
    assert lines(tmp_path / "run" / "warmup") == lines(warm / "warmup") != []
    assert len(list((tmp_path / "run" / "warmup" / "checkpoints").iterdir())) == 2


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"evaluation__eps": 0.2}, "evaluation.eps is 0.1 there and 0.2 here"),
        ({"seed": 1}, "is another warm-up: seed is 0 there and 1 here"),
        ({"method__warmup_epochs": 1}, "method.warmup_epochs is 2 there and 1 here"),
        (
            {"attack__eps": 0.2, "optim__momentum": 0.8},
            "attack.eps is 0.1 there and 0.2 here; optim.momentum is",
        ),
    ],
)
def test_another_warmup_is_refused(warm, tmp_path, changed, words):
    config = tiny.config("mail", **{"method__warmup_epochs": 2} | changed)
    with pytest.raises(UserError, match=words):
        train.run(config, tmp_path / "run", warmup_from=warm)
    assert not (tmp_path / "run").exists()


def test_a_run_without_a_kept_warmup_is_no_place_to_begin(whole, warm, tmp_path):
    with pytest.raises(UserError, match="keeps no warm-up"):
        train.run(tiny.config(), tmp_path / "run", warmup_from=whole)
    damaged = shutil.copytree(warm, tmp_path / "damaged")
    (damaged / "config.json").write_text("[")
    with pytest.raises(UserError, match=r"no usable config\.json"):
        train.run(tiny.config("mail", method__warmup_epochs=2), tmp_path / "other", warmup_from=damaged)


def test_a_run_that_was_stopped_before_any_checkpoint_begins_with_the_warmup(warm, tmp_path):
    """Orbax makes the directory of checkpoints before the first step."""
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    config = tiny.config("mail", method__warmup_epochs=2)
    runs.write_json(tmp_path / "run" / "config.json", settings.as_json(config))
    train.run(config, tmp_path / "run", warmup_from=warm)
    assert runs.warmup.source_of(runs.read_metrics(tmp_path / "run")) == str(warm)


def test_a_run_that_is_beyond_its_warmup_says_that_it_keeps_none(whole, tmp_path, capsys):
    workdir = shutil.copytree(whole, tmp_path / "run")
    for path in (workdir / "checkpoints").iterdir():  # as of a run that was stopped in its last epoch
        if path.name == "12":
            shutil.rmtree(path)
    train.run(tiny.config(checkpoint__keep_warmup=True), workdir)
    assert "is beyond its warm-up; checkpoint.keep_warmup has no effect" in capsys.readouterr().err
    assert not runs.warmup.is_kept(workdir)


def test_a_run_that_has_begun_alone_says_that_the_warmup_has_no_effect(warm, whole, tmp_path, capsys):
    workdir = shutil.copytree(whole, tmp_path / "run")
    train.run(tiny.config(), workdir, warmup_from=warm)
    assert "has begun with a warm-up of its own; --warmup_from has no effect" in capsys.readouterr().err
