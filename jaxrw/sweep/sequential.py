"""The runs of a sweep on this machine, one after the other."""

import pathlib
import sys
import time

from tqdm import tqdm

from jaxrw.sweep import times
from jaxrw.sweep.plan import Run, share_warmups
from jaxrw.system import preemption, processes
from jaxrw.system.errors import Stopped


def run_all(
    sweep: list[Run],
    unfinished: list[Run],
    *,
    estimated: dict[times.Kind, list[float]],
    launcher: pathlib.Path | None,
) -> dict[Run, int]:
    """Runs the unfinished runs of a sweep; returns the exit statuses of those that failed.

    Args:
      sweep: all of its runs.
      unfinished: those that are run.
      estimated: seconds that runs of each kind take, from `times.estimate_seconds`.
      launcher: path of launch.py; None: the installed package.

    Raises:
      Stopped: the active run was stopped.
    """
    failed: dict[Run, int] = {}
    measured: dict[times.Kind, list[float]] = {}
    for number, item in enumerate(unfinished):
        seconds = times.seconds_left(unfinished[number:], estimated | measured)
        kind = times.kind_of(item)  # Before it runs, which changes it.
        left = "" if seconds is None else f", about {tqdm.format_interval(seconds)} left"
        print(
            f"\nrun {number + 1} of {len(unfinished)}: {item.name}  ({len(failed)} failed{left})\n"
            f"  {item.command(launcher)}",
            flush=True,
        )
        began = time.monotonic()
        status = processes.run([sys.executable, *item.arguments(launcher)])
        if status in processes.STOPPED:
            raise Stopped(f"stopped in {item.name}{preemption.HINT}")
        if status == 0:
            measured.setdefault(kind, []).append(time.monotonic() - began)
            continue
        failed[item] = status
        print(f"{item.name} failed with status {status}", file=sys.stderr, flush=True)
        if item.warmup_from:  # Its warm-up, which other runs wait for, may be missing.
            share_warmups(sweep, failed)
    return failed
