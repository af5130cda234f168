"""The time that is left of a sweep: measured, guessed from finished runs, or not told."""

import json
import pathlib
import re
import sys
import types

import pytest
from helpers.sweeps import LAUNCHER, NAMES, SHARING, VARIANTS, change_results, config, ran, run

from jaxrw.sweep import sequential


@pytest.fixture
def minutes(here, monkeypatch):
    """Runs of a minute each, by a fake clock; the launcher is executed in this process."""
    now = [0]

    def status(command):
        monkeypatch.setattr(sys, "argv", [str(argument) for argument in command[1:]])
        exec(LAUNCHER, {})
        now[0] += 60
        return 0

    monkeypatch.setattr(sequential.processes, "run", status)
    monkeypatch.setattr(sequential, "time", types.SimpleNamespace(monotonic=lambda: now[0]))


def left(out):
    """Time left that a sweep printed before each run; None if it printed none."""
    found = re.findall(r"^run \d+ of \d+: .*\(\d+ failed(?:, about ([-\d:]+) left)?\)", out, re.M)
    return [words or None for words in found]


@pytest.mark.parametrize(
    "value", ["x", None, True, [1], -5.0, float("nan"), 10**400, 1e308], ids=lambda value: str(value)[:9]
)
def test_a_time_that_is_none_is_left_out_of_the_time_left(minutes, capsys, value):
    run(config(variants=VARIANTS[:1], seeds=(0,)))
    change_results("digits/mail-0", train_seconds=value)
    capsys.readouterr()
    run(config())
    assert ran() == NAMES
    assert left(capsys.readouterr().out) == [None, "02:00", "01:00"]


def put_autoattack(name, seconds):
    """Adds AutoAttack's times to the last checkpoint of a run, which is its best too."""
    checkpoints = json.loads(pathlib.Path("runs", name, "results.json").read_text())["checkpoints"]
    attacked = {**checkpoints["last"], "autoattack": {"seconds": seconds}}
    change_results(name, checkpoints={"last": attacked, "best": attacked})


def test_a_first_guess_of_the_time_left_counts_training_and_autoattack(minutes, capsys):
    """Measured times replace it later."""
    run(config(variants=VARIANTS[:1], seeds=(0,)))
    put_autoattack("digits/mail-0", {"apgd-ce": 60.5, "square": 19.5})
    capsys.readouterr()
    run(config())
    assert left(capsys.readouterr().out) == ["09:00", "02:00", "01:00"]


@pytest.mark.parametrize(
    "damaged", [7, {}, {"seconds": 7}, {"seconds": {"square": "x", "apgd-ce": 80.0}}], ids=str
)
def test_times_of_autoattack_that_are_none_are_left_out(minutes, capsys, damaged):
    run(config(variants=VARIANTS[:1], seeds=(0,)))
    last = {"epoch": 39, "step": 9, "num_examples": 30, "accuracy": {}}
    last["accuracy"] = dict.fromkeys(("clean", "fgsm", "pgd20", "pgd100", "cw_pgd", "apgd_ce", "aa"), 50.0)
    change_results("digits/mail-0", checkpoints={"last": last | {"autoattack": damaged}, "best": None})
    capsys.readouterr()
    run(config(seeds=(0,)))
    assert left(capsys.readouterr().out) == ["03:00" if "apgd-ce" in str(damaged) else "01:40"]


def test_autoattack_that_is_not_asked_for_takes_no_time(minutes, capsys):
    overrides = ["--config.evaluation.attacks=('clean', 'pgd20')"]
    run(config(variants=VARIANTS[:1], seeds=(0,)), overrides=overrides)
    put_autoattack("digits/mail-0", {"square": 80.0})
    capsys.readouterr()
    run(config(seeds=(0,)), overrides=overrides)
    assert left(capsys.readouterr().out) == ["01:40"]


@pytest.mark.parametrize("flags", [[], ["--mode=evaluate"]], ids=["train", "evaluate"])
def test_evaluation_alone_is_not_guessed_from_training(minutes, capsys, flags):
    """Runs of a day that lack an attack: nobody knows how long it takes before the first has got it."""
    run(config(), overrides=["--config.evaluation.attacks=('clean',)"])
    run(config(seeds=(0,), variants=VARIANTS[:1]))
    change_results("digits/mail-0", train_seconds=86400)
    capsys.readouterr()
    run(config(), flags=flags)
    assert left(capsys.readouterr().out) == [None, "02:00", "01:00"]


def test_runs_that_begin_with_a_warmup_of_another_are_told_from_those_that_train_it(minutes, capsys):
    """Of the 40 epochs of the digits, the first run of a seed trains all and the others the last 15."""
    fields = SHARING | {"variants": (*SHARING["variants"], {"method": {"name": "ewat"}})}
    run(config(**fields | {"seeds": (0,)}))
    assert left(capsys.readouterr().out) == [None, None, "02:00", "01:00"]
    # train_seconds is 100 in all of them: the copied metrics tell of the warm-up too.
    run(config(**fields))
    # 100 + 3 * 100 * 15 / 40; then only those that begin with a warm-up are left, and measured to take a minute.
    assert left(capsys.readouterr().out) == ["03:32", "01:52", "02:00", "01:00"]


def test_the_time_of_one_config_file_is_guessed_from_that_of_another(minutes, capsys):
    """Unless there are times of its own."""
    fields = {"configs": ("digits.py", "mini_c10.py"), "variants": VARIANTS[:1]}
    run(config(**fields | {"seeds": (0,)}))
    assert left(capsys.readouterr().out) == [None, "01:00"]
    change_results("mini_c10/mail-0", train_seconds=1000)
    run(config(**fields))
    assert left(capsys.readouterr().out) == ["18:20", "16:40"]
