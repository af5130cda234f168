"""How the runs of a setting were made: on what machines, for how long, and what their training looked like."""

import dataclasses
import statistics

from jaxrw import runs
from jaxrw.runs.checks import is_number


@dataclasses.dataclass(frozen=True)
class Training:
    """Means over the runs of a group; None where nothing is known."""

    label: str
    warm: float | None  # training accuracy under attack in percent, in the last epoch of the warm-up
    last: float | None  # and in the last epoch
    weight: float | None  # mean weight in the epochs after the warm-up
    light: float | None  # share of the weights below 0.05 in them, in percent
    minutes: float | None  # of training, the warm-up included, wherever it was done
    number: int  # of runs


def create(setting, workdir):
    """A `Training` for each group whose runs have kept their metrics."""
    made = []
    for group in setting.groups:
        found = [facts for run in group.runs.values() if (facts := _facts(run, workdir))]
        if found:
            means = [_mean(values) for values in zip(*found, strict=True)]
            made.append(Training(setting.label(group), *means, len(found)))
    return made


def circumstances(setting):
    """[(machine and versions as results.json tells of them, number of runs)]."""
    told = {}
    for group in setting.groups:
        for run in group.runs.values():
            told.setdefault(_machine(run.content), []).append(run)
    return sorted((words, len(some)) for words, some in told.items() if words)


def shared_warmups(setting):
    """How many runs began with the warm-up of another, which is the same for every method."""
    found = [run.content.get("warmup_from") for group in setting.groups for run in group.runs.values()]
    return sum(isinstance(source, str) for source in found)


def _facts(run, workdir):
    """(accuracy when warm, at the end, mean weight, light share, minutes) of a run; None without metrics."""
    lines = [line for line in runs.read_metrics(workdir / run.path) if line["kind"] == "train"]
    names = ("accuracy", "mean_weight", "light_share", "seconds")
    lines = [line for line in lines if all(is_number(line.get(name)) for name in names)]
    if not lines:
        return None
    length = run.config.get("method.warmup_epochs")
    warm = [line for line in lines if is_number(length) and line["epoch"] < length]
    after = lines[len(warm) :]
    return (
        warm[-1]["accuracy"] if warm else None,
        lines[-1]["accuracy"],
        _mean([line["mean_weight"] for line in after]),
        _mean([100 * line["light_share"] for line in after]),
        sum(line["seconds"] for line in lines) / 60,
    )


def _mean(values):
    """Mean of those that are known; None where none is."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _machine(content):
    """Where a run was evaluated last, in words; None where its results do not tell."""
    try:
        machine, versions = content["machine"], content["versions"]
        words = f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, JAX {versions['jax']}"
    except (KeyError, TypeError):
        return None
    return " ".join(words.split())[:200]
