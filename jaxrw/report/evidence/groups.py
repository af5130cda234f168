"""Settings and groups: runs that tables may compare, and runs that differ in their seed alone."""

import dataclasses
import json
import pathlib
from collections.abc import Iterable
from typing import Any

from jaxrw.methods import METHODS, Method
from jaxrw.networks import ARCHITECTURES
from jaxrw.report.evidence import published
from jaxrw.report.evidence.collect import Problem, Run
from jaxrw.runs.checks import is_number
from jaxrw.runs.results import CHECKPOINTS

DATASETS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs of one method with the same constants.

    Attributes:
      method: the method; without a weight if only a config file that is not here knows it.
      title: of the method and what it weighs.
      constants: fields of `config.method` on which the method depends.
      recipe: fields in which it goes beyond the paper; empty for the paper's.
      runs: by seed.
      code: digest of the code of a method of one's own; None: a shipped method.
    """

    method: Method
    title: str
    constants: dict[str, Any]
    recipe: dict[str, Any]
    runs: dict[int, Run]
    code: str | None = None

    @property
    def warmup(self) -> int | None:
        """Length of the warm-up in epochs; None for a method without one."""
        return self.constants.get("warmup_epochs")

    def accuracies(self, checkpoint: str, attack: str) -> dict[int, float]:
        """Returns accuracies in percent by seed, without the runs that lack it."""
        values = {
            seed: run.checkpoints[checkpoint]["accuracy"][attack]
            for seed, run in self.runs.items()
            if checkpoint in run.checkpoints
        }
        return {seed: value for seed, value in values.items() if value is not None}

    def correct(self, checkpoint: str, attack: str) -> dict[int, str]:
        """Returns which images are correct by seed, see `jaxrw.runs.packed`, without the runs that lack it."""
        return {
            seed: run.checkpoints[checkpoint]["correct"][attack]
            for seed, run in self.runs.items()
            if checkpoint in run.checkpoints and attack in run.checkpoints[checkpoint]["correct"]
        }

    def epochs(self, checkpoint: str) -> dict[int, int]:
        """Returns the 0-based epochs of a checkpoint by seed, without the runs that lack it."""
        return {
            seed: run.checkpoints[checkpoint]["epoch"]
            for seed, run in self.runs.items()
            if checkpoint in run.checkpoints
        }

    def warmup_seeds(self, checkpoint: str) -> list[int]:
        """Returns the seeds whose checkpoint is of the warm-up, before the method begins."""
        return sorted(seed for seed, epoch in self.epochs(checkpoint).items() if epoch < (self.warmup or 0))

    def fits(self, constants: dict[str, Any]) -> bool:
        """Returns whether it is of the paper with these constants; those that are not named may have any value."""
        return not self.recipe and all(
            value == constants[name] for name, value in self.constants.items() if name in constants
        )


@dataclasses.dataclass(frozen=True)
class Setting:
    """Groups that share all but the method.

    Attributes:
      config: flat, of one of its runs.
      num_examples: number of test images.
      groups: in the order of tables.
    """

    config: dict[str, Any]
    num_examples: int
    groups: list[Group]

    @property
    def runs(self) -> list[Run]:
        """Runs of all groups."""
        return [run for group in self.groups for run in group.runs.values()]

    @property
    def seeds(self) -> list[int]:
        """Seeds of all groups."""
        return sorted({seed for group in self.groups for seed in group.runs})

    @property
    def checkpoints(self) -> list[str]:
        """Checkpoints that any run has, last before best."""
        return [name for name in CHECKPOINTS if any(name in run.checkpoints for run in self.runs)]

    @property
    def warmups(self) -> set[int]:
        """Lengths of the warm-up of its groups, in epochs."""
        return {group.warmup for group in self.groups if group.warmup is not None}

    @property
    def dataset(self) -> str:
        """Title of the data set, for a folder with its name."""
        name, data_dir = self.config["dataset.name"], self.config.get("dataset.data_dir")
        if name == "folder" and isinstance(data_dir, str):
            return f"the folder {pathlib.PurePath(data_dir).name}"
        return DATASETS.get(name, name)

    @property
    def images(self) -> str:
        """Number and kind of the images of all accuracies, as "1,000 test images"."""
        return f"{self.num_examples:,} {self.config['dataset.test_split']} images"

    @property
    def data(self) -> str | None:
        """Its images in words; None: unknown."""
        return self.runs[0].data

    @property
    def network(self) -> str:
        """Title of the network with its actual depth, width and options."""
        name, depth, width = (self.config.get(f"model.{field}") for field in ("name", "depth", "width"))
        # A later version may have written results of a network that this one does not know.
        if name not in ARCHITECTURES:
            return str(name)
        architecture = ARCHITECTURES[name]
        options = {field: self.config.get(f"model.{field}") for field in architecture.options}
        return architecture.label(depth, width, **options)

    @property
    def title(self) -> str:
        """Network and data set."""
        return f"{self.network} on {self.dataset}"

    @property
    def published_blocks(self) -> list[published.Block]:
        """Blocks of the paper's tables for its data set and network."""
        return published.blocks(self.config["dataset.name"], self.config["model.name"])

    @property
    def published_constants(self) -> dict[str, Any]:
        """The paper's constants for its data set and network."""
        return published.constants(self.config["dataset.name"], self.config["model.name"])

    def label(self, group: Group) -> str:
        """Returns the method's title and those of its constants that are not the paper's."""
        usual = self.published_constants
        words = [
            _describe_constant(name, value)
            for name, value in group.constants.items()
            if (len(self.warmups) > 1 if name == "warmup_epochs" else value != usual.get(name))
        ]
        words += [_describe_constant(*item) for item in group.recipe.items() if item[0] != "objective"]
        if len({other.code for other in self.groups if other.method.name == group.method.name}) > 1:
            words.append(f"code {group.code}")
        return ", ".join([group.title, *words])


def _describe_constant(name: str, value: object) -> str:
    if name == "similarity":
        return "with similarity" if value else "without similarity"
    return f"{name} {value:g}" if is_number(value) else f"{name} {value}"


def group_runs(runs: Iterable[Run], problems: list[Problem]) -> list[Setting]:
    """Returns the settings of all runs, most runs first; appends settings that look alike to `problems`."""
    by_setting: dict[str, list[Run]] = {}
    for run in runs:
        sizes = {checkpoint["num_examples"] for checkpoint in run.checkpoints.values()}
        if len(sizes) > 1:
            words = f"left out: its checkpoints were evaluated on {sorted(sizes)} images"
            problems.append(Problem(run.path, words))
            continue
        by_setting.setdefault(json.dumps([run.setting, *sizes], sort_keys=True), []).append(run)
    settings = [_create_setting(members) for members in by_setting.values()]
    settings.sort(key=lambda setting: -len(setting.runs))
    problems += _conflicts(settings)
    return settings


def _create_setting(runs: list[Run]) -> Setting:
    order = {name: number for number, name in enumerate(METHODS)}
    groups: dict[tuple[str, int, str, str, str], Group] = {}
    for run in runs:
        name = run.method.name
        # First the paper's, whose recipe is empty.
        recipe, constants = (json.dumps(fields, sort_keys=True) for fields in (run.recipe, run.constants))
        place = order.get(name, len(order)), name
        key = recipe if run.recipe else "", *place, constants, run.code or ""
        group = groups.setdefault(key, Group(run.method, run.title, run.constants, run.recipe, {}, run.code))
        group.runs[run.config["seed"]] = run
    num_examples = next(iter(runs[0].checkpoints.values()))["num_examples"]
    return Setting(runs[0].config, num_examples, [groups[key] for key in sorted(groups)])


def _conflicts(settings: list[Setting]) -> list[Problem]:
    """Names the settings of the same data set and network, which a reader might take for one."""
    problems = []
    for number, setting in enumerate(settings):
        second = setting.runs[0].setting | {"test images": setting.num_examples}
        for other in settings[:number]:
            first = other.runs[0].setting | {"test images": other.num_examples}
            if any(first[name] != second[name] for name in ("dataset.name", "model.name")):
                continue
            fields = [
                f"{field} ({first.get(field)} and {second.get(field)})"
                for field in sorted(first.keys() | second.keys())
                if first.get(field) != second.get(field)
            ]
            words = f"conflicts with {other.runs[0].path} in {', '.join(fields)}: they are kept apart"
            problems.append(Problem(setting.runs[0].path, words))
    return problems


def describe_seeds(seeds: Iterable[int]) -> str:
    """Returns "seed 0", "seeds 0, 1" or "seeds 30 to 39"."""
    seeds = sorted(seeds)
    return f"seed{'' if len(seeds) == 1 else 's'} {list_seeds(seeds)}"


def list_seeds(seeds: Iterable[int]) -> str:
    """Returns "0, 1" or "0, 30 to 39": four or more that follow each other are a range."""
    ranges: list[list[int]] = []
    for seed in sorted(seeds):
        if ranges and seed == ranges[-1][-1] + 1:
            ranges[-1].append(seed)
        else:
            ranges.append([seed])
    return ", ".join(
        f"{some[0]} to {some[-1]}" if len(some) > 3 else ", ".join(map(str, some)) for some in ranges
    )
