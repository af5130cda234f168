"""The runs of a sweep on the machines of a Ray cluster. Each is a task, which starts the run as a process.

Ray is an extra, so the functions that need it import it.
"""

import contextlib
import dataclasses
import logging
import os
import pathlib
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from jaxrw.runs.workdir import LOCK
from jaxrw.sweep.plan import Run, share_warmups
from jaxrw.system import preemption, processes
from jaxrw.system.errors import Stopped, UserError

if TYPE_CHECKING:
    import ray

# A run whose workers die this often has failed, with the status of a process that was killed. It may have been killed
# each time because it needs more memory than there is.
_MAX_DEATHS, _KILLED = 20, -signal.SIGKILL

# Seconds between two looks for warm-ups that have ended, and until a warning that no run could start.
_SECONDS, _SECONDS_UNTIL_HINT = 2, 30


@dataclasses.dataclass(eq=False)
class _Task:
    """A run, with Ray's stream of what `processes.run_bound` yields."""

    item: Run
    stream: "ray.ObjectRefGenerator | None" = None
    node: str | None = None
    num_deaths: int = 0

    @property
    def output(self) -> pathlib.Path:
        return self.item.workdir.with_name(f"{self.item.workdir.name}.log")


def run_all(
    sweep: list[Run],
    unfinished: list[Run],
    *,
    resources: Mapping[str, float],
    workdir: pathlib.Path,
    launcher: pathlib.Path | None,
) -> dict[Run, int]:
    """Runs the unfinished runs of a sweep, as many at a time as the cluster has resources for.

    A run that stopped on request, or whose worker died, is started again and resumes. The output of a run is appended
    to a file beside its directory.

    Args:
      sweep: all of its runs.
      unfinished: those that are run.
      resources: what each run needs of one node, by Ray's names.
      workdir: directory of the sweep, which all nodes have.
      launcher: path of launch.py; None: the installed package.

    Returns:
      The exit statuses of the runs that failed.

    Raises:
      UserError: there is no cluster, or it cannot run the runs.
      Stopped: SIGTERM; the active runs have received it too and have ended.
    """
    import ray

    needed = _checked(resources)
    if not unfinished:
        return {}
    try:
        _connect()
        workdir.mkdir(parents=True, exist_ok=True)
        with _interrupted_by_sigterm():
            files = {item.file for item in unfinished} | ({launcher} if launcher else set())
            _check_nodes(needed, [path.absolute() for path in (pathlib.Path(), workdir, *sorted(files))])
            print(f"on Ray, each with {_words(needed)}; what it prints is in NAME.log", flush=True)
            return _run_all(sweep, [_Task(item) for item in unfinished], needed=needed, launcher=launcher)
    finally:
        ray.shutdown()


def _run_all(
    sweep: list[Run], waiting: list[_Task], *, needed: Mapping[str, float], launcher: pathlib.Path | None
) -> dict[Run, int]:
    """Runs the waiting tasks to their ends; see `run_all`."""
    import ray

    active: list[_Task] = []
    failed: dict[Run, int] = {}
    hint_at: float | None = time.monotonic() + _SECONDS_UNTIL_HINT
    try:
        while waiting or active:
            unfinished = [task.item for task in (*waiting, *active)]
            for task in [task for task in waiting if not _waits_for_warmup(task.item, unfinished)]:
                waiting.remove(task)
                active.append(task)
                _start(task, needed, launcher)
            changed, _ = ray.wait([task.stream for task in active], timeout=_SECONDS)
            for task in [task for task in active if task.stream in changed]:
                value, hint_at = _next_value(task), None
                if isinstance(value, str):
                    task.node = value
                    _print(f"{task.item.name} starts on {value}")
                    continue
                active.remove(task)
                if value in (None, *processes.STOPPED) and task.num_deaths < _MAX_DEATHS:
                    waiting.append(task)
                elif value == 0:
                    num_done = len(sweep) - len(waiting) - len(active) - len(failed)
                    _print(f"{task.item.name} is done; {num_done} of {len(sweep)} are, {len(failed)} failed")
                else:
                    failed[task.item] = _KILLED if value is None else value
                    _print(
                        f"{task.item.name} failed with status {failed[task.item]}; see {task.output}",
                        sys.stderr,
                    )
                    if task.item.warmup_from:  # Its warm-up, which other runs wait for, may be missing.
                        share_warmups(sweep, failed)
            if hint_at is not None and time.monotonic() > hint_at:
                hint_at = None
                _print(f"no run has started: all of the cluster that has {_words(needed)} is busy")
    except BaseException:
        _stop(active)
        raise
    return failed


def _waits_for_warmup(item: Run, unfinished: Collection[Run]) -> bool:
    """Whether the warm-up that a run reuses is still to come."""
    source = item.warmup_from
    if source in (None, item.workdir) or (source / "warmup").is_dir():
        return False
    return any(other.workdir == source for other in unfinished)


def _start(task: _Task, needed: Mapping[str, float], launcher: pathlib.Path | None) -> None:
    """Gives a task to Ray, which starts it on a node with free resources."""
    import ray

    task.output.parent.mkdir(parents=True, exist_ok=True)
    with task.output.open("a", encoding="utf-8") as file:
        print(task.item.command(launcher), file=file)
    options = {"num_cpus": needed.get("CPU", 0), "num_gpus": needed.get("GPU", 0)}
    others = {name: amount for name, amount in needed.items() if name not in ("CPU", "GPU")}
    function = ray.remote(processes.run_bound).options(**options, resources=others, max_retries=0)
    task.node = None
    task.stream = function.remote(
        task.item.arguments(launcher),
        directory=os.getcwd(),
        output=task.output.absolute(),
        lock=task.item.workdir.absolute() / LOCK,
    )


def _next_value(task: _Task) -> str | int | None:
    """Returns the node on which a run has started, or its exit status, or None if its worker died."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    assert task.stream is not None
    try:
        value: str | int = ray.get(next(task.stream))
    except RayTaskError as error:
        raise UserError(f"{task.item.name} cannot be started: {_reason(error)}") from error
    except RayError as error:
        task.num_deaths += 1
        _print(
            f"{task.item.name}: its worker on {task.node} died ({type(error).__name__}); it is started again"
        )
        return None
    if value in processes.STOPPED:
        _print(f"{task.item.name} was stopped on {task.node} (status {value}); it is started again")
    return value


def _stop(tasks: list[_Task]) -> None:
    """Stops runs and waits until they have saved their state."""
    import ray

    streams = [task.stream for task in tasks if task.stream is not None]
    for stream in streams:
        ray.cancel(stream)
    if any(task.node for task in tasks):
        _print("stopping: the runs at work save their state; another Ctrl-C ends them at once", sys.stderr)
    completed = [stream.completed() for stream in streams]
    if completed:
        ray.wait(completed, num_returns=len(completed), timeout=processes.PATIENCE + 10)


def _connect() -> None:
    """Connects to the cluster of RAY_ADDRESS, or to one on this machine, or starts one on this machine."""
    import ray

    address = os.environ.get("RAY_ADDRESS", "")
    if match := re.fullmatch(r"(\S+):(\d+)", address):
        try:  # Ray itself would try for minutes.
            socket.create_connection((match[1], int(match[2])), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise UserError(
                f"RAY_ADDRESS is {address}, where no Ray cluster answers ({error}); start one with ray start --head"
            ) from error
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # It raises many kinds.
        raise UserError(f"no Ray cluster can be used: {_reason(error)}") from error


def _check_nodes(needed: Mapping[str, float], paths: list[pathlib.Path]) -> None:
    """Checks that a node has what a run needs, and that each such node has the paths."""
    import ray
    from ray.exceptions import RayError, RayTaskError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    fitting = {
        key: node["NodeManagerHostname"]
        for key, node in nodes.items()
        if all(node["Resources"].get(name, 0) >= amount for name, amount in needed.items())
    }
    if not fitting:
        found = [_words({name: node["Resources"].get(name, 0) for name in needed}) for node in nodes.values()]
        raise UserError(
            f"sweep.resources asks for {_words(needed)} of one node; the nodes of the Ray cluster have "
            f"{'; '.join(sorted(found))}"
        )
    has = {name for key in fitting for name, amount in nodes[key]["Resources"].items() if amount}
    for name in sorted({"GPU", "TPU"} & has - needed.keys()):
        _print(f"warning: nodes have {name}s, and sweep.resources asks for none: no run gets one of its own")
    probes = {
        key: ray.remote(processes.missing)
        .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(key, soft=False))
        .remote(paths)
        for key in fitting
    }
    for key, probe in probes.items():
        try:
            missing = ray.get(probe, timeout=processes.PATIENCE)
        except RayTaskError as error:
            raise UserError(f"{fitting[key]} cannot run jaxrw: {_reason(error)}") from error
        except RayError:  # The node died, or is too busy to say.
            continue
        if missing:
            raise UserError(
                f"{fitting[key]} has no {missing[0]}; all nodes need the same directories and files"
            )


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Makes SIGTERM raise `Stopped`, as KeyboardInterrupt up to here: Ray's calls let no other exception pass."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        received.append(number)
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt as error:
        if not received:
            raise
        raise Stopped(f"stopped by SIGTERM{preemption.HINT}") from error
    finally:
        signal.signal(signal.SIGTERM, previous)


def _checked(resources: Mapping[str, Any]) -> dict[str, float]:
    """Returns the resources that are not 0."""
    needed = {name: amount for name, amount in resources.items() if amount != 0}
    if not needed or not all(isinstance(amount, int | float) and amount > 0 for amount in needed.values()):
        raise UserError(
            f"sweep.resources is {dict(resources)}; must be what a run needs of one node, as {{'CPU': 1}}"
        )
    return needed


def _words(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in resources.items())


def _reason(error: Exception) -> str:
    """Returns the first line of an error, or of the error that a task of Ray ended with."""
    cause = getattr(error, "cause", None) or error
    lines = str(cause).strip().splitlines()
    return f"{type(cause).__name__}: {lines[0]}" if lines else type(cause).__name__


def _print(line: str, file: TextIO | None = None) -> None:
    print(line, file=file, flush=True)
