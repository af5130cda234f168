"""A method of one's own in a config file: trained, kept with its code, reported, and refused where it breaks."""

import importlib
import json

import pytest
from helpers import commands
from helpers.flags import TINY

import launch
from jaxrw import methods

(PAGE, *_) = commands.blocks(commands.ROOT / "docs" / "extending.md", "python")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments):
    return launch.main(["launch.py", *arguments])


def test_the_page_trains_resumes_and_is_reported(here, capsys):
    (here / "own.py").write_text(PAGE)
    command = ["--config=own.py", *TINY, "--workdir=runs/own"]
    assert run(*command) == 0
    assert "Confidence on digits" in capsys.readouterr().out
    lines = [json.loads(line) for line in (here / "runs/own/metrics.jsonl").read_text().splitlines()]
    weights = [line["mean_weight"] for line in lines if line["kind"] == "train"]
    assert weights[0] == 1
    # Ten classes after two epochs of four steps: (1 - p_y)^2 is near 0.9^2.
    assert 0.6 < weights[1] < 0.95
    method = json.loads((here / "runs/own/config.json").read_text())["method"]
    assert (method["title"], method["power"]) == ("Confidence", 2.0)
    assert "jax.nn.softmax(logits)[label]) ** power" in method["source"]

    # A process that has not read the config file names it all the same.
    del methods.METHODS["confidence"]
    assert run("--mode=report", "--workdir=runs") == 0
    assert "| Confidence, power 2" in (here / "runs/report/report.md").read_text()
    assert "confidence" not in methods.METHODS
    assert run("--mode=evaluate", "--workdir=runs/own") == 2
    assert "give that file with --config" in capsys.readouterr().err

    (here / "own.py").write_text(PAGE.replace("** power", "** (2 * power)"))
    assert run(*command) == 2
    assert "method.source is" in capsys.readouterr().err


def test_the_code_is_that_which_was_loaded(here, monkeypatch):
    """A file may be edited while its method is trained: the code that was read is the code that is kept."""
    (here / "loaded.py").write_text(PAGE)
    monkeypatch.syspath_prepend(here)
    importlib.import_module("loaded")
    (here / "loaded.py").write_text("# a line more\n" + PAGE.replace("** power", "** (2 * power)"))
    source = methods.METHODS["confidence"].source
    assert "** power" in source
    assert source.startswith("def ")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('"confidence", "Conf', '"mail", "Conf'), "the method 'mail' is a shipped one; choose another name"),
        (
            ('power", confidence', 'power", print'),
            "the weight of the method 'confidence' has no code to keep",
        ),
        (("[label]) **", ") **"), "its weight is float32[10]; must be one float"),
        (
            ("(1 - jax.nn.softmax(logits)[label]) ** power", "label"),
            "its weight is int32[]; must be one float",
        ),
        (("softmax(logits)[label]", "softmaxx(logits)[label]"), "its weight raises AttributeError"),
        (
            ("config.method.power = 2.0", "config.method.strength = 2.0"),
            "its weight reads power, which config.method lacks: set config.method.power in get_config",
        ),
        (
            ("softmax(logits)[label]", "softmax(logits)[int(label)]"),
            "its weight raises ConcretizationTypeError",
        ),
    ],
)
def test_what_breaks_is_refused_in_one_line(change, words, here, capsys):
    assert change[0] in PAGE
    (here / "own.py").write_text(PAGE.replace(*change))
    assert run("--config=own.py", *TINY, "--workdir=runs/own") == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
    assert not (here / "runs").exists()
