"""The paper's claims about its method as differences between rows, published and measured."""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Iterable, Iterator

from scipy.special import stdtrit  # Student's t; importing scipy.stats takes a second

from jaxrw.methods import METHODS
from jaxrw.networks import ARCHITECTURES
from jaxrw.report import published
from jaxrw.report.groups import Group, Setting
from jaxrw.report.tables import Accuracy, AccuracyTable, fill_blocks

# Fewer seeds give no useful interval: two agree to a tenth of a point by chance.
MIN_SEEDS = 3

_BOTH = ("pgd100", "aa")

# Methods that are compared with the one whose margin they reweight, or else with Standard, and under which attacks.
_METHODS = {
    "mail": _BOTH,
    "ours_mail": _BOTH,
    "wmmr": _BOTH,
    "ours_wmmr": _BOTH,
    "gairat": _BOTH,
    "ewat": ("aa",),
}


@dataclasses.dataclass(frozen=True)
class Trend:
    """A difference of two rows in percentage points.

    Attributes:
      words: the two rows.
      table: the paper's.
      attack: column.
      published: the paper's difference.
      measured: mean difference over the seeds that both rows have; None if there are none.
      half_interval: half of its 95 % confidence interval; None for fewer than `MIN_SEEDS` seeds.
      num_seeds: that both rows have.
      was_run: whether both rows have any accuracy.
    """

    words: str
    table: AccuracyTable
    attack: str
    published: float
    measured: float | None
    half_interval: float | None
    num_seeds: int
    was_run: bool

    @property
    def verdict(self) -> str:
        """Whether the difference has the published sign, as far as the seeds can tell."""
        if self.measured is None:
            return "no seed in common" if self.was_run else "not run"
        same = self.measured * self.published > 0
        if self.half_interval is None:
            number = "one seed" if self.num_seeds == 1 else "two seeds"
            return f"same sign, {number}" if same else f"not the same sign, {number}"
        if abs(self.measured) <= self.half_interval:
            return "not told apart from 0"
        return "appears" if same else "does not appear"


def create_trends(setting: Setting, tables: Iterable[AccuracyTable]) -> list[Trend]:
    """Returns the paper's trends that a setting allows to measure.

    First those of the paper's tables in `tables`. Then, on last checkpoints, those that the paper shows of best
    checkpoints or of another network alone, which their words say. Last the other sign of beta.
    """
    papers = [table for table in tables if table.number]
    trends = [trend for table in papers for trend in _compare_rows(table)]
    known = {(trend.words, trend.attack) for trend in trends if trend.table.checkpoint == "last"}
    blocks = setting.published_blocks
    on_last = fill_blocks(setting, [block | {"checkpoint": "last"} for block in blocks])
    trends += _unknown_trends(on_last, known, ", last instead of best")
    for block in published.load()["blocks"] if blocks else ():
        if block["dataset"] == setting.config["dataset.name"] and block["checkpoint"] == "last":
            network = ARCHITECTURES[block["model"]].title
            trends += _unknown_trends(fill_blocks(setting, [block]), known, f", paper: {network}")
    return trends + _trends_of_other_sign(setting, papers)


def _unknown_trends(tables: Iterable[AccuracyTable], known: set[tuple[str, str]], suffix: str) -> list[Trend]:
    """Returns the trends of tables that are not in `known`, and adds them to it."""
    trends = []
    for table in tables:
        new = [trend for trend in _compare_rows(table) if (trend.words, trend.attack) not in known]
        known |= {(trend.words, trend.attack) for trend in new}
        trends += [dataclasses.replace(trend, words=f"{trend.words}{suffix}") for trend in new]
    return trends


def _compare_rows(table: AccuracyTable) -> list[Trend]:
    """Returns the trends of one of the paper's tables."""
    return [
        trend
        for words, first, second, attacks in _comparisons()
        for trend in _create_trends(
            words, table, [(_cell(table, first, attack), _cell(table, second, attack)) for attack in attacks]
        )
    ]


def _comparisons() -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    """Yields words, the labels of minuend and subtrahend in the paper's tables, and attacks."""
    for name, attacks in _METHODS.items():
        first, second = METHODS[name].title, METHODS[METHODS[name].base or "standard"].title
        yield f"{first} against {second}", first, second, attacks
    for tau in (4, 3):
        yield f"larger tau ({tau} against 2)", f"tau = {tau}", "tau = 2", _BOTH
    yield "with against without similarity", "with similarity", "without similarity", _BOTH


def _trends_of_other_sign(setting: Setting, papers: Iterable[AccuracyTable]) -> list[Trend]:
    """Compares MAIL and Ours+MAIL with beta's sign as in Algorithm 1 with what the paper reports of them."""
    beta = -published.CONSTANTS["beta"]
    constants = setting.published_constants | {"beta": beta}
    groups = [g for g in setting.groups if g.constants.get("beta") == beta and g.fits(constants)]
    standard = METHODS["standard"].title
    trends = []
    for table, group in itertools.product(papers, groups):
        others: dict[str, Group | None] = {standard: None} | {
            setting.label(other): other
            for other in groups
            if other.method.name == group.method.base and other.warmup == group.warmup
        }
        for label, other in others.items():
            pairs = [
                (
                    _cell(table, group.method.title, attack, group),
                    _cell(table, other.method.title if other else standard, attack, other),
                )
                for attack in _BOTH
            ]
            trends += _create_trends(f"{setting.label(group)}, against {label}", table, pairs)
    return trends


def _cell(table: AccuracyTable, label: str, attack: str, group: Group | None = None) -> Accuracy:
    """Returns the cell of a row, empty if the table has no such row, with the accuracies of a group if given."""
    cells = (cell for row in table.rows if row.label == label for cell in row.cells if cell.attack == attack)
    cell = next(cells, Accuracy(attack, {}))
    return dataclasses.replace(cell, values=group.accuracies(table.checkpoint, attack)) if group else cell


def _create_trends(words: str, table: AccuracyTable, pairs: list[tuple[Accuracy, Accuracy]]) -> list[Trend]:
    """Returns the trends of two rows; none if no attack was run on both."""
    if not any(cell.values and other.values for cell, other in pairs):
        return []
    return [
        _create_trend(words, table, cell, other, cell.published[0] - other.published[0])
        for cell, other in pairs
        if cell.published and other.published
    ]


def _create_trend(
    words: str, table: AccuracyTable, cell: Accuracy, other: Accuracy, published: float
) -> Trend:
    """Compares two cells seed by seed, because runs of one seed share the order of the data and the first weights."""
    shared = cell.values.keys() & other.values.keys()
    differences = [cell.values[seed] - other.values[seed] for seed in shared]
    number = len(differences)
    half_interval = None
    if number >= MIN_SEEDS:
        standard_error = statistics.stdev(differences) / math.sqrt(number)
        # Seeds that agree by chance are not certain of a single image.
        smallest = 100 / table.setting.num_examples
        half_interval = max(float(stdtrit(number - 1, 0.975)) * standard_error, smallest)
    return Trend(
        words,
        table,
        cell.attack,
        published,
        statistics.fmean(differences) if differences else None,
        half_interval,
        number,
        bool(cell.values and other.values),
    )
