"""Files of a run when the disk is full or the directory gone: one line, and nothing that was there is harmed."""

import contextlib
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys

import pytest
from helpers import tiny

from jaxrw import runs
from jaxrw.runs.checks import is_number
from jaxrw.system.errors import RunError

ROOT = pathlib.Path(__file__).parents[2]

# A run whose every file may have so many bytes: more than its logs need, less than a checkpoint does.
_SMALL = 100_000


def launch(workdir, *, limit):
    """A small training run in a process that cannot write a larger file."""
    from helpers.flags import DIGITS, TINY

    # A program of its own sets the limit: a fork of this process would be one of all its threads. No cache of compiled
    # programs, since one that is cut short stays there for all other tests.
    limiting = (
        "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2); "
        "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
    )
    command = [sys.executable, "-c", limiting, str(limit), "launch.py", DIGITS, *TINY, f"--workdir={workdir}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_ENABLE_COMPILATION_CACHE": "false"}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)


def test_a_full_disk_is_one_line_and_corrupts_nothing(tmp_path):
    """A whole run against a limit that no checkpoint fits into: as on a full disk, every write of one fails."""
    done = launch(tmp_path / "run", limit=_SMALL)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "the checkpoint of step" in done.stderr
    assert "the same command goes on" in done.stderr
    kept = [path for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.isdecimal()]
    assert kept == []
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        json.loads(line)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["seed"] == 0


@contextlib.contextmanager
def full_disk():
    """Within it, no file of this process can grow: what a full disk does to a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_onto_a_full_disk_leaves_the_old_file(tmp_path):
    runs.write_json(tmp_path / "results.json", {"schema": 1})
    with full_disk(), pytest.raises(RunError, match=r"results.json cannot be written: File too large"):
        runs.write_json(tmp_path / "results.json", {"schema": 2, "more": list(range(10_000))})
    assert json.loads((tmp_path / "results.json").read_text()) == {"schema": 1}


def test_a_log_on_a_full_disk_says_so_and_hangs_nothing(tmp_path):
    log = runs.MetricsLog(tmp_path)
    log.write("train", epoch=0, step=4, loss=1.0)
    with full_disk(), pytest.raises(RunError, match=r"metrics.jsonl cannot be written"):
        log.write("train", epoch=1, step=8, loss=1.0)
    log.close()
    assert [line["step"] for line in runs.read_metrics(tmp_path)] == [4]


def test_a_directory_that_vanishes_is_one_line(tmp_path):
    with runs.open_workdir(tmp_path / "run", tiny.config()) as workdir:
        log = runs.MetricsLog(workdir)
        log.write("train", epoch=0, step=4, loss=1.0)
        shutil.rmtree(workdir)
        with pytest.raises(RunError, match=r"results.json cannot be written: No such file or directory"):
            runs.write_json(workdir / "results.json", {})
        with pytest.raises(RunError, match=r"metrics.jsonl cannot be written"):
            runs.MetricsLog(workdir)
        log.close()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((number, True) for number in (0, -3, 0.5, 10**300, sys.float_info.max, int(sys.float_info.max))),
        # JSON in Python has integers of any length, and names for what is not finite.
        *((number, False) for number in (10**400, -(10**400), float("inf"), -float("inf"), float("nan"))),
        *((other, False) for other in (True, None, "1", [1], {})),
    ],
    ids=lambda value: str(value)[:9],
)
def test_what_is_a_number(value, expected):
    assert is_number(value) is expected
