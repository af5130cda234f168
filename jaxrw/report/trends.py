"""What the paper says that its method does, as differences between rows, measured and published."""

import dataclasses
import itertools

from scipy.special import stdtrit

from jaxrw.methods import METHODS
from jaxrw.networks import ARCHITECTURES
from jaxrw.report import published, tables
from jaxrw.report.groups import mean_and_deviation
from jaxrw.report.tables import Cell, Table

_BOTH = ("pgd100", "aa")

# (words, minuend, subtrahend) -> attacks; rows by the labels of the paper's tables.
_OF_METHODS = {
    ("MAIL against Standard", "MAIL", "Standard"): _BOTH,
    ("Ours+MAIL against MAIL", "Ours+MAIL", "MAIL"): _BOTH,
    ("WMMR against Standard", "WMMR", "Standard"): _BOTH,
    ("Ours+WMMR against WMMR", "Ours+WMMR", "WMMR"): _BOTH,
    ("GAIRAT against Standard", "GAIRAT", "Standard"): _BOTH,
    ("EWAT against Standard", "EWAT", "Standard"): ("aa",),
}
_ATTACKS = _OF_METHODS | {
    ("larger tau", "tau = 4", "tau = 2"): _BOTH,
    ("larger tau", "tau = 3", "tau = 2"): _BOTH,
    ("with against without similarity", "with similarity", "without similarity"): _BOTH,
}

# Seeds below which an interval says nothing: two agree to a tenth of a point by chance, and Student's t has one degree.
ENOUGH = 3


@dataclasses.dataclass(frozen=True)
class Trend:
    """A difference of two rows in percentage points."""

    words: str
    table: Table
    attack: str
    published: float
    measured: float | None  # mean over the seeds that both rows have
    within: float | None  # half of that mean's 95 % confidence interval; None for fewer than `ENOUGH` seeds
    num_seeds: int
    was_run: bool  # whether both rows have any number at all

    @property
    def verdict(self):
        """Whether the difference has the published sign, as far as the seeds can tell."""
        if self.measured is None:
            return "no seed in common" if self.was_run else "not run"
        same = self.measured * self.published > 0
        if self.within is None:
            number = "one seed" if self.num_seeds == 1 else "two seeds"
            return f"same sign, {number}" if same else f"not the same sign, {number}"
        if abs(self.measured) <= self.within:
            return "not told apart from 0"
        return "appears" if same else "does not appear"


def create(made, setting):
    """Trends that the paper's tables among `made` allow to measure, in their order, then the other sign of beta.

    What the paper shows of best checkpoints alone is also measured on the last ones, and what it shows of another
    network alone, here too; both are said.
    """
    trends = [trend for table in made if table.number for trend in _of_table(table)]
    known = {(trend.words, trend.attack) for trend in trends if trend.table.checkpoint == "last"}
    for table in tables.of_paper(setting, measured="last"):
        found = [trend for trend in _of_table(table) if (trend.words, trend.attack) not in known]
        known |= {(trend.words, trend.attack) for trend in found}
        trends += [
            dataclasses.replace(trend, words=f"{trend.words}, last instead of best") for trend in found
        ]
    if published.blocks(setting.config["dataset.name"], setting.config["model.name"]):
        trends += _of_other_networks(setting, known)
    return trends + _of_other_sign(made, setting)


def _of_other_networks(setting, known):
    """Trends that the paper shows of the same data set with another network alone, of its last checkpoints."""
    trends = []
    for block in published.load()["blocks"]:
        if block["dataset"] != setting.config["dataset.name"] or block["checkpoint"] != "last":
            continue
        for table in tables.of_blocks(setting, [block]):
            found = [trend for trend in _of_table(table) if (trend.words, trend.attack) not in known]
            known = known | {(trend.words, trend.attack) for trend in found}
            network = ARCHITECTURES[block["model"]].title
            trends += [
                dataclasses.replace(trend, words=f"{trend.words}, paper: {network}") for trend in found
            ]
    return trends


def _of_table(table):
    """Trends of one of the paper's tables."""
    trends = []
    for (words, first, second), compared in _ATTACKS.items():
        rows = [[_cell(table, label, attack) for label in (first, second)] for attack in compared]
        trends += _of_rows(f"{words}{_which(first, second)}", table, compared, rows)
    return trends


def _of_rows(words, table, compared, rows):
    """Trends of two rows under each attack, none where no attack was run on both: a row without AutoAttack says so."""
    if not any(all(cell.values for cell in cells) for cells in rows):
        return []
    return [
        _trend(words, table, attack, *cells)
        for attack, cells in zip(compared, rows, strict=True)
        if all(cell.published for cell in cells)
    ]


def _of_other_sign(made, setting):
    """MAIL and Ours+MAIL with the margin's sign as Algorithm 1 prints it, against what the paper reports of them."""
    papers = [table for table in made if table.number]
    with_other_sign = _with_other_sign(setting)
    trends = []
    for table, group in itertools.product(papers, with_other_sign):
        others = {"Standard": None} | {
            setting.label(other): other
            for other in with_other_sign
            if other.method == METHODS[group.method].base and other.warmup == group.warmup
        }
        for label, other in others.items():
            words = f"{setting.label(group)}, against {label}"
            rows = [
                (
                    _with_values(_cell(table, group.name, attack), group, table),
                    _with_values(_cell(table, other.name if other else label, attack), other, table),
                )
                for attack in _BOTH
            ]
            trends += _of_rows(words, table, _BOTH, rows)
    return trends


def _with_values(cell, group, table):
    """The paper's cell with what a group measured; as it is without a group."""
    return (
        cell
        if group is None
        else dataclasses.replace(cell, values=group.values(table.checkpoint, cell.attack))
    )


def _with_other_sign(setting):
    """Groups that are the paper's but for the sign of beta."""
    beta = -published.CONSTANTS["beta"]
    tau = published.tau(setting.config["dataset.name"], setting.config["model.name"])
    return [
        group
        for group in setting.groups
        if group.constants.get("beta") == beta and group.is_papers(tau=tau, beta=beta)
    ]


def _cell(table, label, attack):
    """Cell of a row under an attack; an empty one where the table has none."""
    found = (cell for row in table.rows if row.label == label for cell in row.cells if cell.attack == attack)
    return next(found, Cell(attack, {}))


def _which(first, second):
    """The two values of tau."""
    return f" ({first.split()[-1]} against {second.split()[-1]})" if first.startswith("tau") else ""


def _trend(words, table, attack, cell, other):
    """The difference of two cells, seed by seed: runs of one seed share their data's order and first weights."""
    shared = cell.values.keys() & other.values.keys()
    differences = [cell.values[seed] - other.values[seed] for seed in shared]
    published_ = cell.published[0] - other.published[0]
    was_run = bool(cell.values and other.values)
    if not differences:
        return Trend(words, table, attack, published_, None, None, 0, was_run)
    mean, deviation = mean_and_deviation(differences)
    within = None
    if len(differences) >= ENOUGH:
        # Seeds that happen to agree do not make one image certain.
        within = max(_half_interval(deviation, len(differences)), 100 / table.setting.num_examples)
    return Trend(words, table, attack, published_, mean, within, len(differences), was_run)


def _half_interval(deviation, number):
    """Half of the 95 % confidence interval of the mean of so many numbers, by Student's t: 2.5 deviations for three."""
    return stdtrit(number - 1, 0.975) * deviation / number**0.5
