"""A setting with all that the report says of it: tables, trends, Figure 4's r, and pictures of its runs."""

import dataclasses
import json
import math

from jaxrw import figures
from jaxrw.report import published, tables, training, trends
from jaxrw.report.groups import mean_and_deviation


@dataclasses.dataclass(frozen=True)
class Section:
    """A setting with all that is said of it."""

    title: str
    setting: object
    differences: dict  # `published.differences`; None where the paper has nothing to compare
    tables: list
    trends: list
    correlations: list  # (label, checkpoint, r of clean images, r under attack, number of runs)
    training: list
    circumstances: list  # (machine and versions, number of runs)
    num_shared_warmups: int
    pictures: list  # (label, run's path, {figure's name: path of its PNG})


def create(setting, workdir):
    """All that is said of a setting."""
    made = tables.create(setting)
    return Section(
        title=f"{setting.network} on {setting.dataset}",
        setting=setting,
        differences=_differences(setting),
        tables=made,
        trends=trends.create(made, setting),
        correlations=_correlations(setting, workdir),
        training=training.create(setting, workdir),
        circumstances=training.circumstances(setting),
        num_shared_warmups=training.shared_warmups(setting),
        pictures=_pictures(setting, workdir),
    )


def _differences(setting):
    """Fields that differ from the paper's; None where it has no table of the data set and network."""
    config = setting.config
    if not published.blocks(config["dataset.name"], config["model.name"]):
        return None
    # Several lengths of the warm-up stand in the rows' labels.
    config = {name: value for name, value in config.items() if name != "method.warmup_epochs"}
    if len(setting.warmups) == 1:
        config["method.warmup_epochs"] = min(setting.warmups)
    return published.differences(config, setting.num_examples)


def _correlations(setting, workdir):
    """Figure 4's r of every group, the mean over its runs."""
    rows = []
    for group_ in setting.groups:
        found = {}
        for run in group_.runs.values():
            facts = _facts(workdir / run.path)
            if facts:
                found.setdefault(facts["name"], []).append((facts["r"]["clean"], facts["r"]["adversarial"]))
        for name, values in found.items():
            means = [mean_and_deviation(kind)[0] for kind in zip(*values, strict=True)]
            rows.append((setting.label(group_), name, *means, len(values)))
    return rows


def _facts(path):
    """What a run's figures have kept, None where that is not there or not as it was written."""
    try:
        facts = json.loads((path / "figures" / "data.json").read_text())
        numbers = [facts["r"]["clean"], facts["r"]["adversarial"]]
        usable = isinstance(facts["name"], str) and all(math.isfinite(number) for number in numbers)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return facts if usable else None


def _pictures(setting, workdir):
    """Figures of the first run of each group that has some."""
    chosen = []
    for group_ in setting.groups:
        for _, run in sorted(group_.runs.items()):
            found = {name: path for name, path in figures.of_run(workdir / run.path).items() if _is_png(path)}
            if found:
                chosen.append((f"{setting.label(group_)}, seed {run.config['seed']}", run.path, found))
                break
    return chosen


def _is_png(path):
    """Whether a file begins as a PNG does, and can be read."""
    try:
        with path.open("rb") as file:
            return file.read(8) == b"\x89PNG\r\n\x1a\n"
    except OSError:
        return False
