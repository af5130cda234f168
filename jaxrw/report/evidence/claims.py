"""The paper's claims about its method as differences between rows, published and measured."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator

from jaxrw.methods import METHODS
from jaxrw.networks import ARCHITECTURES
from jaxrw.report.evidence import published
from jaxrw.report.evidence.comparisons import Comparison, compare, correct_for_number
from jaxrw.report.evidence.groups import Group, Setting
from jaxrw.report.evidence.tables import Accuracy, AccuracyTable, fill_blocks

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


def create_claims(setting: Setting, tables: Iterable[AccuracyTable]) -> list[Comparison]:
    """Returns the paper's claims that a setting allows to measure, corrected for their number.

    First those of the paper's tables in `tables`. Then, on last checkpoints, those that the paper shows of best
    checkpoints or of another network alone, which their words say. Last the other sign of beta.
    """
    papers = [table for table in tables if table.number]
    claims = [(table, claim) for table in papers for claim in _compare_rows(table)]
    known = {(claim.words, claim.attack) for table, claim in claims if table.checkpoint == "last"}
    found = [claim for _, claim in claims]
    blocks = setting.published_blocks
    on_last = fill_blocks(setting, [block | {"checkpoint": "last"} for block in blocks])
    found += _unknown_claims(on_last, known, ", last instead of best")
    for block in published.load()["blocks"] if blocks else ():
        if block["dataset"] == setting.config["dataset.name"] and block["checkpoint"] == "last":
            network = ARCHITECTURES[block["model"]].title
            found += _unknown_claims(fill_blocks(setting, [block]), known, f", paper: {network}")
    return correct_for_number(found + _claims_of_other_sign(setting, papers))


def _unknown_claims(
    tables: Iterable[AccuracyTable], known: set[tuple[str, str]], suffix: str
) -> list[Comparison]:
    """Returns the claims of tables that are not in `known`, and adds them to it."""
    claims = []
    for table in tables:
        new = [claim for claim in _compare_rows(table) if (claim.words, claim.attack) not in known]
        known |= {(claim.words, claim.attack) for claim in new}
        claims += [dataclasses.replace(claim, words=f"{claim.words}{suffix}") for claim in new]
    return claims


def _compare_rows(table: AccuracyTable) -> list[Comparison]:
    """Returns the claims of one of the paper's tables."""
    return [
        claim
        for words, first, second, attacks in _comparisons()
        for claim in _create_claims(
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


def _claims_of_other_sign(setting: Setting, papers: Iterable[AccuracyTable]) -> list[Comparison]:
    """Compares MAIL and Ours+MAIL with beta's sign as in Algorithm 1 with what the paper reports of them."""
    beta = -published.CONSTANTS["beta"]
    constants = setting.published_constants | {"beta": beta}
    groups = [g for g in setting.groups if g.constants.get("beta") == beta and g.fits(constants)]
    standard = METHODS["standard"].title
    claims: list[Comparison] = []
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
            claims += _create_claims(f"{setting.label(group)}, against {label}", table, pairs)
    return claims


def _cell(table: AccuracyTable, label: str, attack: str, group: Group | None = None) -> Accuracy:
    """Returns the cell of a row, empty if the table has no such row, with the accuracies of a group if given."""
    cells = (cell for row in table.rows if row.label == label for cell in row.cells if cell.attack == attack)
    cell = next(cells, Accuracy(attack, {}))
    return Accuracy.of(group, table.checkpoint, attack, cell.published) if group else cell


def _create_claims(
    words: str, table: AccuracyTable, pairs: list[tuple[Accuracy, Accuracy]]
) -> list[Comparison]:
    """Returns the claims about two rows; none if no attack was run on both."""
    if not any(cell.values and other.values for cell, other in pairs):
        return []
    return [
        Comparison(
            words,
            cell.attack,
            compare(cell, other, num_examples=table.setting.num_examples),
            was_run=bool(cell.values and other.values),
            table=table.number,
            published=cell.published[0] - other.published[0],
        )
        for cell, other in pairs
        if cell.published and other.published
    ]
