"""What the benchmarks share: flags, turns on the clock, tables, and results as JSON with their circumstances."""

import argparse
import datetime
import importlib.metadata
import json
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jaxrw.runs.machine import machine

RESULTS = pathlib.Path(__file__).parent / "results"

# A function that returns when its work is done, by the name of who does it.
Contenders = Mapping[str, Callable[[], object]]
Seconds = dict[str, list[float]]


def parse(
    description: str | None,
    arguments: Sequence[str] | None,
    *,
    choices: Mapping[str, Iterable[str]] | None = None,
    **defaults: Any,
) -> argparse.Namespace:
    """Parses one flag for each keyword: `no_torch=False` gives `--no-torch`.

    Args:
      description: printed by `--help`.
      arguments: the command line's words; None: those of this process.
      choices: what a flag accepts, by its keyword.
      **defaults: the type of a default is that of the flag. False: the flag takes no value. A tuple: it takes several
        values. A type: it is required. A list of a type: it takes several values and has none by default.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in defaults.items():
        flag = f"--{name.replace('_', '-')}"
        options: dict[str, Any] = {"choices": (choices or {}).get(name)}
        if default is False:
            options = {"action": "store_true"}
        elif isinstance(default, type):
            options |= {"type": default, "required": True}
        elif isinstance(default, list):
            options |= {"type": default[0], "nargs": "*", "default": []}
        elif isinstance(default, tuple):
            options |= {"type": type(default[0]), "nargs": "*", "default": default}
        else:
            options |= {"type": type(default), "default": default}
        parser.add_argument(flag, **options)
    return parser.parse_args(arguments)


def alternate(contenders: Contenders, *, repeats: int) -> Seconds:
    """Times contenders that take turns, so that a busy moment meets all of them.

    Args:
      contenders: what is timed.
      repeats: number of rounds, at least 1, after one that does not count.

    Returns:
      {name: [seconds of each round]}.
    """
    for function in contenders.values():
        function()
    seconds: Seconds = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, function in contenders.items():
            began = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def ratio(seconds: list[float], peer_seconds: list[float]) -> tuple[float, float, float]:
    """Returns the median of the rounds' ratios, the smallest and the largest."""
    ratios = [ours / theirs for ours, theirs in zip(seconds, peer_seconds, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def comparison(measured: Iterable[Mapping[str, Any]]) -> str:
    """Returns a table of jaxrw and its fastest peer.

    Args:
      measured: {..., "seconds": what `alternate` returned}, one mapping a row.
    """
    rows = []
    for entry in measured:
        row = dict(entry)
        seconds = dict(row.pop("seconds"))
        ours = seconds.pop("jaxrw")
        peer = min(seconds, key=lambda name: statistics.median(seconds[name]), default="")
        row |= {"jaxrw": _median(ours), "peer": peer, "peer's": "", "ratio": ""}
        if peer:
            row["peer's"] = _median(seconds[peer])
            row["ratio"] = "{:.2f} ({:.2f} to {:.2f})".format(*ratio(ours, seconds[peer]))
        rows.append(row)
    return f"{table(rows)}\nseconds: median +- half the range; ratio: median of the rounds' (smallest to largest)"


def _median(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.3f} +-{(max(seconds) - min(seconds)) / 2:.3f}"


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Returns rows that have the same keys as a table in Markdown."""
    cells = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def write(name: str, measured: object, *, arguments: argparse.Namespace) -> pathlib.Path:
    """Writes a result that JSON can hold, with flags, versions and machine; returns the path of the new file."""
    RESULTS.mkdir(exist_ok=True)
    now = datetime.datetime.now()
    path = RESULTS / f"{name}-{now:%Y%m%d-%H%M%S}.json"
    packages = ("jaxrw", "jax", "jaxlib", "flax", "numpy", "torch", "libtpu")
    content = {
        "benchmark": name,
        "arguments": vars(arguments),
        "time": now.isoformat(timespec="seconds"),
        "versions": {
            package.name: package.version
            for package in importlib.metadata.distributions()
            if package.name in packages
        },
        "machine": machine() | {"load": os.getloadavg()},
        "measured": measured,
    }
    path.write_text(json.dumps(content, indent=2, default=str) + "\n")
    return path
