"""The command line as a user types it: what it trains and prints; each mistake is one line with status 2."""

import json
import pathlib
import subprocess
import sys

import pytest
from helpers.flags import DIGITS, TINY
from PIL import Image

import launch
from jaxrw import command_line
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
        "apgd_t, aa",
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
    "text for a number": (["--config.attack.eps=8/x"], "attack.eps is '8/x'", "must be of type float"),
    "fraction of nothing": (["--config.attack.eps=8/0"], "attack.eps is '8/0'", "must be of type float"),
    "fraction for an integer": (["--config.method.warmup_epochs=4/2"], "is '4/2'", "must be of type int"),
    "half of an epoch": (
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
    "all images held out": (
        ["--config.dataset.validation_share=1"],
        "dataset.validation_share is 1.0",
        "must be in (0, 1)",
    ),
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
    "a surrogate of an unknown type": (
        ["--config.evaluation.surrogate=float16"],
        "evaluation.surrogate is 'float16'",
        "choose of none, tensorfloat32, bfloat16",
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
    "negative lam": (["--config.objective.lam=-1"], "objective.lam is -1.0", "at least 0"),
    "an objective that is a method": (
        ["--config.objective.name=mail"],
        "objective.name is 'mail'",
        "choose of standard, trades, mart",
    ),
    "smoothing where there is none": (
        ["--config.objective.name=mart", "--config.objective.smoothing=0.1"],
        "objective.smoothing is 0.1",
        "must be 0 for mart",
    ),
    "trades from the image itself": (
        ["--config.objective.name=trades", "--config.attack.start=none"],
        "attack.start is 'none'",
        "uniform or normal for trades",
    ),
    "AWP of nothing": (["--config.awp.gamma=0"], "awp.gamma is 0.0", "None to train without AWP"),
    "AWP after the run": (
        ["--config.awp.gamma=0.01", "--config.awp.start_epoch=40"],
        "awp.start_epoch is 40",
        "below optim.num_epochs, which is 40",
    ),
    "an average after the run": (
        ["--config.average.name=swa", "--config.average.start_epoch=99"],
        "average.start_epoch is 99",
        "below optim.num_epochs",
    ),
    "unknown average": (["--config.average.name=mean"], "average.name is 'mean'", "none, ema, swa"),
    "a rise longer than the run": (
        ["--config.optim.schedule=cosine", "--config.optim.rise_epochs=40"],
        "optim.rise_epochs is 40.0",
        "below optim.num_epochs",
    ),
    "a rise of all steps": (
        ["--config.optim.schedule=cosine", "--config.optim.rise_epochs=39.99"],
        "optim.rise_epochs is 39.99",
        "at least a step below optim.num_epochs, which is 40",
    ),
    "corruptions of validation images": (
        [
            "--config.dataset.test_split=validation",
            "--config.dataset.test_size=9",
            "--config.evaluation.attacks=('corruptions',)",
            "--config.evaluation.corruptions_dir=x",
        ],
        "evaluation.attacks has 'corruptions'",
        "dataset.test_split is 'validation'",
    ),
    "two rises": (
        ["--config.optim.schedule=one_cycle", "--config.optim.rise_epochs=1"],
        "optim.rise_epochs is 1.0",
        "optim.peak",
    ),
    "clipping to nothing": (["--config.optim.clip_norm=0"], "optim.clip_norm is 0.0", "positive"),
    "a share of 1": (
        ["--config.extra.path=x.npz", "--config.extra.share=1"],
        "extra.share is 1.0",
        "must be in (0, 1)",
    ),
    "a share of no image": (
        ["--config.extra.path=x.npz", "--config.extra.share=0.001"],
        "extra.share is 0.001, which is 0 of 128 images",
    ),
    "no extra images there": (["--config.extra.path=no.npz"], "extra.path: no.npz cannot be used", ".npz"),
    "unknown mode": (["--mode=trian"], "--mode=trian", "train|evaluate|report"),
    "unknown flag": (["--workdirr=x"], "'workdirr'", "Did you mean: workdir"),
    "stray word": (["train"], "'train' is no flag", "--config.FIELD=VALUE"),
    "a warm-up that never ends": (
        ["--config.checkpoint.keep_warmup=True", "--config.method.warmup_epochs=50"],
        "method.warmup_epochs is 50",
        "1..optim.num_epochs, which is 40",
    ),
    "a report of a config": (["--mode=report"], "--mode report takes no --config", "give --workdir"),
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
    _check_told(capsys, [str(tmp_path / "nothing.py"), "cannot be read", "digits, folder, mail_trades_c10"])
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
    assert "Ours+MAIL on digits: 64 training, 32 validation, 30 test images" in out
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
    _check_that_the_directory_is_enough(workdir, capsys)
    pathlib.Path("runs/foreign").mkdir()
    pathlib.Path("runs/foreign/results.json").write_text('{"loss": 1}')
    assert run("--mode=report") == 0
    assert f" {fgsm:.2f} " in capsys.readouterr().out
    assert run("--mode=report", "--workdir", tmp_path / "runs" / "none") == 2


def _check_that_the_directory_is_enough(workdir, capsys):
    """Mode evaluate and export of a run without --config, with fields of every type set."""
    before = json.loads((workdir / "results.json").read_text())["checkpoints"]
    assert run("--mode=evaluate", "--workdir", workdir) == 0
    assert json.loads((workdir / "results.json").read_text())["checkpoints"] == before
    fields = ["evaluation.attacks=('clean',)", "evaluation.eps=1/16", "dataset.data_dir=/tmp"]
    assert run("--mode", "evaluate", f"--workdir={workdir}", *(f"--config.{field}" for field in fields)) == 0
    after = json.loads((workdir / "results.json").read_text())
    assert after["config"]["evaluation"]["eps"] == 1 / 16
    assert after["checkpoints"]["last"]["accuracy"]["pgd20"] is None  # of another eps
    assert run("--mode=export", "--workdir", workdir) == 0
    assert (workdir / "best.safetensors").exists()
    capsys.readouterr()
    for field, words in (
        ("method.tau=3", "method.tau is 2.0 there and 3.0 here"),
        ("evaluation.batch_size=x", "evaluation.batch_size is 'x'; must be of type int"),
        ("method.tua=3", "did you mean method.tau?"),
    ):
        assert run("--mode=evaluate", "--workdir", workdir, f"--config.{field}") == 2
        _check_told(capsys, [words])


@pytest.mark.parametrize("content", [None, "[", "[]", "{}", '{"dataset": 3}', "[" * 100_000])
def test_a_directory_without_a_usable_config_is_not_enough(content, tmp_path, capsys):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    assert run("--mode=evaluate", "--workdir", tmp_path) == 2
    _check_told(capsys, [f"--workdir {tmp_path}: config.json cannot be used", "or --config"])


def test_fractions_where_a_float_is_meant():
    def parsed(*arguments):
        return command_line.parse(["launch.py", DIGITS, *arguments]).config

    assert parsed("--config.attack.eps=8/255").attack.eps == 8 / 255
    assert parsed("--config.method.beta=-1/2").method.beta == -0.5
    config = parsed("--config.evaluation.eps=4/255", "--config.evaluation.step_size=1.5/255")
    assert (config.evaluation.eps, config.evaluation.step_size) == (4 / 255, 1.5 / 255)
    assert parsed("--config.dataset.data_dir=1/2").dataset.data_dir == "1/2"
    assert parsed("--config.attack.eps", "8/255").attack.eps == 8 / 255


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
