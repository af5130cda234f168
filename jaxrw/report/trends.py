"""What the paper says that its method does, as differences between rows, measured and published."""

import dataclasses
import itertools

from scipy.special import stdtrit

from jaxrw.report import published, tables
from jaxrw.report.groups import NAMES, mean_and_deviation
from jaxrw.report.tables import Cell, Table
from jaxrw.report.terminal import TITLES

# (words, minuend, subtrahend, attack); rows by the labels of the paper's tables.
_OF_METHODS = (
    ("MAIL against Standard", "MAIL", "Standard", "pgd100"),
    ("MAIL against Standard", "MAIL", "Standard", "aa"),
    ("Ours+MAIL against MAIL", "Ours+MAIL", "MAIL", "pgd100"),
    ("Ours+MAIL against MAIL", "Ours+MAIL", "MAIL", "aa"),
    ("WMMR against Standard", "WMMR", "Standard", "pgd100"),
    ("WMMR against Standard", "WMMR", "Standard", "aa"),
    ("Ours+WMMR against WMMR", "Ours+WMMR", "WMMR", "pgd100"),
    ("Ours+WMMR against WMMR", "Ours+WMMR", "WMMR", "aa"),
    ("GAIRAT against Standard", "GAIRAT", "Standard", "pgd100"),
    ("GAIRAT against Standard", "GAIRAT", "Standard", "aa"),
    ("EWAT against Standard", "EWAT", "Standard", "aa"),
)
_OF_CONSTANTS = (
    ("larger tau", "tau = 4", "tau = 2", "pgd100"),
    ("larger tau", "tau = 4", "tau = 2", "aa"),
    ("larger tau", "tau = 3", "tau = 2", "pgd100"),
    ("larger tau", "tau = 3", "tau = 2", "aa"),
    ("with against without similarity", "with similarity", "without similarity", "pgd100"),
    ("with against without similarity", "with similarity", "without similarity", "aa"),
)
assert {name for _, *rows, _ in _OF_METHODS for name in rows} <= set(NAMES.values())


@dataclasses.dataclass(frozen=True)
class Trend:
    """A difference of two rows in percentage points."""

    words: str
    table: Table
    attack: str
    published: float
    measured: float | None  # mean over the seeds that both rows have
    within: float | None  # half of that mean's 95 % confidence interval; None for fewer than two seeds
    num_seeds: int

    @property
    def verdict(self):
        """Whether the difference has the published sign, as far as the seeds can tell."""
        if self.measured is None:
            return "not measured"
        same = self.measured * self.published > 0
        if self.within is None:
            return "same sign, one seed" if same else "not the same sign, one seed"
        if abs(self.measured) <= self.within:
            return "not told apart from 0"
        return "appears" if same else "does not appear"


def create(made, setting):
    """Trends that the paper's tables among `made` allow to measure, in their order, then the other sign of beta.

    What the paper shows of best checkpoints alone is also measured on the last ones, and said to be.
    """
    trends = [trend for table in made if table.number for trend in _of_table(table)]
    known = {(trend.words, trend.attack) for trend in trends if trend.table.checkpoint == "last"}
    for table in tables.of_paper(setting, measured="last"):
        found = [trend for trend in _of_table(table) if (trend.words, trend.attack) not in known]
        trends += [
            dataclasses.replace(trend, words=f"{trend.words}, last instead of best") for trend in found
        ]
    return trends + _of_other_sign(made, setting)


def _of_table(table):
    """Trends of one of the paper's tables."""
    trends = []
    for words, first, second, attack in (*_OF_METHODS, *_OF_CONSTANTS):
        cells = [_cell(table, label, attack) for label in (first, second)]
        if _can_be_compared(cells):
            trends.append(_trend(f"{words}{_which(first, second)}", table, attack, *cells))
    return trends


def _of_other_sign(made, setting):
    """MAIL and Ours+MAIL with the margin's sign as Algorithm 1 prints it, against what the paper reports of them."""
    papers = [table for table in made if table.number]
    trends = []
    for table, group, attack in itertools.product(papers, _with_other_sign(setting), ("pgd100", "aa")):
        paper, standard = (_cell(table, label, attack) for label in (NAMES[group.method], "Standard"))
        cell = dataclasses.replace(paper, values=group.values(table.checkpoint, attack))
        if _can_be_compared([cell, standard]):
            trends.append(_trend(f"{setting.label(group)}, against Standard", table, attack, cell, standard))
    return trends


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


def _can_be_compared(cells):
    """Whether every cell has numbers, measured and published."""
    return all(cell.published and cell.values for cell in cells)


def _which(first, second):
    """The two values of tau."""
    return f" ({first.split()[-1]} against {second.split()[-1]})" if first.startswith("tau") else ""


def _trend(words, table, attack, cell, other):
    """The difference of two cells, seed by seed: runs of one seed share their data's order and first weights."""
    shared = cell.values.keys() & other.values.keys()
    differences = [cell.values[seed] - other.values[seed] for seed in shared]
    mean, deviation = mean_and_deviation(differences) if differences else (cell.mean - other.mean, None)
    published = cell.published[0] - other.published[0]
    within = None if deviation is None else _half_interval(deviation, len(differences))
    return Trend(words, table, attack, published, mean, within, len(differences))


def _half_interval(deviation, number):
    """Half of the 95 % confidence interval of the mean of so many numbers, by Student's t: 9 deviations for two."""
    return stdtrit(number - 1, 0.975) * deviation / number**0.5


def title(attack):
    """An attack as tables write it."""
    return TITLES[attack]
