"""Commands that README.md, docs/ and the other pages tell people to type, and a check of each; most are run, small."""

import contextlib
import importlib.metadata
import importlib.util
import io
import itertools
import pathlib
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from unittest import mock

import numpy as np
import pytest

import launch
from configs import base
from configs.sweeps import base as sweep
from helpers.flags import TINY
from jaxrw import command_line, methods
from jaxrw.runs import integrity

ROOT = pathlib.Path(__file__).parents[2]
PAGES = sorted((*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")))
FIELDS = {
    *command_line.field_names(base.get_config()),
    *command_line.field_names(sweep.get_config()),
}

# Indented lines but those of a table, which a command printed; and code within a line that begins with a flag, or with
# a word and a space.
_CODE = re.compile(r"^ {4}(?!\|)((?:.*\\\n)*.+)$|`([^`]+)`", re.MULTILINE)
_INLINE_COMMAND = re.compile(r"--[a-z]|[\w.~/][\w./=-]*\s")

# After what a command says, so that a test can afford it; test_launch has compiled most of it. Digits in place of a
# download; one learning rate and weight decay, constants of a program, so that one is compiled for all such configs.
_DIGITS = [
    "--config.dataset.name=digits",
    "--config.optim.learning_rate=0.1",
    "--config.optim.weight_decay=5e-4",
]
_FOLDER = [
    "--config.dataset.train_size=8",
    "--config.dataset.validation_size=0",
    "--config.dataset.test_size=4",
    "--config.optim.batch_size=4",
    "--config.optim.learning_rate=0.01",
    "--config.optim.weight_decay=5e-4",
]
_WARMUP = ["--config.method.warmup_epochs=1", "--config.optim.num_epochs=2"]


def of(page):
    """Commands of a page in its order; other tests run its blocks of Python and of bash."""
    text = re.sub(
        r"^```(python|bash|text|json|bibtex)\n.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE
    )
    assert "```" not in text, f"{page.name} has a block of another language"
    found = [line or inline for line, inline in _CODE.findall(text) if line or _INLINE_COMMAND.match(inline)]
    return [" ".join(command.replace("\\\n", " ").split()) for command in found]


def blocks(page, language):
    """Fenced blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def anchors(page):
    """Names that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def check_table_of_methods(text):
    """Check that a page's table of methods has the facts of every record, and of no other method."""
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| (yes|no) \|$", text, re.MULTILINE)
    known = [(m.name, m.formula, "yes" if m.normalized else "no") for m in methods.METHODS.values()]
    assert rows == known


def check_all(page):
    """Check the commands of a page, one after the other in one directory; returns them.

    Blocks of Python that begin with the name of a config file are written to it first.
    """
    for block in blocks(page, "python"):
        if file := re.match(r"# (configs/[\w/]+\.py)\n", block):
            pathlib.Path(file[1]).write_text(block)
    typed = of(page)
    for command in typed:
        check(command)
    return typed


def check(command):
    """Run a command, or check it where that would take days or a download, by the rule of its program."""
    words = shlex.split(command, comments=True)
    program, *arguments = itertools.dropwhile(lambda word: re.fullmatch("[A-Z_]+=.*", word), words)
    name = pathlib.PurePath(program).name or program
    if program.startswith("--"):
        name, arguments = "flags of launch.py", [program, *arguments]
    assert name in _RULES, f"no rule of tests/commands.py covers: {command}"
    _RULES[name](arguments)


def launch_small(arguments, more=()):
    """Status of launch.py: smaller where it trains, with digits in place of a download; a sweep is listed."""
    if "report" in arguments and not pathlib.Path(_workdir_of(arguments)).exists():
        launch_small(["--config", "configs/digits.py", "--workdir", f"{_workdir_of(arguments)}/digits"])
    if "report" in arguments or "--list" in arguments:
        return launch.main(["launch.py", *arguments])
    if any("configs/sweeps/" in argument for argument in arguments):
        return launch.main(["launch.py", *arguments, "--list"])
    if not importlib.util.find_spec("wandb"):  # an extra of its own
        arguments = [argument.replace(",'wandb'", "") for argument in arguments]
    named = " ".join(arguments)
    more = [*TINY, *more]
    more += _FOLDER if "folder" in named else _DIGITS
    if "evaluation.attacks" in named:
        more = [argument for argument in more if "evaluation.attacks" not in argument]
    if "extra.path" in named:
        images = np.random.RandomState(0).randint(0, 256, (20, 8, 8, 1), np.uint8)
        np.savez("more.npz", image=images, label=np.arange(20) % 10)
    if "corruptions_dir" in named:
        corrupted = pathlib.Path("CIFAR-10-C")
        corrupted.mkdir()
        np.save(corrupted / "labels.npy", np.arange(10))
        np.save(corrupted / "fog.npy", np.zeros((10, 8, 8, 1), np.uint8))
        assert launch_small(["--config", "configs/resnet18_c10.py", "--workdir", _workdir_of(arguments)]) == 0
    if "keep_warmup" in named or "warmup_from" in named:
        more += _WARMUP
    return launch.main(["launch.py", *arguments, *more])


def _python(arguments):
    """launch.py runs; of what takes longer, the flags are known."""
    match arguments:
        case ["launch.py", *rest]:
            assert launch_small([_weights() if word == "FILE.pt" else word for word in rest]) == 0, rest
        case ["-m", module, *rest]:
            _check_help(ROOT / f"{module.replace('.', '/')}.py", rest)
        case [path, *rest]:
            _check_help(ROOT / path, rest)


def _jaxrw(arguments):
    """The installed command takes what launch.py takes, and names of shipped configs."""
    assert launch_small(arguments) == 0, arguments


def _workdir_of(arguments):
    return arguments[arguments.index("--workdir") + 1] if "--workdir" in arguments else "runs"


def _weights():
    """File of weights that a run has exported; a .pt file would need PyTorch."""
    run = ["--config", "configs/resnet18_c10.py", "--workdir", "runs/resnet18_c10-ours_mail-0"]
    assert launch_small(run) == launch_small([*run, "--mode", "export"]) == 0
    return f"{run[-1]}/last.safetensors"


def _check_help(path, arguments):
    """`--help` of a program lists every flag that is used."""
    printed, argv = io.StringIO(), [str(path), *arguments, "--help"]
    with (
        mock.patch.object(sys, "argv", argv),
        contextlib.redirect_stdout(printed),
        pytest.raises(SystemExit) as end,
    ):
        runpy.run_path(str(path), run_name="__main__")
    assert end.value.code == 0, path
    for flag in _flags(arguments):
        assert f"--{flag}" in printed.getvalue().split(), f"{path.name} has no --{flag}"


def _make(arguments):
    """Targets and variables are the Makefile's."""
    subprocess.run(["make", "--dry-run", *arguments], cwd=ROOT, check=True, capture_output=True)
    for name, _, value in (word.partition("=") for word in arguments if "=" in word):
        assert f"\n{name} ?=" in (ROOT / "Makefile").read_text()
        if name == "BENCH":
            _check_help(ROOT / "benchmarks" / "tpu_compile.py", shlex.split(value))
        else:
            assert (ROOT / value).exists()


def _pip(arguments):
    """What is installed is this project or an extra of it, what one of them needs, or an extra that JAX has."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    known = {re.sub(">=.*", "", need) for need in itertools.chain(project["dependencies"], *extras.values())}
    known |= {"-e", ".", "/share/jaxrw[train,tpu]", *(f".[{extra}]" for extra in extras)}
    known |= {f".[{first},{second}]" for first, second in itertools.permutations(extras, 2)}
    known |= {f"jax[{extra}]" for extra in importlib.metadata.metadata("jax").get_all("Provides-Extra")}
    assert arguments[0] == "install"
    assert set(arguments[1:]) <= known


def _tensorboard(arguments):
    """TensorBoard is there and finds what the runs before have written."""
    program = pathlib.Path(sys.executable).with_name("tensorboard")
    done = subprocess.run([program, "--inspect", *arguments], check=True, capture_output=True, text=True)
    assert "train/loss" in done.stdout


def _ray(arguments):
    """Ray's own help lists the flags, where Ray is installed."""
    program = pathlib.Path(sys.executable).with_name("ray")
    if program.exists():
        done = subprocess.run([program, arguments[0], "--help"], check=True, capture_output=True, text=True)
        assert {f"--{flag}" for flag in _flags(arguments)} <= set(done.stdout.replace(",", " ").split())


def _tfds(arguments):
    """The command needs TensorFlow, which is not here; its source has the flags."""
    source = pathlib.Path(importlib.util.find_spec("tensorflow_datasets").origin).parent / "scripts" / "cli"
    assert (source / f"{arguments[0]}.py").exists()
    for flag in _flags(arguments):
        assert f" {flag}: " in (source / "cli_utils.py").read_text()


def _sha256sum(arguments):
    """Reads the checksums of a directory that is sealed as a checkpoint is."""
    directory = pathlib.Path("sealed")
    directory.mkdir()
    (directory / "array").write_bytes(b"1")
    integrity.seal(directory)
    subprocess.run(["sha256sum", *arguments], cwd=directory, check=True, capture_output=True)


def _cp(arguments):
    """What is copied is there."""
    assert list(ROOT.glob(arguments[0]))


def _activate(arguments):
    """The environment is the one that make creates."""
    assert arguments == [".venv/bin/activate"]
    assert "\nVENV ?= .venv\n" in (ROOT / "Makefile").read_text()


def _check_flags(arguments):
    """Every flag is one of launch.py's and every field one of a config's."""
    known = {*command_line.parse(["launch.py"]), "config.FIELD", *(f"config.{field}" for field in FIELDS)}
    assert set(_flags(arguments)) <= known


def _flags(arguments):
    """Names of the flags of a command line."""
    return [word[2:].partition("=")[0] for word in arguments if word.startswith("--")]


_RULES = {
    "python": _python,
    "jaxrw": _jaxrw,
    "make": _make,
    "pip": _pip,
    "tensorboard": _tensorboard,
    "ray": _ray,
    "tfds": _tfds,
    "sha256sum": _sha256sum,
    "cp": _cp,
    ".": _activate,
    "flags of launch.py": _check_flags,
}
