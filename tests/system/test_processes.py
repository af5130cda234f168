"""Processes of runs: they end with the process that started them, and never two of them work in one directory."""

import fcntl
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from helpers.waiting import is_alive, wait_until

from jaxrw.system import processes

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "output").touch()
    return tmp_path


def run_bound(here, program):
    return list(
        processes.run_bound(
            ["-c", program], directory=str(here), output=here / "output", lock=here / "run" / ".lock"
        )
    )


def test_it_yields_the_machine_and_the_status_and_keeps_the_output(here):
    (here / "output").write_text("before\n")
    program = "import os, sys; print(os.getcwd(), flush=True); print('wrong', file=sys.stderr); sys.exit(3)"
    assert run_bound(here, program) == [os.uname().nodename, 3]
    assert (here / "output").read_text() == f"before\n{here}\nwrong\n"
    assert run_bound(here, "import os; os.kill(os.getpid(), 9)")[1] == -9


def test_a_directory_that_this_machine_does_not_have_is_an_error(here):
    """Nothing is created there: other machines would not see it."""
    (here / "output").unlink()
    with pytest.raises(FileNotFoundError, match="output"):
        run_bound(here, "")
    assert list(here.iterdir()) == []
    assert processes.missing([here, here / "none"]) == [here / "none"]


# Starts a process that stays, and tells its number.
STARTING = """
import pathlib, signal, sys
from jaxrw.system import processes

if {handler!r}:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
program = '''
import os, pathlib, signal, sys, time
def stop(*_):
    pathlib.Path("saved").touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
pathlib.Path("number.tmp").write_text(str(os.getpid()))
os.rename("number.tmp", "number")
time.sleep(600)
'''
output = pathlib.Path("output")
for _ in processes.run_bound(["-c", program], directory=".", output=output, lock=pathlib.Path("lock")):
    pass
"""


@pytest.mark.parametrize(
    ("number", "has_handler", "saves"), [(signal.SIGKILL, False, False), (signal.SIGTERM, True, True)]
)
def test_no_process_outlives_the_one_that_started_it(here, number, has_handler, saves):
    """However it ends; where it can, it lets the other one save its state."""
    process = subprocess.Popen([sys.executable, "-c", STARTING.format(handler=has_handler)], cwd=here)
    wait_until((here / "number").exists)
    bound = int((here / "number").read_text())
    assert is_alive(bound)
    process.send_signal(number)
    process.wait(30)
    wait_until(lambda: not is_alive(bound), seconds=5)
    assert (here / "saved").exists() == saves


def test_it_ends_with_the_parent_of_the_one_that_started_it(here):
    """As a node of Ray whose workers live on; it saves its state first."""
    (here / "starting.py").write_text(STARTING.format(handler=False))
    program = (
        "import subprocess, sys; subprocess.run([sys.executable, 'starting.py'], stderr=subprocess.DEVNULL)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=here)
    wait_until((here / "number").exists)
    bound = int((here / "number").read_text())
    process.kill()
    process.wait()
    wait_until(lambda: not is_alive(bound), seconds=10)
    assert (here / "saved").exists()


def test_it_does_not_start_if_its_parent_has_died_before(here):
    program = "import pathlib; pathlib.Path('ran').touch()"
    command = [sys.executable, "-m", "jaxrw.system.processes", "1", sys.executable, "-c", program]
    assert subprocess.run(command, cwd=here).returncode == 1
    assert not (here / "ran").exists()


def test_it_waits_until_nobody_else_works_in_the_directory(here):
    (here / "run").mkdir()
    released = []

    def release():
        time.sleep(1)
        released.append(time.monotonic())
        os.close(lock)

    lock = os.open(here / "run" / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    thread = threading.Thread(target=release)
    thread.start()
    program = textwrap.dedent(
        """
        import fcntl, os, time
        print(time.monotonic())
        fcntl.flock(os.open("run/.lock", os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)
        """
    )
    assert run_bound(here, program)[1] == 0
    thread.join()
    assert float((here / "output").read_text()) > released[0]


def test_the_wait_for_a_lock_ends(here, monkeypatch):
    """The run then says itself who works in its directory."""
    monkeypatch.setattr(processes, "_LOCK_SECONDS", 0.1)
    (here / "run").mkdir()
    with (here / "run" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run_bound(here, "")[1] == 0
