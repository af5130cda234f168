"""The command line as a user types it: what it trains and prints; each mistake is one line with status 2."""

import json
import pathlib
import re
import subprocess
import sys

import pytest
from helpers.flags import DIGITS, TINY
from ml_collections import ConfigDict
from PIL import Image

import launch
from configs import base
from jaxrw import command_line, settings
from jaxrw.system.errors import RunError, Stopped

ROOT = pathlib.Path(__file__).parent.parent


def run(*arguments):
    """Status of a command line run in this process."""
    return launch.main(["launch.py", *map(str, arguments)])


def folder(root, *, size=(8, 8), mode="RGB", classes="abc", odd=None):
    """A folder set with two images a class and part."""
    for part in ("train", "test"):
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for number in range(2):
                Image.new(mode, size, number).save(root / part / name / f"{number}.png")
    if odd:
        odd.save(root / "train" / "a" / "odd.png")
    return [
        "--config.dataset.name=folder",
        f"--config.dataset.data_dir={root}",
        "--config.dataset.validation_size=0",
        "--config.optim.batch_size=4",
    ]


MISTAKES = {
    "unknown method": (["--config.method.name=mart"], "method.name is 'mart'", "ours_wmmr, ours_mail"),
    "unknown dataset": (
        ["--config.dataset.name=mnits"],
        "dataset.name='mnits'",
        "digits, folder, cifar10, cifar100",
    ),
    "unknown model": (["--config.model.name=vgg"], "model.name is 'vgg'", "resnet18, wrn34_10, wrn"),
    "unknown attack": (
        ["--config.evaluation.attacks=('pgd',)"],
        "evaluation.attacks is 'pgd'",
        "did you mean 'pgd20'",
    ),
    "attack in another spelling": (
        ["--config.evaluation.attacks=('autoattack',)"],
        "'autoattack'",
        "apgd_ce, aa",
    ),
    "attack that is a list": (
        ["--config.evaluation.attacks=(['clean'],)"],
        "evaluation.attacks is ['clean']",
        "choose of clean",
    ),
    "no attack": (["--config.evaluation.attacks=()"], "evaluation.attacks", "choose of clean"),
    "unknown start": (["--config.attack.start=gauss"], "attack.start is 'gauss'", "uniform, normal, none"),
    "unknown field": (["--config.method.tua=3"], "--config.method.tua", "did you mean method.tau?"),
    "unknown section": (["--config.metod.name=mail"], "--config.metod.name", "did you mean method.name?"),
    "text for a number": (["--config.attack.eps=8/255"], "attack.eps is '8/255'", "must be of type float"),
    "fraction for an integer": (
        ["--config.optim.num_epochs=2.5"],
        "optim.num_epochs is '2.5'",
        "of type int",
    ),
    "text where None may stand": (
        ["--config.dataset.train_size=x"],
        "dataset.train_size is 'x'",
        "of type int",
    ),
    "eps in units of 255": (["--config.attack.eps=8"], "attack.eps is 8.0", "8/255 is 0.03137"),
    "eps that is no number": (["--config.attack.eps=nan"], "attack.eps is nan", "must be in [0, 1)"),
    "norm in capitals": (["--config.attack.norm=L2"], "attack.norm is 'L2'", "choose of linf, l2, l1"),
    "a negative radius in L2": (
        ["--config.attack.norm=l2", "--config.attack.eps=-1"],
        "attack.eps is -1.0",
        "at least 0",
    ),
    "a radius beyond all images": (
        ["--config.evaluation.norm=l2", "--config.evaluation.eps=9"],
        "evaluation.eps is 9.0",
        "8x8 are at most 8 apart",
    ),
    "AutoAttack for random models": (
        ["--config.evaluation.version=rand"],
        "evaluation.version is 'rand'",
        "choose of standard, plus",
    ),
    "tau below 2": (["--config.method.tau=1"], "method.tau is 1.0", "at least 2"),
    "negative epochs": (["--config.optim.num_epochs=-1"], "optim.num_epochs is -1", "at least 1"),
    "milestones twice": (
        ["--config.optim.milestones=(3,3)"],
        "optim.milestones is (3, 3)",
        "different epochs",
    ),
    "gairat without steps": (
        ["--config.method.name=gairat", "--config.attack.num_steps=0"],
        "attack.num_steps is 0",
        "gairat",
    ),
    "downscale of nothing": (["--config.dataset.downscale=0"], "dataset.downscale is 0", "at least 1"),
    "downscale that does not divide": (["--config.dataset.downscale=3"], "dataset.downscale=3", "8x8"),
    "a crop beside the image": (["--config.dataset.pad=8"], "dataset.pad is 8", "8x8", "0..7"),
    "a crop beyond any integer": ([f"--config.dataset.pad={2**40}"], f"dataset.pad is {2**40}", "0..7"),
    "impossible depth": (["--config.model.depth=17"], "model.depth is 17", "8n + 2"),
    "a warm-up of nowhere": (["--warmup_from=no"], "--warmup_from no keeps no warm-up", "keep_warmup=True"),
    "a page without a report": (["--markdown=x.md"], "--markdown is for --mode report", "--mode is train"),
    "depth 0": (["--config.model.depth=0"], "model.depth is 0", "8n + 2"),
    "too deep": (["--config.model.depth=100002"], "model.depth is 100002", "at most 1202"),
    "too wide for any memory": (
        ["--config.model.width=100000"],
        "model.width is 100000",
        "parameters need",
        "choose a smaller network",
    ),
    "too many epochs": (
        ["--config.optim.num_epochs=100000000"],
        "optim.num_epochs is 100000000",
        "at most 1,000,000",
    ),
    "mean that is no number": (
        ["--config.model.mean=('a',)", "--config.model.std=('b',)"],
        "model.mean is ('a',)",
        "one number per channel",
    ),
    "no means": (
        ["--config.model.mean=()", "--config.model.std=()"],
        "model.mean is ()",
        "one number per channel",
    ),
    "infinite learning rate": (
        ["--config.optim.learning_rate=inf"],
        "optim.learning_rate is inf",
        "positive",
    ),
    "eps 0 for AutoAttack": (
        ["--config.evaluation.eps=0", "--config.evaluation.attacks=('aa',)"],
        "evaluation.eps is 0",
        "AutoAttack",
    ),
    "mean without std": (["--config.model.mean=(0.5,)"], "model.mean is (0.5,)", "give both or none"),
    "three means for grey": (
        ["--config.model.mean=(.5,.5,.5)", "--config.model.std=(.5,.5,.5)"],
        "model.mean has 3 numbers",
        "1 channels",
    ),
    "batch above the images": (
        ["--config.optim.batch_size=5000"],
        "optim.batch_size is 5000",
        "only 1237 images",
    ),
    "too many images": (["--config.dataset.train_size=5000"], "dataset.train_size=5000", "only 1237"),
    "unknown mode": (["--mode=trian"], "--mode=trian", "train|evaluate|report"),
    "unknown flag": (["--workdirr=x"], "'workdirr'", "Did you mean: workdir"),
    "stray word": (["train"], "'train' is no flag", "--config.FIELD=VALUE"),
    "checkpoint while training": (["--checkpoint=best"], "--checkpoint", "--mode is train"),
    "evaluating nothing": (["--mode=evaluate"], "holds no checkpoints", "--mode train"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_status_2(mistake, tmp_path, capsys):
    arguments, *words = MISTAKES[mistake]
    assert run(DIGITS, f"--workdir={tmp_path / 'run'}", *arguments) == 2
    _check_told(capsys, words)
    assert not (tmp_path / "run").exists()


def _check_told(capsys, words):
    """One line on standard error with all the words, nothing on standard output."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("launch.py: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err


def test_config_files_that_cannot_be_used(tmp_path, capsys):
    assert run("--workdir", tmp_path) == 2
    _check_told(capsys, ["--config is missing"])
    assert run("--config", tmp_path / "nothing.py") == 2
    _check_told(capsys, [str(tmp_path / "nothing.py"), "cannot be read", "configs/digits.py"])
    (tmp_path / "misspelt.py").write_text(
        "from configs import base\ndef get_config():\n    c = base.get_config()\n    c.optim.epochs = 3\n    return c\n"
    )
    assert run("--config", tmp_path / "misspelt.py") == 2
    _check_told(capsys, ["misspelt.py", "epochs", "num_epochs"])
    (tmp_path / "bare.py").write_text(
        "from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict({'seed': 0}).lock()\n"
    )
    assert run("--config", tmp_path / "bare.py", "--workdir", tmp_path / "run") == 2
    _check_told(capsys, ["model.name is missing", "configs/base.py"])
    (tmp_path / "broken.py").write_text("def get_config(:\n")
    assert run("--config", tmp_path / "broken.py") == 2
    _check_told(capsys, ["broken.py", "SyntaxError"])
    assert run("--config.seed=1", DIGITS) == 2
    _check_told(capsys, ["--config.seed=1", "before"])


def test_folder_sets_that_cannot_be_used(tmp_path, capsys):
    def told(words, arguments, *more):
        assert run(DIGITS, f"--workdir={tmp_path / 'run'}", *arguments, *more) == 2
        _check_told(capsys, words)

    two = folder(tmp_path / "two", classes="ab")
    told(["dataset.name is 'folder' with 2 classes", "at least 3"], two)
    told(["odd.png is 9x8", "one size"], folder(tmp_path / "ragged", odd=Image.new("RGB", (8, 9))))
    told(["16 bits", "0..255"], folder(tmp_path / "deep", odd=Image.new("I;16", (8, 8), 999)))
    told(["7x7", "at least 8x8"], folder(tmp_path / "small", size=(7, 7)))
    (tmp_path / "empty" / "train").mkdir(parents=True)
    told(["no directory", "test"], [*two, f"--config.dataset.data_dir={tmp_path / 'empty'}"])
    assert not (tmp_path / "run").exists()


def test_directories_that_cannot_be_used(tmp_path, capsys):
    (tmp_path / "file").write_text("kept")
    for workdir in (tmp_path / "file", tmp_path / "file" / "below", "/proc/jaxrw"):
        assert run(DIGITS, *TINY, "--workdir", workdir) == 2
        _check_told(capsys, [f"--workdir {workdir} cannot be written", "choose another place"])
    assert (tmp_path / "file").read_text() == "kept"
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text("{")
    assert run(DIGITS, *TINY, "--workdir", tmp_path / "damaged") == 2
    _check_told(capsys, ["config.json is damaged"])


def test_a_batch_that_the_devices_cannot_share(tmp_path):
    """In a process of its own, with 3 devices."""
    command = [
        sys.executable,
        "launch.py",
        DIGITS,
        f"--workdir={tmp_path / 'run'}",
        "--config.optim.batch_size=128",
    ]
    environment = {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=3",
        "JAX_PLATFORMS": "cpu",
        "HOME": "/",
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "optim.batch_size is 128, which 3 devices cannot share evenly" in done.stderr
    assert "as 126" in done.stderr
    assert not (tmp_path / "run").exists()


def test_train_evaluate_report(tmp_path, capsys, monkeypatch):
    """The three modes on one run, and what stands on the screen."""
    monkeypatch.chdir(tmp_path)
    assert run(DIGITS, *TINY) == 0
    out = capsys.readouterr().out
    assert "ours_mail on digits: 64 training, 32 validation, 30 test images" in out
    assert "epoch 2/2  loss" in out
    assert "images/s" in out
    workdir = pathlib.Path("runs/digits-ours_mail-0")
    assert str(workdir) in out
    table = [line for line in out.splitlines() if line.startswith("|")]
    assert len({len(line) for line in table}) == 1
    assert [line.split("|")[3].strip() for line in table[2:]] == ["last", "best"]
    assert all(line.count("not run") == 5 for line in table[2:])
    results = json.loads((workdir / "results.json").read_text())
    assert f"{results['checkpoints']['last']['accuracy']['pgd20']:.2f}" in table[2]

    assert run(DIGITS, *TINY) == 0  # finished: nothing is trained or measured again
    again = capsys.readouterr()
    assert [line for line in again.out.splitlines() if line.startswith("|")] == table
    assert "epoch" not in again.out.replace("checkpoint | epoch", "")

    assert run(DIGITS, *TINY, "--config.seed=1", "--workdir", workdir) == 2
    assert "seed is 0 there and 1 here" in capsys.readouterr().err

    attacks = "--config.evaluation.attacks=('fgsm',)"
    assert run(DIGITS, *TINY, attacks, "--mode=evaluate", "--checkpoint=last", "--workdir", workdir) == 0
    fgsm = json.loads((workdir / "results.json").read_text())["checkpoints"]["last"]["accuracy"]["fgsm"]
    capsys.readouterr()
    pathlib.Path("runs/foreign").mkdir()
    pathlib.Path("runs/foreign/results.json").write_text('{"loss": 1}')
    assert run("--mode=report") == 0
    assert f" {fgsm:.2f} " in capsys.readouterr().out
    assert run("--mode=report", "--workdir", tmp_path / "runs" / "none") == 2


@pytest.mark.parametrize(
    ("raised", "status", "words"),
    [
        (RunError("the loss is nan at step 7"), 1, "nan at step 7"),
        (Stopped("stopped by SIGTERM after step 7"), 75, "SIGTERM after step 7"),
        (KeyboardInterrupt(), 130, "goes on from"),
    ],
)
def test_a_run_that_stops_says_so_in_one_line(raised, status, words, tmp_path, capsys, monkeypatch):
    def stop(config, workdir, *, warmup_from):
        raise raised

    monkeypatch.setattr("jaxrw.train.run", stop)
    assert run(DIGITS, "--workdir", tmp_path) == status
    _check_told(capsys, [words])


def test_help_says_how_it_is_used(capsys):
    assert run("--help") == 0
    assert "--mode train|evaluate|report" in capsys.readouterr().out


def test_base_names_every_choice():
    """Comments of configs/base.py name the choices of fields that have no records."""
    text = (ROOT / "configs" / "base.py").read_text()
    for field in ("model.dtype", "attack.start"):
        comment = text.split(f"    config.{field} = ")[0].splitlines()[-1]
        for choice in settings.CHOICES[field]:
            assert re.search(rf"\b{choice}\b", comment), (field, choice)


@pytest.mark.parametrize("name", ["base", "digits", "resnet18_c10", "resnet18_c100", "wrn_c10", "wrn_c100"])
def test_shipped_configs(name):
    """Every config is locked and has exactly the fields of base; the paper's have the paper's values."""
    module = __import__(f"configs.{name}", fromlist=["get_config"])
    config = module.get_config()
    assert isinstance(config, ConfigDict)
    assert config.is_locked
    assert set(command_line.field_names(config)) == set(command_line.field_names(base.get_config()))
    assert f"configs/{name}.py" in module.__doc__ or name == "base"
    if name in ("base", "digits"):
        return
    wide, hundred = name.startswith("wrn"), name.endswith("c100")
    assert config.model.name == ("wrn34_10" if wide else "resnet18")
    assert config.dataset.name == ("cifar100" if hundred else "cifar10")
    assert config.method.tau == (3 if hundred and not wide else 2)
    assert config.optim.to_dict() == {
        "num_epochs": 120,
        "batch_size": 128,
        "learning_rate": 0.1 if wide else 0.01,
        "momentum": 0.9,
        "weight_decay": 5e-4 if wide else 3.5e-3,
        "milestones": (75, 90, 100),
        "decay": 0.1,
    }
    assert (config.attack.eps, config.attack.step_size, config.attack.num_steps) == (8 / 255, 2 / 255, 10)
    assert (config.evaluation.eps, config.evaluation.step_size) == (8 / 255, 2 / 255)
    assert (config.method.warmup_epochs, config.method.beta, config.method.gamma) == (75, 0.5, 10)
    assert (config.method.alpha, config.method.multiplier, config.method.lam) == (2, 3, -1)
