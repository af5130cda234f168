"""Runs that differ by nothing but their seed, and what they have in common."""

import dataclasses
import json
import statistics

from jaxrw.methods import METHODS
from jaxrw.networks import ARCHITECTURES
from jaxrw.report import published
from jaxrw.report.collect import Problem
from jaxrw.runs.results import CHECKPOINTS

DATASETS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs of one method with the same constants, by seed."""

    method: str
    constants: dict  # fields of `method` without its name
    runs: dict  # seed -> Run

    def values(self, checkpoint, attack):
        """Accuracies in percent by seed, of the runs that have one."""
        found = {seed: run.checkpoints.get(checkpoint) for seed, run in self.runs.items()}
        found = {seed: c["accuracy"][attack] for seed, c in found.items() if c}
        return {seed: value for seed, value in found.items() if value is not None}

    @property
    def warmup(self):
        """Length of the warm-up in epochs, None for a method without one."""
        return self.constants.get("warmup_epochs")

    @property
    def name(self):
        """The method's name as tables have it."""
        return METHODS[self.method].title

    def epochs(self, checkpoint):
        """0-based epochs of a checkpoint by seed, of the runs that have one."""
        return {
            seed: run.checkpoints[checkpoint]["epoch"]
            for seed, run in self.runs.items()
            if checkpoint in run.checkpoints
        }

    def from_warmup(self, checkpoint):
        """Seeds whose checkpoint is of the warm-up, where the method has not begun."""
        epochs = self.epochs(checkpoint)
        return {seed for seed, epoch in epochs.items() if self.warmup is not None and epoch < self.warmup}

    def is_papers(self, *, tau, **changed):
        """Whether its constants are the paper's but for `tau` and `changed`; the warm-up belongs to the schedule."""
        wanted = published.CONSTANTS | {"tau": tau} | changed
        return all(value == wanted[name] for name, value in self.constants.items() if name in wanted)


@dataclasses.dataclass(frozen=True)
class Setting:
    """Groups that share all but the method: what a table may compare."""

    config: dict  # flat, of one of its runs
    num_examples: int
    groups: list[Group]

    @property
    def seeds(self):
        """Seeds that any of its groups has."""
        return sorted({seed for group in self.groups for seed in group.runs})

    @property
    def warmups(self):
        """Lengths of the warm-up, in epochs, that its groups have."""
        return {group.warmup for group in self.groups if group.warmup is not None}

    @property
    def network(self):
        """The network's name with the depth and width that it really has."""
        name, depth, width = (self.config.get(f"model.{field}") for field in ("name", "depth", "width"))
        # A later version may have written results of a network that this one does not know.
        return ARCHITECTURES[name].label(depth, width) if name in ARCHITECTURES else name

    @property
    def dataset(self):
        """The data set's name as tables have it."""
        return DATASETS.get(self.config["dataset.name"], self.config["dataset.name"])

    def label(self, group):
        """The method's name and whatever of its constants is not the paper's."""
        usual = published.CONSTANTS | {
            "tau": published.tau(self.config["dataset.name"], self.config["model.name"])
        }
        words = [
            _words(name, value)
            for name, value in group.constants.items()
            if (len(self.warmups) > 1 if name == "warmup_epochs" else value != usual.get(name))
        ]
        return ", ".join([group.name, *words])


def group(runs, problems):
    """Settings with their groups, most runs first; adds to `problems` what could be taken for one setting."""
    settings = {}
    for run in runs:
        sizes = {checkpoint["num_examples"] for checkpoint in run.checkpoints.values()}
        if len(sizes) > 1:
            problems.append(
                Problem(run.path, f"left out: its checkpoints were evaluated on {sorted(sizes)} images")
            )
            continue
        key = json.dumps([run.setting, *sizes], sort_keys=True)
        settings.setdefault(key, []).append(run)
    made = [_setting(found) for found in settings.values()]
    made.sort(key=lambda setting: -sum(len(g.runs) for g in setting.groups))
    problems += _similar(made)
    return made


def _setting(runs):
    """Runs of one setting, grouped by their method's constants."""
    groups = {}
    for run in runs:
        constants = run.constants
        key = run.config["method.name"], json.dumps(constants, sort_keys=True)
        groups.setdefault(key, Group(run.config["method.name"], constants, {})).runs[run.config["seed"]] = run
    order = list(METHODS)
    found = sorted(
        groups.values(),
        key=lambda g: (order.index(g.method), json.dumps(g.constants, sort_keys=True)),
    )
    first = next(iter(runs[0].checkpoints.values()))
    return Setting(runs[0].config, first["num_examples"], found)


def _words(name, value):
    """A constant as a label has it."""
    if name == "similarity":
        return "with similarity" if value else "without similarity"
    return (
        f"{name} {value:g}"
        if isinstance(value, int | float) and not isinstance(value, bool)
        else f"{name} {value}"
    )


def _similar(settings):
    """Problems of settings with the same data set and network, which a reader might take for one."""
    problems = []
    for number, setting in enumerate(settings):
        for other in settings[:number]:
            runs = [next(iter(s.groups[0].runs.values())) for s in (other, setting)]
            first, second = (
                run.setting | {"test images": s.num_examples}
                for run, s in zip(runs, (other, setting), strict=True)
            )
            if any(first[name] != second[name] for name in ("dataset.name", "model.name")):
                continue
            fields = [
                f"{field} ({first.get(field)} and {second.get(field)})"
                for field in sorted(first.keys() | second.keys())
                if first.get(field) != second.get(field)
            ]
            words = f"conflicts with {runs[0].path} in {', '.join(fields)}: they are kept apart"
            problems.append(Problem(runs[1].path, words))
    return problems


def seed_words(seeds):
    """Seeds as a sentence names them."""
    return f"seed{'' if len(seeds) == 1 else 's'} {', '.join(map(str, seeds))}"


def mean_and_deviation(values):
    """Mean and sample deviation (n - 1) of numbers; the deviation of one number is None."""
    values = list(values)
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def checkpoints_of(setting):
    """Checkpoints that any of its runs has, last before best."""
    found = {name for group in setting.groups for run in group.runs.values() for name in run.checkpoints}
    return [name for name in CHECKPOINTS if name in found]
