"""Bad input of every kind: it works, or ends with one line and status 2; no file of the user is lost.

Each entry of the dicts below is one bad input, tried on the command line; hypothesis adds others. For more see MISTAKES
in test_launch.py, and the damages in runs/test_checkpoints.py and data/test_prepared.py.
"""

import hashlib
import io
import json
import os
import pathlib
import shutil
import struct
import sys
import zlib

import hypothesis
import pytest
from helpers import tiny
from helpers.flags import DIGITS, TINY
from helpers.prepared import prepare
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from PIL import Image

import launch
from configs import digits
from jaxrw import data, report, runs, settings
from jaxrw.system.errors import UserError
from jaxrw.training.experiment import create_experiment


def run(*arguments):
    """Status of a command line in this process; a traceback would be an exception here."""
    return launch.main(["launch.py", *map(str, arguments)])


def told(capsys, *, status, lines=1):
    """Checks that a mistake was printed in `lines` lines without a traceback; returns them."""
    err = capsys.readouterr().err
    assert status == 2
    assert err.count("\n") == lines, err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("launch.py: ")
    return err


def works_or_is_one_line(what):
    """Returns what a function returns, or whether the UserError that it raises has one line."""
    try:
        return what()
    except UserError as error:
        return "\n" not in str(error)


def contents(root):
    """Returns the digests of all files below a directory; files may be moved, but not lost."""
    return sorted(
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("[!.]*")
        if path.is_file() and not path.is_symlink() and not path.name.startswith("events")
    )


def results(**changed):
    """Returns a results.json as evaluate writes it, of a run with the digits config."""
    checkpoint = {"epoch": 39, "step": 360, "num_examples": 360, "accuracy": {"clean": 50.0, "aa": None}}
    config = settings.as_json(digits.get_config())
    whole = {"schema": 1, "config": config, "checkpoints": {"last": checkpoint, "best": None}}
    return json.dumps(whole | {"versions": {}, "device": "cpu", "train_seconds": 1.0} | changed)


def accuracy(value):
    return results(
        checkpoints={"last": {"epoch": 39, "step": 360, "num_examples": 360, "accuracy": {"clean": value}}}
    )


def changed(section, **values):
    """The digits config with other values in a section."""
    config = settings.as_json(digits.get_config())
    return config | {section: config[section] | values}


BAD_RESULTS = {
    "empty": "",
    "no JSON": "{",
    "a list": "[]",
    "a number": "3",
    "null": "null",
    "a text": '"x"',
    "nested too deep": "[" * 100_000 + "]" * 100_000,
    "no UTF-8": b"\xff\xfe{}",
    "binary": bytes(range(256)),
    "of another program": '{"loss": 1}',
    "another schema": results(schema=2),
    "schema that is a list": results(schema=[1]),
    "no config": results(config=None),
    "config without method": results(config={"evaluation": {}}),
    "eps that is text": results(
        config={"method": {"name": "mail"}, "evaluation": {"eps": "8", "step_size": 1}}
    ),
    "method that is a number": results(
        config={"method": {"name": 3}, "evaluation": {"eps": 0.1, "step_size": 1}}
    ),
    "objective that nobody knows": results(config=changed("objective", name="later")),
    "warm-up that is text": results(config=changed("method", warmup_epochs="3")),
    "checkpoints that are a list": results(checkpoints=[]),
    "checkpoint that is text": results(checkpoints={"last": "x"}),
    "checkpoint without accuracy": results(checkpoints={"last": {"epoch": 1, "step": 1, "num_examples": 1}}),
    "epoch that is text": results(
        checkpoints={"last": {"epoch": "1", "step": 1, "num_examples": 1, "accuracy": {}}}
    ),
    "negative step": results(
        checkpoints={"last": {"epoch": 1, "step": -1, "num_examples": 1, "accuracy": {}}}
    ),
    "more examples than any number": results(
        checkpoints={"last": {"epoch": 1, "step": 1, "num_examples": 10**400, "accuracy": {}}}
    ),
    "accuracy NaN": accuracy(float("nan")),
    "accuracy infinite": accuracy(float("inf")),
    "accuracy above 100": accuracy(100.5),
    "accuracy below 0": accuracy(-1),
    "accuracy that is text": accuracy("99"),
    "accuracy that is true": accuracy(True),
    "accuracy that is a list": accuracy([99]),
}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize("kind", BAD_RESULTS)
def test_results_that_are_none(kind, tmp_path, capsys):
    """Alone: status 2. Beside good ones: left out of the table, which is said. Nobody reads a number of it."""
    write(tmp_path / "bad" / "results.json", BAD_RESULTS[kind])
    before = contents(tmp_path)
    assert "bad: left out: " in told(capsys, status=run("--mode=report", "--workdir", tmp_path))
    write(tmp_path / "good" / "results.json", results())
    assert run("--mode=report", "--workdir", tmp_path) == 0
    out, err = capsys.readouterr()
    assert "| good | ours_mail | last " in out
    assert "\nbad: left out: " in out
    assert err == ""
    assert set(before) <= set(contents(tmp_path))
    if kind not in FINE_FOR_EVALUATION:
        assert runs.read_results(tmp_path / "bad") is None
        assert "it is left out" in capsys.readouterr().err


# An evaluation does not read these.
FINE_FOR_EVALUATION = ("config without method", "method that is a number")


def test_results_that_are_none_are_kept_when_new_ones_are_written(tmp_path, capsys):
    write(tmp_path / "config.json", json.dumps(settings.as_json(tiny.config())))
    write(tmp_path / "results.json", accuracy(1000.0))
    with runs.open_workdir(tmp_path, tiny.config()):
        assert not (tmp_path / "results.json").exists()
    message = (
        "checkpoints.last.accuracy.clean is 1000.0; must be a percentage in 0..100 or null; it is kept as"
    )
    assert message in capsys.readouterr().err
    assert (tmp_path / "damaged" / "results.json").read_text() == accuracy(1000.0)


def test_results_below_links_and_odd_names(tmp_path, capsys):
    """A loop of links ends, and a directory in the place of a file is no file."""
    write(tmp_path / "odd" / "results.json", results())
    (tmp_path / "odd" / "loop").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "dir" / "results.json").mkdir(parents=True)
    assert run("--mode=report", "--workdir", tmp_path) == 0
    out, _ = capsys.readouterr()
    assert out.count("| odd") == 1


@hypothesis.settings(max_examples=60)
@given(st.binary(max_size=60), st.integers(0, 10_000), st.booleans())
def test_any_damage_of_results(tmp_path_factory, noise, place, cut):
    """Bytes put anywhere into a good results.json, or cut off there: a table or a complaint."""
    workdir = tmp_path_factory.mktemp("noise")
    content = results().encode()
    place %= len(content)
    write(workdir / "results.json", content[:place] + noise + (b"" if cut else content[place:]))
    assert works_or_is_one_line(lambda: report.run(workdir).startswith("| run "))
    runs.read_results(workdir)


BAD_CONFIGS = {
    "empty": "",
    "no JSON": "{",
    "a list": "[]",
    "null": "null",
    "no UTF-8": b"\xff\xfe",
    "nested too deep": '{"a":' * 100_000,
    "sections that are numbers": '{"dataset": 3, "optim": null}',
    "fields of another program": '{"epochs": 3}',
    "a field too many": '{"seed": 0, "dataset": {"name": "digits", "nmae": 1}}',
}


@pytest.mark.parametrize("kind", BAD_CONFIGS)
def test_config_json_that_is_none(kind, tmp_path, capsys):
    write(tmp_path / "config.json", BAD_CONFIGS[kind])
    write(tmp_path / "metrics.jsonl", "kept")
    before = contents(tmp_path)
    assert str(tmp_path) in told(capsys, status=run(DIGITS, *TINY, "--workdir", tmp_path))
    assert contents(tmp_path) == before


def _link(name):
    return lambda workdir, outside: (workdir / name).symlink_to(outside)


def _directory(name):
    return lambda workdir, outside: (workdir / name / "kept").mkdir(parents=True)


BAD_WORKDIRS = {
    "config.json is a directory": _directory("config.json"),
    "metrics.jsonl is a directory": _directory("metrics.jsonl"),
    "checkpoints without a config": _directory("checkpoints"),
    "checkpoints are a file": lambda workdir, outside: write(workdir / "checkpoints", "kept"),
    "checkpoints are a link": _link("checkpoints"),
    "results.json is a link": _link("results.json"),
    "metrics.jsonl is a link": _link("metrics.jsonl"),
    "damaged is a link": _link("damaged"),
    "a link to itself": lambda workdir, outside: (workdir / "loop").symlink_to(workdir / "loop"),
    "the lock is a link": _link(".lock"),
    "the lock is a directory": _directory(".lock"),
}


@pytest.mark.parametrize("kind", BAD_WORKDIRS)
def test_workdirs_that_cannot_be_used(kind, tmp_path, capsys):
    workdir, outside = tmp_path / "run", tmp_path / "outside"
    workdir.mkdir()
    outside.mkdir()
    write(outside / "kept", "kept")
    BAD_WORKDIRS[kind](workdir, outside)
    before = contents(tmp_path)
    assert str(workdir) in told(capsys, status=run(DIGITS, *TINY, "--workdir", workdir))
    assert set(before) <= set(contents(tmp_path))
    assert [path.name for path in outside.iterdir()] == ["kept"]


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "/dev/null", "/dev/null/below", "/proc/self/mem/x"])
def test_names_of_workdirs(name, capsys):
    told(capsys, status=run(DIGITS, *TINY, "--workdir", name))


BAD_METRICS = {
    "binary": bytes(range(256)) * 10 + b"\n",
    "no objects": b"3\nnull\n[]\n",
    "steps that are text": b'{"kind": "train", "epoch": 0, "step": "4"}\n',
    "seconds that are text": b'{"kind": "train", "epoch": 0, "step": 4, "seconds": "x"}\n',
    "seconds that are NaN": b'{"kind": "train", "epoch": 0, "step": 4, "seconds": NaN}\n',
    "nested too deep": b"[" * 100_000 + b"\n",
    "a step too large": b'{"kind": "train", "epoch": 0, "step": 1e400}\n',
}


@pytest.mark.parametrize("kind", BAD_METRICS)
def test_metrics_that_are_none(kind, tmp_path, capsys):
    """Left out, said, and kept; a line cut short by a kill is no damage."""
    good = b'{"kind": "train", "epoch": 0, "step": 4, "loss": 1.0}\n'
    write(tmp_path / "config.json", json.dumps(settings.as_json(tiny.config())))
    write(tmp_path / "metrics.jsonl", good + BAD_METRICS[kind] + b'{"kind": "tra')
    before = contents(tmp_path)
    with runs.open_workdir(tmp_path, tiny.config()):
        log = runs.MetricsLog(tmp_path)
        log.write("train", epoch=1, step=8, loss=2.0)
        log.close()
    assert [line["step"] for line in runs.read_metrics(tmp_path)] == [4, 8]
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "lines are none of a run" in err
    assert set(before) <= set(contents(tmp_path))
    with runs.open_workdir(tmp_path, tiny.config()):
        assert capsys.readouterr().err == ""


def test_metrics_stay_where_they_are_while_they_are_copied(tmp_path):
    """Looked for at every line of Python that runs: what a kill there would leave."""
    write(tmp_path / "config.json", json.dumps(settings.as_json(tiny.config())))
    metrics = b'{"kind": "train", "epoch": 0, "step": 4, "loss": 1.0}\nnothing of a run\n'
    write(tmp_path / "metrics.jsonl", metrics)
    found, before = set(), sys.gettrace()

    def look(frame, event, argument):
        path = tmp_path / "metrics.jsonl"
        found.add(path.read_bytes() if path.exists() else None)
        return look

    sys.settrace(look)
    try:
        with runs.open_workdir(tmp_path, tiny.config()):
            pass
    finally:
        sys.settrace(before)
    assert found == {metrics}
    assert (tmp_path / "damaged" / "metrics.jsonl").read_bytes() == metrics


def png(width, height, *, data=b"", mode=2, depth=8):
    """A PNG with a header that says so and whatever as its pixels."""

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, mode, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )


def encoded(mode="RGB", kind="PNG", size=(8, 8), cut=None):
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind)
    return file.getvalue()[:cut]


BAD_IMAGES = {
    "empty": b"",
    "text": b"hello",
    "a PNG cut in its header": encoded(cut=20),
    "a PNG cut in its pixels": encoded(cut=-30),
    "a PNG without pixels": png(8, 8),
    "a JPEG cut in two": encoded(kind="JPEG", cut=200),
    "16 bits": encoded(mode="I;16"),
    "32 bits": encoded(mode="I", kind="TIFF"),
    "floats": encoded(mode="F", kind="TIFF"),
    "a decompression bomb": png(100_000, 100_000),
    "a large image that pillow only warns of": png(10_000, 10_000),
    "no width": png(0, 8),
    "an impossible colour type": png(8, 8, mode=5),
    "another size": encoded(size=(9, 8)),
    "too small": encoded(size=(1, 1)),
    "not an image but Python": b"import os; os.system('touch executed')",
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_images_that_cannot_be_used(kind, tmp_path, capsys):
    for part in ("train", "test"):
        for name in "abc":
            write(tmp_path / "set" / part / name / "0.png", encoded())
    write(tmp_path / "set" / "train" / "b" / "1.png", BAD_IMAGES[kind])
    before = contents(tmp_path)
    arguments = ["--config.dataset.name=folder", f"--config.dataset.data_dir={tmp_path / 'set'}"]
    status = run(DIGITS, *arguments, "--config.dataset.validation_size=0", "--workdir", tmp_path / "run")
    assert "b/1.png" in told(capsys, status=status)
    assert contents(tmp_path) == before


def test_folders_with_links_pipes_and_odd_names(tmp_path):
    """A loop of links, a dangling one, a pipe and names that are no text are passed over or read; nothing hangs."""
    for part in ("train", "test"):
        for name in "abc":
            write(tmp_path / part / name / "0.png", encoded())
        (tmp_path / part / "a" / "loop").symlink_to(tmp_path / part)
        (tmp_path / part / "a" / "self.png").symlink_to(tmp_path / part / "a" / "self.png")
        (tmp_path / part / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
        os.mkfifo(tmp_path / part / "a" / "pipe.png")
        write(pathlib.Path(os.fsdecode(os.fsencode(tmp_path / part / "b") + b"/\xff.png")), encoded())
    assert len(data.load("folder", data_dir=tmp_path).train.labels) == 4
    (tmp_path / "train" / "loop").symlink_to(tmp_path / "train" / "loop")
    assert len(data.load("folder", data_dir=tmp_path).train.labels) == 4


@pytest.fixture(scope="module")
def copy_of_a_set(tmp_path_factory):
    """A small set prepared by tensorflow-datasets."""
    root = tmp_path_factory.mktemp("tfds")
    prepare(root)
    return root


@hypothesis.settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=st.integers(0, 100), place=st.integers(0, 10**6), noise=st.binary(max_size=8), cut=st.booleans())
def test_any_damage_of_a_prepared_set(copy_of_a_set, tmp_path_factory, which, place, noise, cut):
    """Bytes changed anywhere in any of its files, or the file cut there: the images, or one line."""
    root = shutil.copytree(copy_of_a_set, tmp_path_factory.mktemp("damaged") / "copy")
    files = sorted(path for path in root.rglob("*") if path.is_file())
    file = files[which % len(files)]
    content = file.read_bytes()
    place %= len(content) + 1
    file.write_bytes(content[:place] + noise + (b"" if cut else content[place + len(noise) :]))
    assert works_or_is_one_line(lambda: len(data.load("tiny", data_dir=root).train.labels) > 0)


_FIELDS = (
    "seed",
    "dataset.name",
    "dataset.data_dir",
    "dataset.train_size",
    "dataset.pad",
    "dataset.flip",
    "model.name",
    "model.depth",
    "model.width",
    "model.activation",
    "model.last_norm",
    "model.mean",
    "method.name",
    "method.tau",
    "method.similarity",
    "attack.eps",
    "attack.start",
    "optim.learning_rate",
    "optim.milestones",
    "optim.num_epochs",
    "objective.name",
    "objective.smoothing",
    "awp.gamma",
    "awp.start_epoch",
    "average.name",
    "extra.share",
    "optim.schedule",
    "optim.peak",
    "optim.clip_norm",
    "evaluation.attacks",
    "evaluation.batch_size",
    "checkpoint.every_steps",
)
# Likely values and unlikely ones.
_VALUES = st.one_of(
    st.text(max_size=20),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(
        ["None", "()", "(1,)", "('a', 2)", "[]", "{}", "__import__('os').getcwd()", "../../x", "1e400", "-0"]
    ),
)


@hypothesis.settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(field=st.sampled_from(_FIELDS), value=_VALUES)
def test_any_value_of_any_field(tmp_path, capsys, monkeypatch, field, value):
    """Refused in one line, or accepted; nothing is trained here."""
    monkeypatch.setattr("jaxrw.train.run", lambda config, workdir, **options: create_experiment(config))
    monkeypatch.setattr("jaxrw.evaluate.run", lambda *arguments, **options: {"checkpoints": {}})
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    status = run(DIGITS, *TINY, f"--config.{field}={value}", "--workdir", tmp_path / "run")
    err = capsys.readouterr().err
    assert status in (0, 2)
    assert (err.count("\n") == 1 and err.startswith("launch.py: ")) if status else err == ""
    assert not (tmp_path / "x").exists()
