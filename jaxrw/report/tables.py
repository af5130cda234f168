"""Tables in the paper's form, as data: every writer shows the same cells."""

import dataclasses

from jaxrw.attacks.suite import ATTACKS, AUTOATTACK
from jaxrw.methods import METHODS
from jaxrw.report import published
from jaxrw.report.groups import Setting, checkpoints_of, mean_and_deviation, seed_words


@dataclasses.dataclass
class Cell:
    """Accuracy of one row under one attack; `values` is empty where it was not run."""

    attack: str
    values: dict  # seed -> percent
    published: tuple | None = None  # mean and deviation
    missing: tuple = ()  # seeds that other cells of the table have
    best: bool = False  # highest mean of its column, of the cells that have every seed
    improved: bool = False  # margin reweighting raised its mean over the seeds that both have

    @property
    def mean(self):
        """Mean over the seeds, None where it was not run."""
        return mean_and_deviation(self.values.values())[0] if self.values else None

    @property
    def deviation(self):
        """Sample deviation over the seeds, None for fewer than two."""
        return mean_and_deviation(self.values.values())[1] if self.values else None

    @property
    def difference(self):
        """Measured minus published mean, None where one of them is not there."""
        return None if self.mean is None or self.published is None else self.mean - self.published[0]


@dataclasses.dataclass
class Row:
    """A method, or one of its constants, with a cell for each column."""

    label: str
    cells: list[Cell]
    base: str | None = None  # label of the row whose margin it reweights


@dataclasses.dataclass
class Table:
    """Rows and columns with what a caption says."""

    title: str
    setting: Setting
    checkpoint: str
    attacks: tuple
    rows: list[Row]
    number: int | None = None  # the paper's
    notes: tuple = ()


def all_runs(setting, checkpoint):
    """Every group of a setting under every attack that any of them has, and AutoAttack."""
    attacks = [a for a in ATTACKS if a == AUTOATTACK or any(g.values(checkpoint, a) for g in setting.groups)]
    rows = []
    for group in setting.groups:
        cells = [Cell(attack, group.values(checkpoint, attack)) for attack in attacks]
        rows.append(Row(setting.label(group), cells, _base(setting, group)))
    title = f"All runs, {checkpoint} checkpoint"
    notes = _of_warmup(setting, setting.groups, checkpoint)
    return _mark(Table(title, setting, checkpoint, tuple(attacks), rows, notes=notes))


def of_paper(setting, *, measured=None):
    """The paper's tables of a setting's data set and network of which anything was measured, paper's numbers beside.

    With `measured`, measured numbers are those of this checkpoint, whichever the paper's are of.
    """
    found = published.blocks(setting.config["dataset.name"], setting.config["model.name"])
    return of_blocks(setting, [block | ({"checkpoint": measured} if measured else {}) for block in found])


def of_blocks(setting, blocks):
    """Blocks of the paper's tables, of any network, of which anything was measured in a setting."""
    tables = [_of_block(setting, block) for block in blocks]
    return [table for table in tables if any(cell.values for row in table.rows for cell in row.cells)]


def create(setting):
    """All tables of a setting, but those of checkpoints that are left out."""
    made = [all_runs(setting, name) for name in checkpoints_of(setting)] + of_paper(setting)
    reasons = left_out(setting)
    return [table for table in made if table.checkpoint not in reasons]


def left_out(setting):
    """Checkpoints whose tables would compare no methods, and why: name -> words."""
    names = checkpoints_of(setting)
    clean_alone = [name for name in names if not _was_attacked(setting, name)]
    reasons = {}
    for name in names:
        if _is_of_warmup(setting, name):
            reasons[name] = "of every method is of the warm-up, in which all weights are 1"
        elif name in clean_alone and clean_alone != names:
            reasons[name] = "was evaluated on clean images alone"
    return reasons


def _was_attacked(setting, checkpoint):
    """Whether any robust accuracy of a checkpoint was measured."""
    return any(
        group.values(checkpoint, attack)
        for group in setting.groups
        for attack in ATTACKS
        if attack != "clean"
    )


def _is_of_warmup(setting, checkpoint):
    """Whether this checkpoint of every run of a reweighted method is of its warm-up, so the same for every method."""
    groups = [group for group in setting.groups if group.warmup is not None and group.epochs(checkpoint)]
    return bool(groups) and all(
        group.from_warmup(checkpoint) == set(group.epochs(checkpoint)) for group in groups
    )


def _of_warmup(setting, groups, checkpoint):
    """Notes on rows of which some checkpoints are of the warm-up."""
    found = {setting.label(group): sorted(group.from_warmup(checkpoint)) for group in groups}
    words = [f"{label} ({seed_words(seeds)})" for label, seeds in found.items() if seeds]
    return (f"From the warm-up, before the method begins: {'; '.join(words)}",) if words else ()


def _of_block(setting, block):
    """One block of a table of the paper, filled with what was measured here."""
    columns = {attack for row in block["rows"] for attack in row["accuracy"]}
    # The paper's Tables 3 and 4 have no AutoAttack; no robust accuracy is shown without it.
    attacks = tuple(attack for attack in ATTACKS if attack in columns or attack == AUTOATTACK)
    rows, notes, shown = [], [], []
    for published_row in block["rows"]:
        groups = _matching(setting, published_row)
        if len(groups) > 1:
            labels = "; ".join(setting.label(group) for group in groups)
            notes.append(f"{_label(block, published_row)} is left empty, since several fit: {labels}")
        fitting = groups if len(groups) == 1 else []
        cells = [
            Cell(
                attack,
                fitting[0].values(block["checkpoint"], attack) if fitting else {},
                tuple(published_row["accuracy"][attack]) if attack in published_row["accuracy"] else None,
            )
            for attack in attacks
        ]
        base = (
            METHODS[base].title
            if (base := METHODS[published_row["method"]].base)
            and len({r["method"] for r in block["rows"]}) > 1
            else None
        )
        rows.append(Row(_label(block, published_row), cells, base))
        shown += fitting
    title = (
        f"Table {block['table']}: {setting.network} on {setting.dataset}, {block['checkpoint']} checkpoint"
    )
    notes += _of_warmup(setting, shown, block["checkpoint"])
    return _mark(Table(title, setting, block["checkpoint"], attacks, rows, block["table"], tuple(notes)))


def _matching(setting, row):
    """Groups of a setting that are a published row's method with the paper's constants."""
    tau, similarity = row.get("tau", 0), row.get("similarity", True)
    return [
        group
        for group in setting.groups
        if group.method == row["method"] and group.is_papers(tau=tau, similarity=similarity)
    ]


def _label(block, row):
    """What a row of the paper is called."""
    if len({r["method"] for r in block["rows"]}) > 1:
        return METHODS[row["method"]].title
    if len({r["tau"] for r in block["rows"]}) > 1:
        return f"tau = {row['tau']}"
    return "with similarity" if row["similarity"] else "without similarity"


def _base(setting, group):
    """Label of the group that differs from one of ours by the reweighting of the margin alone."""
    base = METHODS[group.method].base
    for other in setting.groups:
        shared = group.constants.keys() & other.constants.keys()
        if other.method == base and all(group.constants[name] == other.constants[name] for name in shared):
            return setting.label(other)
    return None


def _mark(table):
    """Enter which seeds lack, what is best in each column, and where reweighting raised a mean, as printed."""
    rows = {row.label: row for row in table.rows}
    for column in range(len(table.attacks)):
        cells = [row.cells[column] for row in table.rows]
        for cell in cells:
            cell.missing = tuple(sorted(set(table.setting.seeds) - set(cell.values))) if cell.values else ()
        complete = [cell for cell in cells if cell.values and not cell.missing]
        highest = max((round(cell.mean, 2) for cell in complete), default=None)
        for row, cell in zip(table.rows, cells, strict=True):
            cell.best = len(complete) > 1 and cell in complete and round(cell.mean, 2) == highest
            base = rows.get(row.base)
            cell.improved = base is not None and _is_higher(cell, base.cells[column])
    return table


def _is_higher(cell, other):
    """Whether a cell's mean over the seeds that both have is higher, as printed."""
    shared = cell.values.keys() & other.values.keys()
    if not shared:
        return False
    mean, others = (mean_and_deviation(c.values[seed] for seed in shared)[0] for c in (cell, other))
    return round(mean, 2) > round(others, 2)
