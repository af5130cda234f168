"""How the runs of a setting were trained: accuracies, weights, time and machines."""

import collections
import dataclasses
import pathlib
import statistics
from collections.abc import Iterable

from jaxrw import runs
from jaxrw.report.evidence.collect import Run
from jaxrw.report.evidence.groups import Setting
from jaxrw.runs.checks import is_number
from jaxrw.runs.results import Results
from jaxrw.runs.writers import Line


@dataclasses.dataclass(frozen=True)
class TrainingSummary:
    """Training of one run, or means over the runs of a group; None: not known.

    Attributes:
      warmup_accuracy: training accuracy under attack in percent, in the last epoch of the warm-up.
      accuracy: the same in the last epoch.
      weight: mean weight in the epochs after the warm-up.
      loss: weighted loss after the warm-up, the mean of its epochs by their learning rate: how much they still change.
      light: share of the weights below `step.LIGHT` in these epochs, in percent.
      minutes: duration of the training with its warm-up, even if that was trained by another run.
    """

    warmup_accuracy: float | None
    accuracy: float | None
    weight: float | None
    loss: float | None
    light: float | None
    minutes: float | None


def summarize_training(setting: Setting, workdir: pathlib.Path) -> list[tuple[str, TrainingSummary, int]]:
    """Returns (label, means, number of runs) of each group whose runs have kept their metrics."""
    rows = []
    for group in setting.groups:
        summaries = [s for run in group.runs.values() if (s := _summarize_run(run, workdir))]
        if summaries:
            columns = zip(*map(dataclasses.astuple, summaries), strict=True)
            means = TrainingSummary(*map(_mean, columns))
            rows.append((setting.label(group), means, len(summaries)))
    return rows


def _summarize_run(run: Run, workdir: pathlib.Path) -> TrainingSummary | None:
    names = ("accuracy", "mean_weight", "light_share", "seconds")
    lines = [
        line
        for line in runs.read_metrics(workdir / run.path)
        if line["kind"] == "train" and all(is_number(line.get(name)) for name in names)
    ]
    if not lines:
        return None
    length = run.config.get("method.warmup_epochs")
    warmup = [line for line in lines if is_number(length) and line["epoch"] < length]
    after = lines[len(warmup) :]
    return TrainingSummary(
        warmup_accuracy=warmup[-1]["accuracy"] if warmup else None,
        accuracy=lines[-1]["accuracy"],
        weight=_mean(line["mean_weight"] for line in after),
        loss=_mean_loss(after),
        light=_mean(100 * line["light_share"] for line in after),
        minutes=sum(line["seconds"] for line in lines) / 60,
    )


def _mean_loss(lines: Iterable[Line]) -> float | None:
    """Returns the mean loss of epochs by their learning rate; None if lines of an earlier version lack one of them."""
    pairs = [(line.get("loss"), line.get("learning_rate")) for line in lines]
    if not pairs or not all(is_number(value) for pair in pairs for value in pair):
        return None
    losses, rates = zip(*pairs, strict=True)
    return statistics.fmean(losses, rates) if sum(rates) > 0 else None


def _mean(values: Iterable[float | None]) -> float | None:
    """Returns the mean of the known values."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def count_machines(setting: Setting) -> list[tuple[str, int]]:
    """Returns (machine and versions, number of runs), as far as results.json holds them."""
    machines = collections.Counter(_describe_machine(run.content) for run in setting.runs)
    return sorted((machine, number) for machine, number in machines.items() if machine)


def _describe_machine(content: Results) -> str | None:
    try:
        machine, versions = content["machine"], content["versions"]
        words = f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, JAX {versions['jax']}"
    except (KeyError, TypeError):
        return None
    return " ".join(words.split())[:200]


def count_shared_warmups(setting: Setting) -> int:
    """Returns the number of runs that began with the warm-up of another run."""
    return sum(isinstance(run.content.get("warmup_from"), str) for run in setting.runs)
