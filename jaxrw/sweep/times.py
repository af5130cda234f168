"""How long the runs of a sweep take, estimated from those that are finished."""

import collections
import contextlib
import pathlib
import statistics

from jaxrw.attacks import suite
from jaxrw.runs.checks import is_seconds
from jaxrw.runs.results import Results
from jaxrw.sweep.plan import Run

# Runs of one kind take about the same time: their config file, and which of their epochs they train.
Kind = tuple[pathlib.Path, str]
_ALL_EPOCHS, _AFTER_WARMUP, _NO_EPOCHS = "all", "after the warm-up", "none"


def kind_of(item: Run) -> Kind:
    """Returns which runs take about as long as this one."""
    is_trained = (item.workdir / "results.json").exists()  # It is written after the training.
    if is_trained or any(flag.startswith("--mode=") for flag in item.own_flags):
        return item.file, _NO_EPOCHS
    return item.file, _ALL_EPOCHS if item.warmup_from in (None, item.workdir) else _AFTER_WARMUP


def estimate_seconds(done: dict[Run, Results]) -> dict[Kind, list[float]]:
    """Returns the seconds that finished runs have taken, by kind of run.

    Of the evaluation only AutoAttack counts, which takes by far the longest. Runs that only evaluate get no estimate,
    because results do not say which of their attacks had been measured before.
    """
    estimated = collections.defaultdict(list)
    for item, results in done.items():
        seconds, epochs = results.get("train_seconds"), _ALL_EPOCHS
        if not is_seconds(seconds):
            continue
        if results.get("warmup_from"):  # `train_seconds` includes the warm-up that was reused.
            epochs = _AFTER_WARMUP
            seconds *= 1 - item.config.method.warmup_epochs / item.config.optim.num_epochs
        seconds += sum(
            _autoattack_seconds(results, column.details)
            for column in map(suite.ATTACKS.__getitem__, item.config.evaluation.attacks)
            if column.measured is suite.Measured.AUTOATTACK
        )
        estimated[item.file, epochs].append(seconds)
    return estimated


def seconds_left(waiting: list[Run], known: dict[Kind, list[float]]) -> float | None:
    """Returns how long the waiting runs will take, or None if that is unknown.

    Args:
      waiting: runs.
      known: seconds that runs of each kind take. A kind that is missing takes as long as runs of other config files
        that train the same epochs.
    """
    means = {kind: statistics.mean(seconds) for kind, seconds in known.items()}
    left = 0.0
    for file, epochs in (kind_of(item) for item in waiting):
        similar = [mean for (_, other), mean in means.items() if other == epochs]
        if not similar:
            return None
        left += means.get((file, epochs), statistics.mean(similar))
    return left


def _autoattack_seconds(results: Results, details: str | None) -> float:
    """Returns the seconds, at least 0, of an AutoAttack, which attacks a step once even if it is both last and best."""
    by_step = {
        checkpoint.get("step"): checkpoint for checkpoint in results["checkpoints"].values() if checkpoint
    }
    seconds = 0.0
    for checkpoint in by_step.values():
        with contextlib.suppress(KeyError, TypeError, AttributeError):  # It has not run, or is damaged.
            seconds += sum(filter(is_seconds, checkpoint[details]["seconds"].values()))
    return seconds
