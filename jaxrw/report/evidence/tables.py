"""Tables of accuracies in the paper's form, as numbers."""

import dataclasses
import statistics
from collections.abc import Collection, Iterable

from jaxrw.attacks.suite import ATTACKS, AUTOATTACK
from jaxrw.methods import METHODS
from jaxrw.report.evidence.groups import Group, Setting, describe_seeds
from jaxrw.report.evidence.published import CONSTANTS, Block


@dataclasses.dataclass
class Accuracy:
    """Accuracy of one row under one attack.

    Attributes:
      attack: its name.
      values: percent by seed; empty if the attack was not run.
      published: the paper's mean and deviation.
      correct: which images are correct by seed, see `jaxrw.runs.packed`; without the seeds that lack it.
      missing: seeds that the setting has and `values` does not; empty if the attack was not run.
      best: whether its mean is the highest of those in its column that have every seed.
      improved: whether reweighting the margin increased the mean over the seeds that both rows have.
    """

    attack: str
    values: dict[int, float]
    published: tuple[float, float] | None = None
    correct: dict[int, str] = dataclasses.field(default_factory=dict)
    missing: tuple[int, ...] = ()
    best: bool = False
    improved: bool = False

    @classmethod
    def of(
        cls, group: Group | None, checkpoint: str, attack: str, published: tuple[float, float] | None = None
    ) -> "Accuracy":
        """Returns the accuracy of a group under an attack; None: of no run."""
        if group is None:
            return cls(attack, {}, published)
        return cls(attack, group.accuracies(checkpoint, attack), published, group.correct(checkpoint, attack))

    def of_seeds(self, seeds: Collection[int] | None) -> "Accuracy":
        """Returns the accuracy of these seeds alone; None: of all."""
        if seeds is None:
            return self
        values = {seed: value for seed, value in self.values.items() if seed in seeds}
        correct = {seed: flags for seed, flags in self.correct.items() if seed in seeds}
        return dataclasses.replace(self, values=values, correct=correct)

    @property
    def mean(self) -> float | None:
        """Mean over the seeds; None if the attack was not run."""
        return statistics.fmean(self.values.values()) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over the seeds; None for fewer than two."""
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None

    @property
    def difference(self) -> float | None:
        """Measured minus published mean; None if one of them is missing."""
        return None if self.mean is None or self.published is None else self.mean - self.published[0]


@dataclasses.dataclass(frozen=True)
class Row:
    """A method, or one value of a constant, with an accuracy for each column.

    Attributes:
      label: first column.
      cells: the others.
      base: label of the row whose margin this one reweights, if any.
    """

    label: str
    cells: list[Accuracy]
    base: str | None = None


@dataclasses.dataclass(frozen=True)
class AccuracyTable:
    """Accuracies of a checkpoint in a setting, with the marks of their comparison.

    Attributes:
      title: heading.
      setting: of all its runs.
      checkpoint: "last" or "best".
      attacks: columns.
      rows: methods, or values of a constant.
      notes: sentences for the caption, without a period.
      number: the paper's; None for a table that the paper does not have.
    """

    title: str
    setting: Setting
    checkpoint: str
    attacks: tuple[str, ...]
    rows: list[Row]
    notes: list[str]
    number: int | None = None

    def __post_init__(self) -> None:
        rows = {row.label: row for row in self.rows}
        for column in range(len(self.attacks)):
            cells = [row.cells[column] for row in self.rows]
            for cell in cells:
                cell.missing = tuple(sorted({*self.setting.seeds} - {*cell.values})) if cell.values else ()
            complete = [cell for cell in cells if cell.values and not cell.missing]
            highest = max((_printed_mean(cell.values.values()) for cell in complete), default=None)
            for cell in complete if len(complete) > 1 else ():
                cell.best = _printed_mean(cell.values.values()) == highest
            for row in self.rows:
                if row.base in rows:
                    row.cells[column].improved = _is_higher(row.cells[column], rows[row.base].cells[column])


def _printed_mean(values: Iterable[float]) -> float:
    return round(statistics.fmean(values), 2)


def _is_higher(cell: Accuracy, other: Accuracy) -> bool:
    """Returns whether the mean over the seeds that both have is higher, as printed."""
    shared = cell.values.keys() & other.values.keys()
    means = [_printed_mean(c.values[seed] for seed in shared) if shared else 0 for c in (cell, other)]
    return means[0] > means[1]


def create_tables(setting: Setting) -> list[AccuracyTable]:
    """Returns all tables of a setting, without those of checkpoints that are left out."""
    tables = [_all_runs(setting, name) for name in setting.checkpoints]
    tables += fill_blocks(setting, setting.published_blocks)
    reasons = reasons_to_leave_out(setting)
    return [table for table in tables if table.checkpoint not in reasons]


def _all_runs(setting: Setting, checkpoint: str) -> AccuracyTable:
    """Returns the table of every group under AutoAttack and every attack that was run on any of them."""
    attacks = tuple(
        attack
        for attack in ATTACKS
        if attack == AUTOATTACK or any(group.accuracies(checkpoint, attack) for group in setting.groups)
    )
    rows = [
        Row(
            setting.label(group),
            [Accuracy.of(group, checkpoint, attack) for attack in attacks],
            _base_label(setting, group),
        )
        for group in setting.groups
    ]
    notes = _warmup_notes(setting, setting.groups, checkpoint)
    return AccuracyTable(f"All runs, {checkpoint} checkpoint", setting, checkpoint, attacks, rows, notes)


def _base_label(setting: Setting, group: Group) -> str | None:
    """Returns the label of the group that differs from this one only by not reweighting the margin."""
    for other in setting.groups:
        shared = group.constants.keys() & other.constants.keys()
        if (other.method.name, other.recipe) == (group.method.base, group.recipe) and all(
            group.constants[name] == other.constants[name] for name in shared
        ):
            return setting.label(other)
    return None


def fill_blocks(setting: Setting, blocks: Iterable[Block]) -> list[AccuracyTable]:
    """Returns blocks of the paper's tables, of any network, with the accuracies of a setting if it has any."""
    tables = [_fill_block(setting, block) for block in blocks]
    return [table for table in tables if any(cell.values for row in table.rows for cell in row.cells)]


def _fill_block(setting: Setting, block: Block) -> AccuracyTable:
    checkpoint = block["checkpoint"]
    columns = {attack for row in block["rows"] for attack in row["accuracy"]}
    # The paper's Tables 3 and 4 have no AutoAttack, but reports show no robust accuracy without it.
    attacks = tuple(attack for attack in ATTACKS if attack in columns or attack == AUTOATTACK)
    rows, notes, shown = [], [], []
    for published in block["rows"]:
        label, base = _block_label(block, published), METHODS[published["method"]].base
        constants = CONSTANTS | {"tau": published.get("tau", 0)}
        constants["similarity"] = published.get("similarity", True)
        groups = [
            group
            for group in setting.groups
            if group.method.name == published["method"] and group.fits(constants)
        ]
        if len(groups) > 1:
            labels = "; ".join(setting.label(group) for group in groups)
            notes.append(f"{label} is left empty, since several fit: {labels}")
            groups = []
        cells = [
            Accuracy.of(groups[0] if groups else None, checkpoint, attack, published["accuracy"].get(attack))
            for attack in attacks
        ]
        rows.append(Row(label, cells, METHODS[base].title if base else None))
        shown += groups
    title = f"Table {block['table']}: {setting.title}, {checkpoint} checkpoint"
    notes += _warmup_notes(setting, shown, checkpoint)
    return AccuracyTable(title, setting, checkpoint, attacks, rows, notes, block["table"])


def _block_label(block: Block, row: Block) -> str:
    """Returns the label of a published row: what distinguishes it in its block."""
    if len({r["method"] for r in block["rows"]}) > 1:
        return METHODS[row["method"]].title
    if len({r["tau"] for r in block["rows"]}) > 1:
        return f"tau = {row['tau']}"
    return "with similarity" if row["similarity"] else "without similarity"


def _warmup_notes(setting: Setting, groups: Iterable[Group], checkpoint: str) -> list[str]:
    """Returns a note that names the checkpoints of the warm-up, if there are any."""
    seeds = {setting.label(group): group.warmup_seeds(checkpoint) for group in groups}
    words = "; ".join(f"{label} ({describe_seeds(some)})" for label, some in seeds.items() if some)
    return [f"From the warm-up, before the method begins: {words}"] if words else []


def reasons_to_leave_out(setting: Setting) -> dict[str, str]:
    """Returns the checkpoints whose tables would not compare methods, with the reason."""
    attacked = [name for name in setting.checkpoints if was_attacked(setting, name)]
    reasons = {}
    for name in setting.checkpoints:
        if _is_of_warmup(setting, name):
            reasons[name] = "of every method is of the warm-up, in which all weights are 1"
        elif attacked and name not in attacked:
            reasons[name] = "was evaluated on clean images alone"
    return reasons


def was_attacked(setting: Setting, checkpoint: str) -> bool:
    """Returns whether any run has a robust accuracy of a checkpoint."""
    robust = [name for name, attack in ATTACKS.items() if attack.is_attack]
    return any(group.accuracies(checkpoint, attack) for group in setting.groups for attack in robust)


def _is_of_warmup(setting: Setting, checkpoint: str) -> bool:
    """Returns whether every run of a reweighted method has this checkpoint from its warm-up."""
    groups = [group for group in setting.groups if group.warmup is not None and group.epochs(checkpoint)]
    return bool(groups) and all(
        group.warmup_seeds(checkpoint) == sorted(group.epochs(checkpoint)) for group in groups
    )
