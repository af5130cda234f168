"""What is printed where the output is no terminal: never nothing for long."""

import contextlib
import sys
import time

import numpy as np
import pytest

from jaxrw.attacks import Progress
from jaxrw.attacks.autoattack import bar as autoattack_bar
from jaxrw.runs import progress
from jaxrw.system import lines


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(lines, "LINE_SECONDS", 0.05)


def wait_for_line(capsys):
    """Lines that are printed while the main thread does something else, as compiling."""
    deadline, text = time.monotonic() + 10, ""
    while not text and time.monotonic() < deadline:
        time.sleep(0.01)
        text = capsys.readouterr().out
    return text.splitlines()


def sums():
    return {"examples": np.float32(8), "loss": np.float32(8), "correct": np.float32(4)}


def test_training_says_where_it_stands(capsys):
    bar = progress.TrainingProgress(first_step=4, num_steps=12, batch_size=8, num_epochs=3)
    with contextlib.closing(bar):
        assert wait_for_line(capsys)[0] == "epoch 2/3: compiling the training step"
        bar.step(4, 1, sums())
        assert wait_for_line(capsys)[-1].startswith("epoch 2/3: step 1 of 4, ")
        for number in range(5, 8):
            bar.step(number, 1, sums())
        time.sleep(0.1)
        assert wait_for_line(capsys)[-1] == "epoch 2/3: all steps done, validating"
    capsys.readouterr()
    time.sleep(0.2)
    assert capsys.readouterr().out == ""  # The thread has ended.


def test_an_attack_says_where_it_stands(capsys):
    with progress.evaluation_bar("last: pgd100", 1000) as update:
        update(500)
        assert wait_for_line(capsys)[0] == "last: pgd100: 500 of 1,000 images"
    with contextlib.closing(autoattack_bar.AutoAttackProgress("best")) as bar:
        assert wait_for_line(capsys)[0] == "best: AutoAttack is being compiled"
        bar(Progress("apgd-ce", 100, 60, 0.25, 10.0, 30.0, True))
        time.sleep(0.1)
        assert wait_for_line(capsys)[-1] == "best: apgd-ce 25 % done, 60 of 100 robust, 00:30 left"
        bar(Progress("apgd-ce", 100, 55, 1.0, 40.0, 0.0, True))
        bar(Progress("apgd-t", 100, 50, 0.5, 10.0, 10.0, True))
    told = capsys.readouterr().out
    assert told.splitlines()[-1] == "best: apgd-ce leaves 55 of 100 robust"
    assert "apgd-t leaves" not in told  # It was stopped.


def test_no_line_more_than_is_needed(capsys, monkeypatch):
    monkeypatch.setattr(lines, "LINE_SECONDS", 0.5)
    with contextlib.closing(lines.Lines(lambda: "silent")) as printed:
        for _ in range(8):
            printed.print("own")
            time.sleep(0.1)
    assert capsys.readouterr().out == "own\n" * 8


def test_on_a_terminal_the_bar_says_it(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with contextlib.closing(lines.Lines(lambda: "silent")):
        time.sleep(0.2)
    assert capsys.readouterr().out == ""
