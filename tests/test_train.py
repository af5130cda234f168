"""Whole runs: their files, the choice of the best checkpoint, and resuming after a kill."""

import functools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from helpers import tiny
from helpers.trained import interrupted_at, last_state, lines

from jaxrw import evaluate, measure, runs, train
from jaxrw.runs import checkpoints
from jaxrw.system.errors import RunError, Stopped, UserError
from jaxrw.training.accuracy import Evaluator
from jaxrw.training.experiment import Experiment, create_experiment

ROOT = pathlib.Path(__file__).parent.parent


def test_files_of_a_run(whole):
    config = json.loads((whole / "config.json").read_text())
    assert config["method"]["tau"] == 2.0
    assert config["attack"]["eps"] == tiny.config().attack.eps
    assert list(whole.glob("events.out.tfevents*"))
    found = lines(whole)
    assert [(line["kind"], line["epoch"], line["step"]) for line in found] == [
        (kind, epoch, 4 * (epoch + 1)) for epoch in range(3) for kind in ("train", "validation")
    ]
    for line in found:
        if line["kind"] == "train":
            assert (line["mean_weight"] == 1) == (line["epoch"] == 0)  # one epoch of warm-up
            assert line["learning_rate"] == pytest.approx(0.1 if line["epoch"] < 2 else 0.01)
            assert 0 <= line["accuracy"] <= 100
            assert sum(line["margins"]) == sum(line["weights"]) == 64
            assert {type(count) for count in (*line["margins"], *line["weights"])} == {int}
            correct = np.sum(line["margins"][20:])  # the upper half of [-1, 1]
            assert line["accuracy"] == pytest.approx(100 * correct / 64)
            light = np.sum(line["weights"][:22])  # up to 0.056, the edge of a bin next to 0.05
            assert line["light_share"] <= light / 64
        else:
            assert set(line) == {"kind", "epoch", "step", "clean", "pgd2"}


def test_best_is_the_first_of_the_highest_validation_accuracy(whole):
    accuracies = [line["pgd2"] for line in lines(whole, "validation")]
    _, last, best = last_state(whole)
    assert last == 12
    assert best == 4 * (int(np.argmax(accuracies)) + 1)


def test_a_finished_run_is_left_alone(whole):
    def times():
        return {path: path.stat().st_mtime_ns for path in whole.rglob("[!.]*") if path.is_file()}

    before = times()
    train.run(tiny.config(), whole)
    assert times() == before


def test_killed_after_epoch_2_and_run_again_equals_uninterrupted(whole, tmp_path):
    """SIGKILL while epoch 3 trains; what it had logged without a checkpoint is written once, not twice."""
    program = f"from helpers import tiny; from jaxrw import train; train.run(tiny.config(), {str(tmp_path / 'run')!r})"
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}"}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not (tmp_path / "run" / "checkpoints" / "8").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, last, _ = last_state(tmp_path / "run")
    assert last in (4, 8)  # 8 is renamed into place before orbax has told anyone
    train.run(tiny.config(), tmp_path / "run")
    check_same(tmp_path / "run", whole)


def check_same(workdir, whole):
    """Same arrays bit for bit, same checkpoints kept, same lines."""
    (resumed, *resumed_steps), (expected, *expected_steps) = last_state(workdir), last_state(whole)
    jax.tree.map(np.testing.assert_array_equal, resumed, expected)
    assert resumed_steps == expected_steps
    assert lines(workdir, "train", "validation") == lines(whole, "train", "validation")


def test_resuming_from_every_checkpoint_within_an_epoch(whole, tmp_path, monkeypatch):
    """Stopped by an error after 1, 6 and 11 steps, with a checkpoint at every step: the same run."""
    config = tiny.config(checkpoint__every_steps=1)
    # The second step, and later as many more as were done before.
    monkeypatch.setattr(train, "create_step", interrupted_at(2, 8, 14))
    interrupted = 0
    for _ in range(4):
        try:
            train.run(config, tmp_path / "run")
        except KeyboardInterrupt:
            interrupted += 1
    assert interrupted == 3
    check_same(tmp_path / "run", whole)


def test_asked_to_stop_it_saves_and_goes_on_the_same(whole, tmp_path, monkeypatch, capsys):
    """SIGTERM and Ctrl-C in steps 2, 4 (the end of an epoch) and 11, and once in a validation: the same run."""
    signals = {2: signal.SIGTERM, 4: signal.SIGINT, 11: signal.SIGTERM}
    create, measure = train.create_step, Evaluator.measure

    def asked(number):
        signal.raise_signal(number)
        time.sleep(0.3)  # a thread takes it up

    def signalled(config, experiment):
        inner = create(config, experiment)

        def step(state, *arguments):
            number = int(state.step) + 1
            if number in signals:
                asked(signals.pop(number))
            return inner(state, *arguments)

        return step

    def measure_once(*arguments, **options):
        monkeypatch.setattr(Evaluator, "measure", measure)
        asked(signal.SIGTERM)
        return measure(*arguments, **options)

    monkeypatch.setattr(train, "create_step", signalled)
    stopped = []
    for attempt in range(6):
        if attempt == 2:
            monkeypatch.setattr(Evaluator, "measure", measure_once)
        try:
            train.run(tiny.config(), tmp_path / "run")
        except Stopped as error:
            stopped.append(str(error))
    assert [line.split(",")[0] for line in stopped] == [
        "stopped by SIGTERM after step 2",
        "stopped by SIGINT after step 4",
        "stopped by SIGTERM after step 4",  # in the validation of the epoch that step 4 ended
        "stopped by SIGTERM after step 11",
    ]
    check_same(tmp_path / "run", whole)
    assert "stopping after this step" in capsys.readouterr().err


def test_killed_after_a_validation_that_had_once_been_stopped_it_validates_again(
    whole, tmp_path, monkeypatch
):
    """The stop saves a checkpoint without accuracy; the kill comes when the epoch is logged and not saved again."""
    measure, save = Evaluator.measure, train.checkpoints.save

    def stopped(*arguments, **options):
        monkeypatch.setattr(Evaluator, "measure", measure)
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0.3)  # a thread takes it up
        return measure(*arguments, **options)

    def killed(manager, state, *, epoch, accuracy=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(Evaluator, "measure", stopped)
    with pytest.raises(Stopped, match="after step 4,"):
        train.run(tiny.config(), tmp_path / "run")
    monkeypatch.setattr(train.checkpoints, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        train.run(tiny.config(), tmp_path / "run")
    assert [line["step"] for line in lines(tmp_path / "run", "train", "validation")] == [4, 4]
    monkeypatch.setattr(train.checkpoints, "save", save)
    train.run(tiny.config(), tmp_path / "run")
    check_same(tmp_path / "run", whole)


def test_the_same_seed_gives_the_same_bits(whole, tmp_path):
    """In another process, from nothing."""
    program = f"from helpers import tiny; from jaxrw import train; train.run(tiny.config(), {str(tmp_path / 'run')!r})"
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}"}
    subprocess.run([sys.executable, "-c", program], env=environment, stdout=subprocess.DEVNULL, check=True)
    check_same(tmp_path / "run", whole)


def test_a_damaged_last_checkpoint_costs_an_epoch_and_nothing_else(whole, tmp_path, capsys, monkeypatch):
    workdir = shutil.copytree(whole, tmp_path / "run")
    (workdir / "checkpoints" / "12" / "default" / "manifest.ocdbt").write_bytes(b"")
    with monkeypatch.context() as context:
        # Nor are weights drawn that nobody needs.
        context.setattr(Experiment, "create_state", None)
        train.run(tiny.config(), workdir)
    told = capsys.readouterr()
    assert "checkpoints/12 is damaged: default/manifest.ocdbt" in told.err
    assert "going on after step 8, in epoch 3" in told.out
    check_same(workdir, whole)


def test_parameters_that_are_not_finite_are_never_saved(tmp_path, monkeypatch):
    """The last update of an epoch gives NaN after a finite loss: the next loss would be too late."""
    create = train.create_step

    def poisoned(config, experiment):
        inner = create(config, experiment)

        def step(*arguments):
            state, sums = inner(*arguments)
            if int(state.step) == 8:
                state = state.replace(params=jax.tree.map(lambda leaf: leaf * np.nan, state.params))
            return state, sums

        return step

    monkeypatch.setattr(train, "create_step", poisoned)
    with pytest.raises(RunError, match=r"a parameter is not finite at step 8 \(epoch 2\)"):
        train.run(tiny.config(), tmp_path)
    _, last, best = last_state(tmp_path)
    assert (last, best) == (4, 4)
    assert [line["epoch"] for line in lines(tmp_path)] == [0, 0]


def test_two_processes_do_not_share_a_directory(whole):
    """This process holds the lock; another one is refused, and may work there once this one has let go."""
    program = f"""
from helpers import tiny
from jaxrw import runs
from jaxrw.system.errors import UserError
try:
    with runs.open_workdir({str(whole)!r}, tiny.config()):
        print("mine")
except UserError as error:
    print(error)
"""
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}"}
    command = [sys.executable, "-c", program]
    with runs.open_workdir(whole, tiny.config()):
        told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert f"--workdir {whole} is in use by process {os.getpid()} on" in told
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert told == "mine\n"


def test_a_warm_up_that_never_ends_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train._Training, "run", lambda training, first_epoch: None)  # it is said before
    train.run(tiny.config(method__warmup_epochs=3, optim__num_epochs=1, dataset__validation_size=0), tmp_path)
    assert "this run is the same without ours_mail" in capsys.readouterr().out


def test_autoattack_goes_on_and_other_attacks_leave_its_state_alone(whole, tmp_path, monkeypatch):
    """Stopped within AutoAttack, then another attack, then AutoAttack again: from its state, which then goes."""
    workdir = shutil.copytree(whole, tmp_path / "run")
    state, earlier = workdir / "autoattack-last-12.npz", workdir / "autoattack-last-8.npz"
    earlier.write_bytes(b"of a checkpoint that was the last one before")

    def stop(*arguments, state_path, **options):
        state_path.write_bytes(b"state")
        raise KeyboardInterrupt

    config = tiny.config(evaluation__attacks=("aa",))
    with monkeypatch.context() as patch:
        patch.setattr(measure, "autoattack", stop)
        with pytest.raises(KeyboardInterrupt):
            evaluate.run(config, workdir, checkpoint="last")
    evaluate.run(tiny.config(evaluation__attacks=("fgsm",), evaluation__eps=0.05), workdir, checkpoint="last")
    assert state.exists()
    with pytest.raises(UserError, match="AutoAttack of last"):  # this one is no state
        evaluate.run(config, workdir, checkpoint="last")
    state.unlink()
    short = functools.partial(measure.autoattack, num_steps=3, num_queries=10)
    monkeypatch.setattr(measure, "autoattack", short)
    checkpoint = evaluate.run(config, workdir, checkpoint="last")["checkpoints"]["last"]
    assert checkpoint["accuracy"]["aa"] == pytest.approx(checkpoint["autoattack"]["accuracy"]["square"])
    assert checkpoint["accuracy"]["aa"] <= checkpoint["autoattack"]["clean_accuracy"]
    assert not state.exists()
    assert not earlier.exists()


def test_without_validation_there_is_no_best_and_the_run_says_so(tmp_path, capsys):
    config = tiny.config(dataset__validation_size=0)
    train.run(config, tmp_path)
    assert "no best checkpoint" in capsys.readouterr().out
    results = evaluate.run(config, tmp_path)
    assert results["checkpoints"]["best"] is None
    assert results["checkpoints"]["last"]["accuracy"]["clean"] is not None
    with pytest.raises(UserError, match=r"is 'best', but nothing has been validated"):
        evaluate.run(config, tmp_path, checkpoint="best")


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tmp_path):
    config = tiny.config(optim__learning_rate=1e30)
    with pytest.raises(RunError, match=r"the loss is (nan|inf) at step \d+ \(epoch 1\)"):
        train.run(config, tmp_path)
    with checkpoints.open_checkpoints(tmp_path / "checkpoints") as manager:
        assert manager.latest_step() is None


def test_a_directory_of_another_config_is_refused_with_the_fields(whole):
    before = (whole / "config.json").read_text()
    with pytest.raises(UserError) as error:
        train.run(tiny.config("mail", optim__learning_rate=0.2), whole)
    assert "method.name is 'ours_mail' there and 'mail' here" in str(error.value)
    assert "optim.learning_rate is 0.1 there and 0.2 here" in str(error.value)
    assert (whole / "config.json").read_text() == before
    train.run(tiny.config(dataset__data_dir="elsewhere"), whole)  # data may move between machines
    train.run(tiny.config(checkpoint__every_steps=2, evaluation__attacks=("aa",)), whole)  # changes no number


def test_ranking_of_checkpoints(tmp_path):
    """Strictly better replaces the best; a tie, a NaN and a missing accuracy do not."""
    state = create_experiment(tiny.config()).create_state()
    kept = []
    with checkpoints.open_checkpoints(tmp_path) as manager:
        for epoch, accuracy in enumerate([1.0, 5.0, 5.0, float("nan"), None, 4.0]):
            checkpoints.save(manager, state.replace(step=np.int32(epoch)), epoch=epoch, accuracy=accuracy)
            manager.wait_until_finished()
            kept.append((manager.all_steps(), manager.best_step()))
    steps = [[0], [0, 1], [1, 2], [1, 2, 3], [1, 3, 4], [1, 4, 5]]
    assert kept == [(steps[0], 0), *((kept, 1) for kept in steps[1:])]


def test_evaluation_of_a_run(whole, capsys):
    config = tiny.config()
    results = evaluate.run(config, whole)
    assert results == json.loads((whole / "results.json").read_text())
    assert results["schema"] == 1
    assert results["versions"]["jax"] == jax.__version__
    for name, checkpoint in results["checkpoints"].items():
        assert checkpoint["num_examples"] == 30, name
        accuracy = checkpoint["accuracy"]
        columns = [
            "clean",
            "fgsm",
            "pgd20",
            "pgd100",
            "cw_pgd",
            "scaled_pgd",
            "apgd_ce",
            "apgd_t",
            "aa",
            "corruptions",
        ]
        assert list(accuracy) == columns
        assert accuracy["clean"] >= accuracy["pgd20"]
        assert accuracy["fgsm"] is None
    assert set(results["checkpoints"]["last"].pop("correct")) == set(config.evaluation.attacks)
    assert results["checkpoints"]["last"] | {"accuracy": 0} == {
        "epoch": 2,
        "step": 12,
        "num_examples": 30,
        "chance": pytest.approx(100 * 5 / 30),
        "accuracy": 0,
    }
    more = evaluate.run(tiny.config(evaluation__attacks=("fgsm",)), whole, checkpoint="last")
    assert more["checkpoints"]["last"]["accuracy"]["fgsm"] is not None
    assert (
        more["checkpoints"]["last"]["accuracy"]["pgd20"]
        == results["checkpoints"]["last"]["accuracy"]["pgd20"]
    )
    stronger = evaluate.run(tiny.config(evaluation__eps=0.3), whole, checkpoint="last")
    assert stronger["checkpoints"]["last"]["accuracy"]["fgsm"] is None  # measured at another eps
    # What does not depend on eps stays, and a checkpoint is logged when something of it was measured.
    assert (
        stronger["checkpoints"]["last"]["accuracy"]["clean"]
        == results["checkpoints"]["last"]["accuracy"]["clean"]
    )
    assert [line["checkpoint"] for line in lines(whole, "evaluation")] == ["last", "best", "last", "last"]


def test_evaluating_what_is_no_run(tmp_path):
    with pytest.raises(UserError, match="holds no checkpoints; train there first"):
        evaluate.run(tiny.config(), tmp_path)
    with pytest.raises(UserError, match="--checkpoint is 'first'; choose of last, best"):
        evaluate.run(tiny.config(), tmp_path, checkpoint="first")


NO_BETTER = "is no better than always answering one class"


@pytest.mark.parametrize("validation_size", [32, 0])
def test_training_at_chance_is_said_once_after_the_warm_up(tmp_path, capsys, validation_size):
    """With a learning rate of nothing the network stays what it was."""
    fields = {"dataset__validation_size": validation_size, "attack__eps": 0.5, "attack__step_size": 0.2}
    train.run(tiny.config(optim__learning_rate=1e-12, method__warmup_epochs=2, **fields), tmp_path / "run")
    said = capsys.readouterr().out.splitlines()
    assert sum(NO_BETTER in line for line in said) == 1
    epoch = next(number for number, line in enumerate(said) if NO_BETTER in line)
    assert said[epoch - 1].startswith("epoch 2/3")
    labels = create_experiment(tiny.config(**fields)).dataset
    chance = 100 * np.bincount((labels.validation if validation_size else labels.train).labels).max()
    assert f"({chance / (validation_size or 64):.1f}%)" in said[epoch]


def test_training_that_learns_is_not_doubted(tmp_path, capsys):
    train.run(tiny.config("standard", dataset__train_size=512, attack__num_steps=0), tmp_path / "run")
    assert NO_BETTER not in capsys.readouterr().out
