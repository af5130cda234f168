"""Sweeps on a Ray cluster of this machine: what runs where, and what happens when workers, nodes and runs end."""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading

import pytest
from helpers.flags import TINY
from helpers.waiting import is_alive, wait_until
from ml_collections import ConfigDict

import launch
from jaxrw import sweep
from jaxrw.system.errors import RunError, UserError

ROOT = pathlib.Path(__file__).parents[2]

# Replaces launch.py. A run notes its process, that of its Ray worker and its node, and does what orders.json says.
LAUNCHER = """
import fcntl, json, os, pathlib, signal, sys, time
from jaxrw import command_line  # and nothing that imports JAX, which takes seconds

values = command_line.parse(sys.argv)
workdir = pathlib.Path(values.workdir)
workdir.mkdir(parents=True, exist_ok=True)
lock = open(workdir / ".lock", "a")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # An error if two processes work here.
noted = workdir / "notes"
attempt = len(noted.read_text().splitlines()) if noted.exists() else 0

def note(path, text):
    with open(path, "a") as file:
        print(text, file=file)

def stop(*_):
    note(workdir / "saved", os.getpid())
    sys.exit(75)

signal.signal(signal.SIGTERM, stop)
note("begun", workdir.name)
note(noted, f"{os.getpid()} {os.getppid()} {os.environ['RAY_RAYLET_PID']}")
print("what a run prints")
orders = json.loads(pathlib.Path("orders.json").read_text()).get(workdir.name, [])
match orders[attempt] if attempt < len(orders) else "":
    case "wait":
        time.sleep(600)
    case "meet":
        deadline = time.monotonic() + 60
        while len(pathlib.Path("begun").read_text().splitlines()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    case "exit", status:
        sys.exit(status)
    case "wait for", path:
        while not pathlib.Path(path).exists():
            time.sleep(0.02)
if values.warmup_from and not (pathlib.Path(values.warmup_from) / "warmup").exists():
    sys.exit(2)
if values.config.checkpoint.keep_warmup:
    (workdir / "warmup").mkdir(exist_ok=True)
note("ended", workdir.name)
"""

VARIANTS = ({"method": {"name": "mail"}}, {"method": {"name": "gairat"}})


class Cluster:
    """Nodes on each of which one run fits; those that are added have a resource of their own."""

    def __init__(self):
        program = ROOT / "tests" / "helpers" / "ray_cluster.py"
        self._process = subprocess.Popen(
            [sys.executable, program],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.address, self.token = self._process.stdout.readline().split()

    def do(self, word):
        print(word, file=self._process.stdin, flush=True)
        assert self._process.stdout.readline().strip() == self.address

    def close(self):
        self._process.communicate(timeout=60)


@pytest.fixture(scope="module")
def cluster():
    """Two nodes."""
    pytest.importorskip("ray", reason="needs Ray: pip install -e '.[ray]'")
    cluster = Cluster()
    with contextlib.closing(cluster), pytest.MonkeyPatch.context() as patch:
        cluster.do("add")
        patch.setenv("RAY_ADDRESS", cluster.address)
        patch.setenv("RAY_AUTH_TOKEN", cluster.token)
        yield cluster


@pytest.fixture
def here(cluster, tmp_path, monkeypatch):
    """An empty current directory with a launcher that trains nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "launcher.py").write_text(LAUNCHER)
    order()
    return tmp_path


def order(**orders):
    """Says what the attempts of a run do, by the first word of its name."""
    pathlib.Path("orders.json").write_text(json.dumps({f"{name}-0": each for name, each in orders.items()}))


def config(resources=None, **fields):
    values = {"configs": ("digits.py",), "variants": VARIANTS, "seeds": (0,)} | fields
    return ConfigDict({"sweep": {**values, "resources": resources or {"CPU": 1, "GPU": 0}}})


def run(config, launcher="launcher.py"):
    sweep.run(
        config,
        ROOT / "configs" / "sweep.py",
        "runs",
        launcher=pathlib.Path(launcher).resolve(),
        with_ray=True,
    )


def notes(name):
    """Process, Ray worker and node of each attempt of a run."""
    path = pathlib.Path(f"runs/digits/{name}-0/notes")
    return [tuple(map(int, line.split())) for line in path.read_text().splitlines()] if path.exists() else []


def lines(name):
    return [line.removesuffix("-0") for line in pathlib.Path(name).read_text().splitlines()]


def meanwhile(function):
    """Calls a function in a thread; if it fails, the sweep is interrupted, which might wait forever."""

    def call():
        try:
            function()
        except BaseException:
            os.kill(os.getpid(), signal.SIGINT)
            raise

    thread = threading.Thread(target=call)
    thread.start()
    return thread


def test_two_runs_work_at_a_time_each_on_a_node(here, capsys):
    order(mail=["meet"], gairat=["meet"])
    run(config())
    ((_, _, first),), ((_, _, second),) = notes("mail"), notes("gairat")
    assert first != second
    out, node = capsys.readouterr().out, os.uname().nodename
    assert (
        "2 runs below runs, 0 of them done\non Ray, each with 1 CPU; what it prints is in NAME.log\n" in out
    )
    for name in ("mail", "gairat"):
        assert f"digits/{name}-0 starts on {node}\n" in out
    assert re.search(
        r"digits/\w+-0 is done; 1 of 2 are, 0 failed\ndigits/\w+-0 is done; 2 of 2 are, 0 failed\n", out
    )
    assert "2 of 2 runs are done; tables and figures: --mode report" in out
    assert "what a run prints" not in out
    command, printed = pathlib.Path("runs/digits/mail-0.log").read_text().splitlines()
    assert command.endswith("--config.seed=0 --workdir=runs/digits/mail-0")
    assert printed == "what a run prints"


def test_a_run_whose_worker_is_killed_is_started_again(here, capsys):
    order(mail=["wait"])

    def kill():
        wait_until(lambda: notes("mail"))
        ((_, worker, _),) = notes("mail")
        os.kill(worker, signal.SIGKILL)

    thread = meanwhile(kill)
    run(config())
    thread.join()
    (first, *_), (second, *_) = notes("mail")
    assert first != second
    assert not is_alive(first)
    assert sorted(lines("ended")) == ["gairat", "mail"]
    assert re.search(
        r"digits/mail-0: its worker on \S+ died \(\w+\); it is started again", capsys.readouterr().out
    )


def test_a_run_whose_node_dies_is_started_again_on_another(here, cluster, capsys):
    order(mail=["wait"])
    cluster.do("add")

    def kill():
        wait_until(lambda: notes("mail"))
        os.kill(notes("mail")[0][2], signal.SIGKILL)

    thread = meanwhile(kill)
    run(config({"second": 1}, variants=VARIANTS[:1]))
    thread.join()
    (first, _, first_node), (_, _, second_node) = notes("mail")
    assert first_node != second_node
    assert not is_alive(first)
    assert lines("ended") == ["mail"]
    assert "; it is started again" in capsys.readouterr().out
    cluster.do("bury")


def test_a_run_that_was_stopped_is_started_again(here, capsys):
    """Its own status says so, as when a cloud takes its machine away."""
    order(mail=[("exit", 75), ("exit", 75)])
    run(config())
    assert len(notes("mail")) == 3
    assert capsys.readouterr().out.count("(status 75); it is started again") == 2
    assert sorted(lines("ended")) == ["gairat", "mail"]


def test_a_run_whose_workers_die_too_often_has_failed(here, monkeypatch):
    monkeypatch.setattr("jaxrw.sweep.on_ray._MAX_DEATHS", 2)
    order(mail=["wait", "wait"])

    def kill():
        for number in (1, 2):
            wait_until(lambda number=number: len(notes("mail")) == number)
            os.kill(notes("mail")[-1][1], signal.SIGKILL)

    thread = meanwhile(kill)
    with pytest.raises(RunError, match=r"1 failed: digits/mail-0 \(status -9\)"):
        run(config(variants=VARIANTS[:1]))
    thread.join()
    assert len(notes("mail")) == 2


def test_a_run_that_fails_is_not_started_again(here, capsys):
    order(mail=[("exit", 3)])
    with pytest.raises(
        RunError, match=r"1 of 2 runs are done; 1 failed: digits/mail-0 \(status 3\); the same"
    ):
        run(config())
    assert len(notes("mail")) == 1
    assert lines("ended") == ["gairat"]
    assert "digits/mail-0 failed with status 3; see runs/digits/mail-0.log\n" in capsys.readouterr().err


def test_runs_wait_for_the_warmup_that_they_share(here):
    """Not for the end of the run that trains it, and there is a free node all the time."""
    variants = (*VARIANTS, {"method": {"name": "ewat"}})
    (here / "runs/digits/mail-0").mkdir(parents=True)
    order(mail=[("wait for", "runs/digits/mail-0/asked")])
    asked = here / "runs/digits/mail-0/asked"
    timer = threading.Timer(4, asked.touch)
    timer.start()
    run(config(variants=variants, share_warmup=True))
    timer.join()
    assert lines("begun")[0] == "mail"
    assert len(lines("ended")) == 3
    assert (here / "runs/digits/mail-0/warmup").is_dir()


def test_a_run_that_fails_leaves_its_warmup_to_the_next(here):
    variants = (*VARIANTS, {"method": {"name": "ewat"}})
    order(mail=[("exit", 3)])
    with pytest.raises(RunError, match=r"2 of 3 runs are done; 1 failed: digits/mail-0"):
        run(config(variants=variants, share_warmup=True))
    assert lines("begun") == ["mail", "gairat", "ewat"]
    assert (here / "runs/digits/gairat-0/warmup").is_dir()


def start_driver(here, *flags):
    (here / "mine.py").write_text(
        "from configs.sweeps import base\n\n\ndef get_config():\n    config = base.get_config()\n"
        f"    config.sweep.configs = ({str(ROOT / 'configs' / 'digits.py')!r},)\n"
        "    config.sweep.variants = base.methods('mail', 'gairat', 'ewat')\n    config.sweep.seeds = (0,)\n"
        "    return config\n"
    )
    # A shell starts what shall run in the background with Ctrl-C ignored; these tests may be run there.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "import launch, sys; launch.__file__ = 'launcher.py'; "
        "sys.exit(launch.main(['launch.py', '--config=mine.py', '--launcher=ray', *sys.argv[1:]]))"
    )
    return subprocess.Popen([sys.executable, "-c", program, *flags], stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGKILL, -9)]
)
def test_stopping_it_stops_all_runs(here, number, status):
    """Two are at work and one waits for a node."""
    names = ("mail", "gairat", "ewat")
    order(**{name: ["wait"] for name in names})
    process = start_driver(here)
    try:
        wait_until(lambda: process.poll() is not None or sum(len(notes(name)) for name in names) == 2)
    finally:
        process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status
    begun = [note for name in names for note in notes(name)]
    if status != -9:
        stopping, last = err.splitlines()
        assert stopping.startswith("stopping: the runs at work save their state")
        assert last.endswith("the same command goes on from what has been saved")
        assert len(list(here.glob("runs/digits/*/saved"))) == 2
    wait_until(lambda: not any(is_alive(number) for number, *_ in begun), seconds=0.1 if status != -9 else 30)
    assert len(begun) == 2


MISTAKES = {
    "more than any node has": (
        {"CPU": 1, "GPU": 8},
        "launcher.py",
        "asks for 1 CPU, 8 GPU of one node; the nodes of the Ray cluster have 1 CPU, 0 GPU; 1 CPU, 0 GPU",
    ),
    "nothing": ({"CPU": 0}, "launcher.py", "sweep.resources is {'CPU': 0}; must be what a run needs"),
    "less than nothing": ({"CPU": -1}, "launcher.py", "sweep.resources is {'CPU': -1}; must be"),
    "a word": ({"CPU": "all"}, "launcher.py", "sweep.resources is {'CPU': 'all'}; must be"),
    "a file that no node has": ({"CPU": 1}, "none.py", r"has no /.*/none.py; all nodes need the same"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_before_anything_is_run(here, mistake):
    resources, launcher, words = MISTAKES[mistake]
    with pytest.raises(UserError, match=words.replace("{", r"\{")):
        run(config(resources), launcher)
    assert not (here / "begun").exists()


def test_a_cluster_that_is_not_there(here, monkeypatch):
    for address, words in (
        ("127.0.0.1:1", "RAY_ADDRESS is 127.0.0.1:1, where no Ray cluster answers"),
        ("cluster", "no Ray cluster can be used: ValueError"),
    ):
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(UserError, match=words) as error:
            run(config())
        assert "\n" not in str(error.value)


def test_without_ray_its_extra_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    table = f"--config={ROOT / 'configs' / 'sweeps' / 'table8.py'}"
    assert launch.main(["launch.py", table, "--launcher=ray"]) == 2
    assert capsys.readouterr().err == (
        'launch.py: --launcher ray needs Ray; install it with pip install "jaxrw[ray]"\n'
    )
    assert launch.main(["launch.py", f"--config={ROOT / 'configs' / 'digits.py'}", "--launcher=ray"]) == 2
    assert "--launcher is for a sweep" in capsys.readouterr().err


def test_a_real_run_whose_worker_is_killed_ends_the_same(here, capsys):
    """Parameters, metrics and results are those of a run that nobody disturbed, bit for bit."""
    flags = [
        *TINY,
        "--config.method.name=mail",
        "--config.optim.num_epochs=3",
        "--config.checkpoint.every_steps=1",
    ]
    run_flags = [f"--config={ROOT / 'configs' / 'digits.py'}", "--config.seed=0", "--workdir=runs/whole"]
    whole = subprocess.Popen(
        [sys.executable, ROOT / "launch.py", *run_flags, *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    workdir, killed = here / "runs" / "digits" / "mail-0", []

    def kill():
        wait_until((workdir / "checkpoints" / "3").exists, seconds=300)
        (number,) = re.findall(r"process (\d+) on", (workdir / ".lock").read_text())
        killed.append(int(number))
        worker = int(pathlib.Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(worker, signal.SIGKILL)

    thread = meanwhile(kill)
    sweep.run(
        config(variants=VARIANTS[:1]),
        ROOT / "configs" / "sweep.py",
        "runs",
        launcher=ROOT / "launch.py",
        overrides=flags,
        with_ray=True,
    )
    thread.join()
    assert whole.wait(300) == 0, whole.stderr.read()
    whole.stderr.close()
    assert "died (WorkerCrashedError); it is started again" in capsys.readouterr().out
    assert not is_alive(killed[0])
    assert re.search(r"^going on after step \d", workdir.with_name("mail-0.log").read_text(), re.MULTILINE)
    assert outcome(workdir) == outcome(here / "runs" / "whole")


def outcome(workdir):
    """What a run leaves, without times; orbax warns of what it reads."""
    program = "import json, pathlib, sys; from helpers import torture; "
    program += "print(json.dumps(torture.outcome(pathlib.Path(sys.argv[1]))))"
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, workdir],
        env=os.environ | {"PYTHONPATH": paths},
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])
