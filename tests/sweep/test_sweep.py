"""Sweeps: which runs they have, what is skipped, and what happens at failures and signals."""

import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors.numpy
from helpers.sweeps import NAMES, SHARING, VARIANTS, change_results, config, ran, run

import launch
from jaxrw import command_line, runs, sweep
from jaxrw.system.errors import RunError, UserError

ROOT = pathlib.Path(__file__).parents[2]
TABLES = sorted((ROOT / "configs" / "sweeps").glob("table*.py"))


def test_what_is_missing_is_run_and_what_is_done_is_skipped(here, capsys):
    run(config())
    assert ran() == NAMES
    out = capsys.readouterr().out
    assert "4 runs below runs, 0 of them done" in out
    assert "run 2 of 4: digits/ours_mail-tau_3.0-0" in out
    assert "left)" in out.split("run 2 of 4")[1]
    run(config(seeds=(0, 1, 2)))
    assert ran() == ["digits/mail-2", "digits/ours_mail-tau_3.0-2"]
    run(config())
    assert ran() == []


def test_each_results_file_is_read_once(here, monkeypatch):
    """However many runs are missing: reading all of them before each would take longer than a short run."""
    run(config())
    read, original = [], runs.read_results
    monkeypatch.setattr(runs, "read_results", lambda workdir: read.append(str(workdir)) or original(workdir))
    run(config(seeds=(0, 1, 2, 3)))
    assert len(read) == len(set(read)) == 8


@pytest.mark.parametrize(
    "damage",
    [
        lambda results: results["config"]["optim"].update(momentum=0.8),
        lambda results: results["checkpoints"]["last"]["accuracy"].update(fgsm=None),
        lambda results: results["checkpoints"]["last"].update(epoch=3),
        lambda results: results.pop("checkpoints"),
        lambda results: results.update(config=7),
    ],
)
def test_a_run_of_another_config_or_that_lacks_an_attack_is_not_done(here, damage):
    run(config(seeds=(0,), variants=VARIANTS[:1]))
    path = pathlib.Path("runs/digits/mail-0/results.json")
    results = json.loads(path.read_text())
    (item,) = sweep.create_runs(
        config(seeds=(0,), variants=VARIANTS[:1]), ROOT / "configs" / "sweep.py", "runs"
    )
    assert sweep.finished(item)
    damage(results)
    path.write_text(json.dumps(results))
    assert not sweep.finished(item)
    path.write_text("{")
    assert not sweep.finished(item)


def test_a_finished_run_of_a_folder_that_lies_elsewhere_is_asked_again(here):
    """The run itself compares the images; named sets are the same wherever they lie."""
    for seed, name, is_done in ((0, "digits", True), (1, "folder", False)):
        one = config(seeds=(seed,), variants=VARIANTS[:1])
        flags = [f"--config.dataset.name={name}", "--config.dataset.data_dir=first"]
        run(one, overrides=flags)
        (item,) = sweep.create_runs(one, ROOT / "configs" / "sweep.py", "runs", overrides=flags)
        assert sweep.finished(item)
        item.config.dataset.data_dir = "second"
        assert bool(sweep.finished(item)) == is_done


def test_it_goes_on_after_a_failure_and_says_so(here, monkeypatch):
    monkeypatch.setenv("FAILING", "mail-0 mail-1")
    with pytest.raises(
        RunError, match=r"2 of 4 runs are done; 2 failed: digits/mail-0 \(status 3\); digits/mail-1"
    ):
        run(config())
    assert ran() == NAMES
    monkeypatch.delenv("FAILING")
    run(config())
    assert ran() == ["digits/mail-0", "digits/mail-1"]


def test_the_list_is_of_commands_that_make_the_same_runs(here, capsys):
    overrides = ["--config.optim.num_epochs=3", "--config.evaluation.attacks=('clean', 'pgd20')"]
    run(config(), overrides=overrides, only_list=True)
    commands = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert ran() == []
    for command, name in zip(commands, NAMES, strict=True):
        assert command[:2] == ["python", "launcher.py"]
        values = command_line.parse(command[1:])
        assert values.workdir == f"runs/{name}"
        assert (values.config.optim.num_epochs, values.config.evaluation.attacks) == (3, ("clean", "pgd20"))
        assert values.config.method.name == name.split("/")[1].split("-")[0]
        assert str(values.config.seed) == name[-1]
    assert values.config.method.tau == 3
    subprocess.run([sys.executable, *commands[0][1:]], check=True)
    ran()
    run(config(), overrides=overrides)
    assert ran() == NAMES[1:]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_it_stops_the_run_at_work(here, number):
    (here / "mine.py").write_text(
        "from configs.sweeps import base\n\n\ndef get_config():\n    config = base.get_config()\n"
        f"    config.sweep.configs = ({str(ROOT / 'configs' / 'digits.py')!r},)\n"
        "    config.sweep.variants = base.methods('mail')\n    return config\n"
    )
    # A shell starts what shall run in the background with Ctrl-C ignored; these tests may be run there.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "import launch, pathlib, sys; launch.__file__ = 'launcher.py'; "
        "sys.exit(launch.main(['launch.py', '--config=mine.py']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env=os.environ | {"WAITING": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 100
    while not (here / "waiting").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    began = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - began < 30  # the launcher would have slept for 60
    assert process.returncode in (75, 130)
    assert "the same command goes on from what has been saved" in err
    assert ran() == ["digits/mail-0"]


MISTAKES = {
    "no runs": ({"variants": ()}, (), "sweep.variants is empty"),
    "no seeds": ({"seeds": ()}, (), "sweep.seeds is empty"),
    "a variant twice": ({"variants": VARIANTS[:1] * 2}, (), "has digits/mail-0 twice"),
    "a field that is none": ({"variants": ({"method": {"tua": 3.0}},)}, (), "did you mean method.tau"),
    "a value that no run can use": ({"variants": ({"method": {"tau": 1.0}},)}, (), "method.tau is 1.0"),
    "a seed twice": ({"seeds": (0, 0)}, (), r"sweep.seeds is \(0, 0\); each seed once"),
    "a config that is not there": ({"configs": ("none.py",)}, (), "cannot be read"),
    "an override of no field": ({}, ("--config.optim.epochs=3",), "did you mean optim.num_epochs"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_before_anything_is_run(mistake, here):
    fields, overrides, words = MISTAKES[mistake]
    with pytest.raises(UserError, match=words):
        run(config(**fields), overrides=overrides)
    assert ran() == []


def test_mistakes_on_the_command_line(here, capsys):
    table1 = f"--config={TABLES[0]}"
    for arguments, words in (
        ([f"--config={ROOT / 'configs' / 'digits.py'}", "--list"], "--list is for a sweep"),
        ([table1, "--config.sweep.seed=3"], "did you mean sweep.seeds?"),
        ([table1, "--config.metod.name=mail"], "did you mean method.name?"),
        ([table1, "--mode=report"], "takes no --config"),
        ([table1, "--distributed"], "--distributed is for one run"),
        (["--mode=report", "--num_processes=2"], "--num_processes is for one run"),
    ):
        assert launch.main(["launch.py", *arguments]) == 2
        assert words in capsys.readouterr().err


# Of five seeds each: methods or settings times networks or data sets, as the tables have rows.
NUMBERS = {1: 50, 2: 50, 3: 30, 4: 10, 5: 70, 6: 70, 7: 10, 8: 30}


def test_the_papers_tables(here, capsys):
    """Every table's sweep lists its runs; equal runs of two tables are one."""
    assert len(TABLES) == 8
    listed = {}
    for number, path in enumerate(TABLES, start=1):
        assert launch.main(["launch.py", f"--config={path}", "--config.sweep.seeds=(0,)", "--list"]) == 0
        listed[number] = set(capsys.readouterr().out.splitlines())
        assert len(listed[number]) == NUMBERS[number] // 5
        assert f"{NUMBERS[number]} runs" in path.read_text()
    assert listed[1] < listed[5]
    assert listed[2] < listed[6]
    assert listed[4] == listed[7]
    assert len(listed[3] & (listed[1] | listed[2])) == len(listed[8] & (listed[1] | listed[2])) == 2
    assert len(set.union(*listed.values())) == 28 + 4 + 1 + 4


def test_runs_of_one_seed_share_a_warmup(here):
    """The first keeps it; the others begin with it; those of another warm-up, and of no warm-up, do not."""
    variants = (*VARIANTS, {"method": {"name": "mail", "warmup_epochs": 3}}, {"method": {"name": "gairat"}})
    fields = {"share_warmup": True, "variants": variants, "seeds": (0,)}

    def flags(**settings):
        made = sweep.create_runs(config(**fields), ROOT / "configs" / "sweep.py", "runs", **settings)
        return [[flag for flag in item.flags if re.search("keep_warmup|warmup_from", flag)] for item in made]

    keep, begin = "--config.checkpoint.keep_warmup=True", "--warmup_from=runs/digits/mail-0"
    assert flags() == [[keep], [begin], [], [begin]]
    assert flags(flags=["--mode=evaluate"]) == [[], [], [], []]
    for epochs, shared in ((3, [[keep], [begin], [begin], [begin]]), (2, [[], [], [], []])):
        assert (
            flags(overrides=["--config.method.warmup_epochs=3", f"--config.optim.num_epochs={epochs}"])
            == shared
        )
    # Its first run is done and its warm-up gone, as in another checkout: the next one trains it.
    run(config(**fields | {"variants": variants[:1]}))
    assert flags() == [[], [keep], [], ["--warmup_from=runs/digits/ours_mail-tau_3.0-0"]]
    (here / "runs/digits/mail-0/warmup").mkdir()
    assert flags() == [[keep], [begin], [], [begin]]
    ran()
    run(config(**fields))
    assert ran() == ["digits/ours_mail-tau_3.0-0", "digits/mail-warmup_epochs_3-0", "digits/gairat-0"]


def sharing(out):
    """For each run that a sweep has begun: its name, whether it keeps its warm-up, and whose warm-up it reuses."""
    commands = [
        command_line.parse(shlex.split(line)[1:]) for line in re.findall(r"^  (python .*)", out, re.M)
    ]
    return [
        (
            each.workdir.split("/")[-1],
            each.config.checkpoint.keep_warmup,
            (each.warmup_from or "").split("/")[-1],
        )
        for each in commands
    ]


def test_a_first_run_that_fails_leaves_its_warmup_to_the_next(here, monkeypatch, capsys):
    """The next that can trains it, of that seed alone; when tried again, the failed ones begin with it."""
    monkeypatch.setenv("FAILING", "mail-0 ours_mail-tau_3.0-0")
    with pytest.raises(
        RunError,
        match=r"4 of 6 runs are done; 2 failed: digits/mail-0 \(status 3\); digits/ours_mail-tau_3.0-0 \(status 3\)",
    ):
        run(config(**SHARING))
    assert sharing(capsys.readouterr().out) == [
        ("mail-0", True, ""),
        ("ours_mail-tau_3.0-0", True, ""),
        ("gairat-0", True, ""),
        ("mail-1", True, ""),
        ("ours_mail-tau_3.0-1", False, "mail-1"),
        ("gairat-1", False, "mail-1"),
    ]
    monkeypatch.delenv("FAILING")
    run(config(**SHARING))
    assert sharing(capsys.readouterr().out) == [
        ("mail-0", False, "gairat-0"),
        ("ours_mail-tau_3.0-0", False, "gairat-0"),
    ]


def test_a_run_that_fails_after_its_warmup_has_kept_it_for_the_others(here, monkeypatch, capsys):
    monkeypatch.setenv("FAILING_AFTER_WARMUP", "mail-0")
    with pytest.raises(RunError, match=r"2 of 3 runs are done; 1 failed: digits/mail-0 \(status 4\)"):
        run(config(**SHARING | {"seeds": (0,)}))
    assert sharing(capsys.readouterr().out) == [
        ("mail-0", True, ""),
        ("ours_mail-tau_3.0-0", False, "mail-0"),
        ("gairat-0", False, "mail-0"),
    ]


def test_a_run_that_fails_with_the_warmup_of_another_changes_nothing(here, monkeypatch, capsys):
    monkeypatch.setenv("FAILING", "ours_mail-tau_3.0-0")
    with pytest.raises(RunError, match=r"2 of 3 runs are done"):
        run(config(**SHARING | {"seeds": (0,)}))
    assert [first for *_, first in sharing(capsys.readouterr().out)] == ["", "mail-0", "mail-0"]


def test_of_a_sweep_one_checkpoint_may_be_evaluated(here, capsys):
    """AutoAttack of the last checkpoints alone: the best ones may lack it."""
    fields = {"variants": VARIANTS[:1], "seeds": (0,)}
    run(config(**fields))
    path = pathlib.Path("runs/digits/mail-0/results.json")
    results = json.loads(path.read_text())
    last = results["checkpoints"]["last"]
    results["checkpoints"]["best"] = {**last, "accuracy": {**last["accuracy"], "pgd100": None}}
    path.write_text(json.dumps(results))

    def listed(*flags):
        run(config(**fields), flags=flags, only_list=True)
        return capsys.readouterr().out.splitlines()[-1:]

    capsys.readouterr()
    assert listed("--mode=evaluate", "--checkpoint=last") == []
    assert len(listed("--mode=evaluate", "--checkpoint=best")) == len(listed("--mode=evaluate")) == 1

    results["checkpoints"]["best"] = None
    path.write_text(json.dumps(results))
    assert len(listed("--mode=evaluate", "--checkpoint=best")) == 1  # The run says why there is none.


def test_settings_of_columns_that_are_not_asked_for_make_no_run_unfinished(here):
    """AutoAttack was measured with a surrogate; the sweep asks for clean accuracies."""
    fields, flags = {"variants": VARIANTS[:1], "seeds": (0,)}, ["--config.evaluation.attacks=('clean',)"]
    run(config(**fields), overrides=["--config.evaluation.surrogate=bfloat16"])
    ran()
    run(config(**fields), overrides=flags)
    assert ran() == []
    run(config(**fields))
    assert ran() == ["digits/mail-0"]


def test_a_run_that_is_beyond_its_warmup_is_no_source_of_it(here, capsys):
    """It began without the sharing, or the warm-up that it had kept was deleted."""
    workdir = pathlib.Path("runs/digits/mail-0")
    workdir.mkdir(parents=True)
    line = {"kind": "train", "epoch": 39, "step": 9}
    (workdir / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    run(config(**SHARING | {"seeds": (0,)}))
    assert sharing(capsys.readouterr().out) == [
        ("mail-0", False, ""),
        ("ours_mail-tau_3.0-0", True, ""),
        ("gairat-0", False, "ours_mail-tau_3.0-0"),
    ]


def test_files_that_are_asked_for_are_missing_until_they_are_there(here, capsys):
    """Weights, and adversarial images of what was attacked: a finished run alone does not have them."""
    fields = {"variants": VARIANTS[:1], "seeds": (0,)}
    run(config(**fields))
    workdir = pathlib.Path("runs/digits/mail-0")

    def listed(**settings):
        capsys.readouterr()
        run(config(**fields), only_list=True, **settings)
        return len(capsys.readouterr().out.splitlines())

    assert listed() == 0
    exporting = {"flags": ("--mode=export",)}
    assert listed(**exporting) == 1
    tensors = {"of": np.zeros(1, np.float32)}
    step = json.loads((workdir / "results.json").read_text())["checkpoints"]["last"]["step"]
    for metadata, number in (
        ({}, 1),
        ({"step": "1"}, 1),
        ({"step": str(step)}, 0),
    ):  # the second of an earlier step
        safetensors.numpy.save_file(tensors, workdir / "last.safetensors", metadata)
        assert listed(**exporting) == number
    (workdir / "last.safetensors").write_bytes(b"none")
    assert listed(**exporting) == 1
    saving = {"overrides": ("--config.evaluation.save_adversarial=True",), "flags": ("--mode=evaluate",)}
    assert listed(**saving) == 1
    for attack in ("fgsm", "pgd20", "pgd100", "cw_pgd", "apgd_ce", "aa"):
        (workdir / f"adversarial-last-{attack}.npz").touch()
    assert listed(**saving) == 0


def test_a_run_that_was_stopped_in_its_last_epoch_is_not_done(here):
    fields = {"variants": VARIANTS[:1], "seeds": (0,)}
    run(config(**fields))
    ran()
    change_results("digits/mail-0", finished=False)
    run(config(**fields))
    assert ran() == ["digits/mail-0"]
