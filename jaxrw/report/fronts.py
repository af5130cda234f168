"""Pictures of each setting: AutoAttack's accuracy against PGD-100's and the clean one, a point for each method.

Its first two attacks take its place where more runs have them.
"""

import math
import pathlib
import re
import statistics
from collections.abc import Iterable, Sequence

from jaxrw.attacks.suite import ATTACKS, AUTOATTACK
from jaxrw.figures import front, style
from jaxrw.report.evidence.comparisons import MIN_SEEDS, student_quantile
from jaxrw.report.evidence.groups import Setting
from jaxrw.report.evidence.tables import reasons_to_leave_out

# Horizontal axes.
_ACROSS = ("pgd100", "clean")
# Vertical axes, with their titles; the first one that as many runs have as any.
_UP = {AUTOATTACK: "AutoAttack", "apgd_t": ATTACKS["apgd_t"].title}
# Fewer points are no front.
_MIN_POINTS = 2


def draw_fronts(settings: Sequence[Setting], directory: pathlib.Path) -> list[dict[str, pathlib.Path]]:
    """Writes front.png and front.svg of the first setting, front-2 of the second, with -best for best checkpoints.

    Args:
      settings: in the order of the report.
      directory: is created if a picture is written to it.

    Returns:
      The PNG files of each setting by their captions; none without two methods under both attacks of a panel.
    """
    drawn = []
    for number, setting in enumerate(settings, start=1):
        pictures, left_out = {}, reasons_to_leave_out(setting)
        for checkpoint in (name for name in setting.checkpoints if name not in left_out):
            up = max(_UP, key=lambda attack: _num_runs(setting, checkpoint, attack))
            panels = {
                ATTACKS[attack].title: find_points(setting, checkpoint, attack, up) for attack in _ACROSS
            }
            panels = {title: points for title, points in panels.items() if len(points) >= _MIN_POINTS}
            if not panels:
                continue
            parts = [
                "front",
                *([str(number)] if number > 1 else []),
                *([checkpoint] * (checkpoint != "last")),
            ]
            path = directory / "-".join(parts)
            directory.mkdir(parents=True, exist_ok=True)
            with style.style():
                figure = front.draw_front(panels, up=_UP[up], diagonal=ATTACKS[_ACROSS[0]].title)
                style.save(figure, path, few_colors=True)  # It is kept with the runs.
            pictures[_caption(setting, checkpoint, panels, _UP[up])] = path.with_suffix(".png")
        drawn.append(pictures)
    current = {path.stem for pictures in drawn for path in pictures.values()}
    for path in directory.glob("front*.*"):  # Of an earlier report.
        if re.fullmatch(r"front(-\d+)?(-best)?", path.stem) and path.stem not in current:
            path.unlink()
    return drawn


def _num_runs(setting: Setting, checkpoint: str, attack: str) -> int:
    return sum(len(group.accuracies(checkpoint, attack)) for group in setting.groups)


def _caption(setting: Setting, checkpoint: str, panels: Iterable[str], up: str) -> str:
    return (
        f"Accuracy under {up} against {' and '.join(title for title in panels)}, {checkpoint} checkpoint, "
        f"{setting.images}: mean over the seeds, with its 95 % interval by Student's t from "
        f"{MIN_SEEDS} seeds on. Grey joins the methods that no other one passes in both"
    )


def find_points(setting: Setting, checkpoint: str, across: str, up: str) -> list[front.Point]:
    """Returns a point for each group that was evaluated under both attacks."""
    points = []
    for group in setting.groups:
        accuracies = [group.accuracies(checkpoint, name) for name in (across, up)]
        seeds = accuracies[0].keys() & accuracies[1].keys()
        if seeds:
            estimates = [_estimate([values[seed] for seed in sorted(seeds)]) for values in accuracies]
            points.append(front.Point(setting.label(group), *estimates))
    return points


def _estimate(values: Sequence[float]) -> front.Estimate:
    """Returns the mean, and half of its interval over the seeds by Student's t if there are enough."""
    number = len(values)
    if number < MIN_SEEDS:
        return front.Estimate(statistics.fmean(values))
    half = student_quantile(number - 1) * statistics.stdev(values) / math.sqrt(number)
    return front.Estimate(statistics.fmean(values), half)
