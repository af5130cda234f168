"""What the benchmarks share: taking turns on the clock, tables of medians, results as JSON with their circumstances."""

import datetime
import importlib.metadata
import json
import os
import pathlib
import statistics
import time

from jaxrw.runs.machine import machine

RESULTS = pathlib.Path(__file__).parent / "results"

_PACKAGES = ("jaxrw", "jax", "jaxlib", "flax", "numpy", "torch")


def alternate(contenders, *, repeats):
    """Seconds of every run of each contender, which take turns so that a busy moment meets them all.

    Args:
      contenders: {name: function without arguments that returns when its work is done}.
      repeats: rounds, at least 1, after one that is not counted.

    Returns:
      {name: [seconds of each round]}.
    """
    for function in contenders.values():
        function()
    seconds = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, function in contenders.items():
            began = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def ratio(seconds, peer_seconds):
    """Median of the rounds' ratios, and their least and largest: two lists of seconds -> (median, least, largest)."""
    ratios = [ours / theirs for ours, theirs in zip(seconds, peer_seconds, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def median(seconds):
    """Median and half the distance from the least to the largest, in seconds, as `1.234 +-0.05`."""
    return f"{statistics.median(seconds):.3f} +-{(max(seconds) - min(seconds)) / 2:.3f}"


def comparison(measured):
    """Table of entries {..., "seconds": {contender: [seconds]}}: jaxrw, the fastest of the others, their ratio."""
    lines = [_comparison_row(dict(entry)) for entry in measured]
    return (
        f"{table(lines)}\nseconds: median +- half the range; ratio: median of the rounds' (least to largest)"
    )


def _comparison_row(entry):
    """A line of `comparison`."""
    seconds = entry.pop("seconds")
    ours = seconds["jaxrw"]
    peers = {name: values for name, values in seconds.items() if name != "jaxrw"}
    peer = min(peers, key=lambda name: statistics.median(peers[name]), default=None)
    row = entry | {"jaxrw": median(ours), "peer": peer or "", "peer's": "", "ratio": ""}
    if peer:
        row["peer's"] = median(peers[peer])
        row["ratio"] = "{:.2f} ({:.2f} to {:.2f})".format(*ratio(ours, peers[peer]))
    return row


def table(rows):
    """Rows, dicts with the same keys, as a table in Markdown."""
    cells = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def write(name, measured, *, arguments):
    """Write what was measured, anything that JSON can hold, with versions and machine; returns the new file's path."""
    RESULTS.mkdir(exist_ok=True)
    now = datetime.datetime.now()
    path = RESULTS / f"{name}-{now:%Y%m%d-%H%M%S}.json"
    content = {
        "benchmark": name,
        "arguments": vars(arguments),
        "time": now.isoformat(timespec="seconds"),
        "versions": {package: _version(package) for package in _PACKAGES},
        "machine": machine() | {"load": os.getloadavg()},
        "measured": measured,
    }
    path.write_text(json.dumps(content, indent=2, default=str) + "\n")
    return path


def _version(package):
    """Installed version, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
