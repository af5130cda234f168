"""Kills a short run at random moments and compares its end with that of a run that was not disturbed.

    python tests/helpers/torture.py [--kills 50] [--seed 0]

A run trains a small network on digits, saves every second step, validates, keeps the best, evaluates the last and the
best, also by AutoAttack, draws its figures and prints its table, so it writes every file that a run has. SIGKILL comes
up to 20 ms after a random number of events: training steps, batches of an evaluation, and changes of a file. Then the
same command resumes, until it ends or is killed again. At its end the parameters of the last and of the best
checkpoint, metrics.jsonl and results.json must be those of the undisturbed run, bit for bit, but for times. Prints how
often each kind of moment was hit; exits with status 1 if a run ended differently.
"""

import argparse
import collections
import hashlib
import json
import mmap
import os
import pathlib
import random
import re
import signal
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]
os.environ["JAX_PLATFORMS"] = "cpu"

import launch  # noqa: E402
from helpers.flags import DIGITS, TINY  # noqa: E402
from jaxrw import evaluate, measure, report, train  # noqa: E402, F401
from jaxrw.training import accuracy, step  # noqa: E402

COMMAND = (
    "launch.py",
    DIGITS,
    *TINY,
    "--config.optim.num_epochs=4",
    "--config.optim.milestones=(3,)",
    "--config.checkpoint.every_steps=2",
    "--config.evaluation.attacks=('clean','aa')",
    "--config.evaluation.batch_size=16",
    "--config.evaluation.figure_examples=8",
)

# A shorter AutoAttack that writes its state after every iteration.
AUTOATTACK = {"attacks": ("apgd-ce",), "num_steps": 30, "state_seconds": 0}

# Fields that depend on the clock.
CLOCK = ("seconds", "images_per_second", "train_seconds")

_CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree")
_TEXT = 200


class Watch:
    """The number of events of a process and the last one, in memory that it shares with the process that kills it."""

    def __init__(self):
        self._memory = mmap.mmap(-1, 8 + _TEXT)

    def reset(self):
        self._memory[:] = bytes(8 + _TEXT)

    def note(self, words):
        self._memory[8:] = words.encode()[:_TEXT].ljust(_TEXT, b"\0")
        self._memory[:8] = (self.count + 1).to_bytes(8, "little")

    @property
    def count(self):
        return int.from_bytes(self._memory[:8], "little")

    @property
    def last(self):
        return self._memory[8:].rstrip(b"\0").decode() or "starting"


def run(workdir, watch):
    """Starts a run in a process of its own, which notes its events in `watch`; returns its process id."""
    number = os.fork()
    if number:
        return number
    sys.stdout = sys.stderr = (workdir.parent / "output").open("a")
    os.dup2(sys.stdout.fileno(), 1)
    os.dup2(sys.stdout.fileno(), 2)
    _observe(workdir, watch)
    status = launch.main([*COMMAND, f"--workdir={workdir}"])
    sys.stdout.flush()
    os._exit(status)


def _observe(workdir, watch):
    """Notes every change of a file of the run, every step and every batch of an evaluation."""
    root = str(workdir)

    def hook(event, arguments):
        path = str(arguments[0]) if arguments and isinstance(arguments[0], str | os.PathLike) else ""
        writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if path.startswith(root) and (writes or event in _CHANGES):
            name = re.sub(r"[0-9a-f]{32}|\d+", "N", path[len(root) + 1 :])
            watch.note(f"{event.removeprefix('os.').removeprefix('shutil.')} {name}")

    sys.addaudithook(hook)
    step.train_step = _noting(step.train_step, watch, "compile a step")
    create, shard = train.create_step, accuracy.shard
    train.create_step = lambda *arguments: _noting(create(*arguments), watch, "training step")
    accuracy.shard = _noting(shard, watch, "evaluation batch")
    autoattack = measure.autoattack
    measure.autoattack = lambda *arguments, **settings: autoattack(*arguments, **settings | AUTOATTACK)


def _noting(function, watch, words):
    """Wraps a function so that it notes each of its calls."""

    def wrapped(*arguments, **options):
        watch.note(words)
        return function(*arguments, **options)

    return wrapped


def outcome(workdir):
    """Returns everything that a run leaves, as JSON, read by a process of its own."""
    read, write = os.pipe()
    if not os.fork():
        os.write(write, json.dumps(_outcome(workdir)).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        content = answer.read()
    os.wait()
    return json.loads(content)


def _outcome(workdir):
    """Returns digests of the checkpoints, the metrics and results without times, and the names of the files."""
    import jax
    import numpy as np
    import orbax.checkpoint as ocp

    digests = {}
    for path in sorted((workdir / "checkpoints").iterdir()):
        digest = hashlib.sha256()
        for leaf in jax.tree.leaves(ocp.StandardCheckpointer().restore(path / "default")):
            digest.update(np.asarray(leaf).tobytes())
        digests[path.name] = digest.hexdigest()
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    results = json.loads((workdir / "results.json").read_text())
    names = sorted(path.name for path in workdir.iterdir() if not path.name.startswith("events"))
    return {
        "checkpoints": digests,
        "metrics": _without_clock(lines),
        "results": _without_clock(results),
        "files": names,
    }


def _without_clock(value):
    if isinstance(value, dict):
        return {name: _without_clock(inner) for name, inner in value.items() if name not in CLOCK}
    return [_without_clock(inner) for inner in value] if isinstance(value, list) else value


def wait_for(number, watch, events):
    """Waits until a process has had that many events or has ended; returns its status, None if it has not ended."""
    while watch.count < events:
        ended, status = os.waitpid(number, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    return None


def torture(workdir, watch, generator, most, total):
    """Runs once, killed at most `most` times; yields what the run was doing each time."""
    for _ in range(most):
        watch.reset()
        number = run(workdir, watch)
        status = wait_for(number, watch, generator.randrange(1, total))
        if status is not None:
            _check_ended(status, workdir)
            return
        time.sleep(generator.uniform(0, 0.02))
        ended, status = os.waitpid(number, os.WNOHANG)
        if ended:
            _check_ended(os.waitstatus_to_exitcode(status), workdir)
            return
        os.kill(number, signal.SIGKILL)
        doing = watch.last
        os.waitpid(number, 0)
        yield doing
    watch.reset()
    _check_ended(os.waitstatus_to_exitcode(os.waitpid(run(workdir, watch), 0)[1]), workdir)


def _check_ended(status, workdir):
    if status:
        raise SystemExit(
            f"{workdir} ended with status {status}: {(workdir.parent / 'output').read_text()[-2000:]}"
        )


def main():
    """Returns 0 if every run ended as the undisturbed one, else 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    generator, watch, hits, runs = random.Random(arguments.seed), Watch(), collections.Counter(), 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="jaxrw-torture-") as scratch:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", f"{scratch}/cache")
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        whole = pathlib.Path(scratch) / "whole"
        _check_ended(os.waitstatus_to_exitcode(os.waitpid(run(whole, watch), 0)[1]), whole)
        expected, total = outcome(whole), watch.count
        print(f"a whole run: {total} events, checkpoints {', '.join(expected['checkpoints'])}", flush=True)
        while hits.total() < arguments.kills:
            runs += 1
            workdir = pathlib.Path(scratch) / f"run{runs}"
            most = min(arguments.kills - hits.total(), generator.randrange(2, 7))
            moments = list(torture(workdir, watch, generator, most, total))
            hits.update(moments)
            found = outcome(workdir)
            for part, value in expected.items():
                if found[part] != value:
                    print(
                        f"{part} of run {runs} differ after kills in: {', '.join(moments)}\n{value}\n{found[part]}"
                    )
                    return 1
            print(f"run {runs}: identical after {len(moments)} kills", flush=True)
    print(
        f"\n{hits.total()} kills in {runs} runs, {time.monotonic() - began:.0f} s; every run ended identical. Hit:"
    )
    for moment, count in hits.most_common():
        print(f"{count:4d}  {moment}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
