"""Sections of the report: the text, tables and pictures of a setting."""

import json
import pathlib
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxrw import figures
from jaxrw.attacks import norms
from jaxrw.attacks.suite import ATTACKS, AUTOATTACK
from jaxrw.methods import METHODS
from jaxrw.networks import ARCHITECTURES
from jaxrw.report.document import Album, Cell, Column, Section, Table
from jaxrw.report.evidence import published, tables
from jaxrw.report.evidence.beside import ATTACKS as BESIDE
from jaxrw.report.evidence.beside import best_beside_last
from jaxrw.report.evidence.claims import create_claims
from jaxrw.report.evidence.comparisons import LEVEL, MIN_SEEDS, Comparison
from jaxrw.report.evidence.groups import DATASETS, Setting, describe_seeds, list_seeds
from jaxrw.report.evidence.questions import Question, answer
from jaxrw.report.evidence.tables import Accuracy, AccuracyTable
from jaxrw.report.evidence.training_summary import count_machines, count_shared_warmups, summarize_training
from jaxrw.runs.checks import is_number
from jaxrw.runs.results import CHECKPOINTS
from jaxrw.training.step import LIGHT


def create_section(
    setting: Setting,
    accuracy_tables: Iterable[AccuracyTable],
    workdir: pathlib.Path,
    *,
    comparisons: Mapping[str, Sequence[Comparison]],
    pictures: Mapping[str, pathlib.Path],
) -> Section:
    """Returns the section of a setting.

    Args:
      setting: runs that tables compare.
      accuracy_tables: its `tables.create_tables`.
      workdir: directory of all runs.
      comparisons: by the titles of their tables, see `compare_all`.
      pictures: over all of its runs, by their captions.
    """
    differences = describe_differences(setting)
    shown = [table for table in accuracy_tables if not differences or not _is_fragment(table)]
    left_out = [str(table.number) for table in accuracy_tables if table not in shown]
    others = (
        _beside_table(setting),
        *(_comparisons_table(title, setting, several) for title, several in comparisons.items()),
        _correlations_table(setting, workdir),
        _training_table(setting, workdir),
    )
    return Section(
        title=setting.title,
        num_epochs=setting.config["optim.num_epochs"],
        paragraphs=(_describe_setting(setting, differences, left_out), _describe_runs(setting)),
        pictures=dict(pictures),
        tables=[
            *(_present_accuracies(table, is_papers=not differences) for table in shown),
            *(table for table in others if table.rows),
        ],
        albums=_albums(setting, workdir),
    )


def compare_all(
    setting: Setting,
    accuracy_tables: Iterable[AccuracyTable],
    questions: Mapping[str, Sequence[Question]],
) -> dict[str, list[Comparison]]:
    """Returns the comparisons that were asked for and the paper's claims, by the titles of their tables."""
    return {
        **{title: answer(setting, asked) for title, asked in questions.items()},
        "The paper's claims": create_claims(setting, accuracy_tables),
    }


def count_runs(number: int) -> str:
    """Returns "1 run" or "2 runs"."""
    return f"{number} run{'' if number == 1 else 's'}"


def _is_fragment(table: AccuracyTable) -> bool:
    """Returns whether a table of the paper has no row with every attack."""
    return table.number is not None and not any(all(cell.values for cell in row.cells) for row in table.rows)


def _describe_setting(setting: Setting, differences: str, left_out: Sequence[str]) -> str:
    """Describes the schedule, the test images, the differences from the paper's settings, and its tables left out."""
    names = ("attack.eps", "evaluation.eps")
    radii = [_format_radius(name, setting.config) for name in names if name in setting.config]
    eps = f"eps {' in training, '.join(dict.fromkeys(radii))}"
    eps += " in evaluation" if len(set(radii)) > 1 else ""
    sentences = [f"{setting.config['optim.num_epochs']} epochs, {eps}, {setting.images}."]
    if setting.data:
        sentences.append(f"Data: {setting.data}.")
    if differences:
        sentences.append(
            f"Not the paper's settings, so compare the order of its numbers, not their size: {differences}."
        )
    elif setting.published_blocks:
        sentences.append("The paper's settings.")
    if left_out:
        sentences.append(
            f"No row has every attack of the paper's Table{'' if len(left_out) == 1 else 's'} "
            f"{' and '.join(filter(None, (', '.join(left_out[:-1]), left_out[-1])))}, left out here."
        )
    reasons = tables.reasons_to_leave_out(setting)
    sentences += [f"The {name} checkpoint {reason}: it has no table." for name, reason in reasons.items()]
    return " ".join(sentences)


def _format_radius(name: str, config: dict[str, Any]) -> str:
    """Returns a radius, with its norm if it is not L-infinity."""
    norm = str(config.get(name.replace(".eps", ".norm"), "linf"))
    if norm == "linf":
        return _format_field(name, config[name])
    # A later version may have written results of a norm that this one does not know.
    return f"{config[name]} ({norms.NORMS[norm].title if norm in norms.NORMS else norm})"


def describe_differences(setting: Setting) -> str:
    """Returns the fields that differ from the paper's, with both values; empty if the paper has no such table."""
    if not setting.published_blocks:
        return ""
    # Labels of rows name the warm-up if there are several lengths.
    config = {name: value for name, value in setting.config.items() if name != "method.warmup_epochs"}
    if len(setting.warmups) == 1:
        config["method.warmup_epochs"] = min(setting.warmups)
    return ", ".join(
        f"{name} {_format_field(name, value)} "
        f"({'paper' if is_stated else 'for its tables here'} {_format_field(name, papers)})"
        for name, (value, papers, is_stated) in published.differences(config, setting.num_examples).items()
    )


def _format_field(name: str, value: object) -> str:
    """Returns the value of a field; radii and steps in 1/255 of the pixel range."""
    if value is None:
        return "all" if name.endswith("_size") else "its own" if name.startswith("model.") else "none"
    if name.endswith((".eps", ".step_size")) and isinstance(value, int | float):
        return f"{255 * value:g}/255"
    return f"{value}"


def _describe_runs(setting: Setting) -> str:
    """Describes seeds, machines and versions; empty if no results.json holds them."""
    machines = count_machines(setting)
    if not machines:
        return ""
    sentences = [f"{describe_seeds(setting.seeds).capitalize()}."]
    sentences += [f"{count_runs(number)}: {machine}." for machine, number in machines]
    if number := count_shared_warmups(setting):
        sentences.append(
            f"{count_runs(number)} began with the warm-up that another run of their seed had trained: in it all "
            "weights are 1, whatever the method."
        )
    return " ".join(sentences)


def _present_accuracies(table: AccuracyTable, *, is_papers: bool) -> Table:
    """Presents a table of accuracies.

    Args:
      table: of all runs, or of those that a table of the paper has.
      is_papers: whether the setting is the paper's. If not, what was measured is not subtracted from what the paper
        has, and rows that only the paper has are named below the table.
    """
    rows = [row for row in table.rows if is_papers or any(cell.values for cell in row.cells)]
    absent = [row.label for row in table.rows if row not in rows]
    caption = _caption(table, has_differences=is_papers)
    return Table(
        title=table.title,
        columns=[Column(ATTACKS[attack].title) for attack in table.attacks],
        rows=[
            (row.label, [_present_accuracy(cell, has_difference=is_papers) for cell in row.cells])
            for row in rows
        ],
        caption=f"{caption} Not run: {', '.join(absent)}." if absent else caption,
        has_accuracies=True,
        number=table.number,
    )


def _present_accuracy(cell: Accuracy, *, has_difference: bool = False) -> Cell:
    text, papers = "not run", ""
    if cell.mean is not None:
        text = f"{cell.mean:.2f}" + ("" if cell.deviation is None else f" ± {cell.deviation:.2f}")
    if cell.published:
        papers = "{:.2f} ± {:.2f}".format(*cell.published)
        papers += f" ({cell.difference:+.2f})" if has_difference and cell.difference is not None else ""
    return Cell(
        text,
        bold=cell.best,
        arrow=cell.improved,
        warning=cell.attack == AUTOATTACK and not cell.values,
        num_seeds=len(cell.values),
        missing=bool(cell.missing),
        published=papers,
    )


def _caption(table: AccuracyTable, *, has_differences: bool) -> str:
    """Describes the numbers of a table."""
    sentences = [
        f"Accuracy in percent on {table.setting.images}, mean ± sample standard deviation over n "
        f"seeds (found: {list_seeds(table.setting.seeds)}). Bold: best of its column, of those with every "
        "seed. ↑: higher than without margin reweighting, over the seeds that both have."
    ]
    if any(cell.published for row in table.rows for cell in row.cells):
        minus = ", and measured minus published" if has_differences else ""
        sentences.append(f"Paper: its mean ± deviation over five seeds{minus}.")
    if any(cell.attack == AUTOATTACK and not cell.values for row in table.rows for cell in row.cells):
        sentences.append(
            "⚠ AutoAttack was not run for every row: believe no other robust accuracy without it."
        )
    if missing := _describe_missing(table):
        sentences.append(f"‡ Seeds missing: {missing}.")
    return " ".join([*sentences, *(f"{note}." for note in table.notes)])


def _describe_missing(table: AccuracyTable) -> str:
    """Names the missing seeds by row and columns."""
    columns: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for row in table.rows:
        for cell in row.cells:
            if cell.missing:
                columns.setdefault((row.label, cell.missing), []).append(ATTACKS[cell.attack].title)
    return "; ".join(
        f"{label}: {describe_seeds(seeds)} of "
        + ("all columns" if len(titles) == len(table.attacks) else ", ".join(titles))
        for (label, seeds), titles in columns.items()
    )


def _text_row(label: str, *texts: str) -> tuple[str, list[Cell]]:
    return label, [Cell(text) for text in texts]


def _beside_table(setting: Setting) -> Table:
    """Returns the table of best checkpoints beside last ones; without rows if the best were not attacked."""
    rows = []
    for line in best_beside_last(setting):
        cells = [cell for pair in line.cells for cell in pair]
        rows.append((line.label, [Cell(line.epochs), *map(_present_accuracy, cells)]))
    return Table(
        title="Best beside last",
        columns=[
            Column("best epoch"),
            *(Column(f"{ATTACKS[attack].title}, {name}") for attack in BESIDE for name in CHECKPOINTS),
        ],
        rows=rows,
        caption=(
            "The best checkpoint is the one with the highest accuracy on the validation images under "
            "PGD; its epoch counts from 1, and a range is over the seeds. If best is far above last, the run has "
            "overfitted, and a method whose last checkpoint is only as good as the best one of Standard has avoided no "
            f"more than that. Accuracy in percent on {setting.images}, mean ± sample standard "
            "deviation over n seeds."
        ),
        has_accuracies=True,
    )


def _comparisons_table(title: str, setting: Setting, comparisons: Sequence[Comparison]) -> Table:
    """Returns differences with intervals, corrected p-values and verdicts; with the paper's if it has any of them."""
    are_claims = any(c.published is not None for c in comparisons)
    return Table(
        title=title,
        columns=[
            *([Column("table", is_number=False)] if are_claims else []),
            Column("attack", is_number=False),
            *map(Column, (*(("paper",) if are_claims else ()), "measured", "seeds")),
            Column("interval over", is_number=False),
            Column("p"),
            Column("", is_number=False),
        ],
        rows=[_present_comparison(c, are_claims=are_claims) for c in comparisons],
        caption=_describe_comparisons(setting, comparisons, are_claims=are_claims),
    )


def _present_comparison(comparison: Comparison, *, are_claims: bool) -> tuple[str, list[Cell]]:
    difference, half = comparison.difference, comparison.difference.half_interval
    over = "seeds and images" if difference.over_images else "seeds"
    return _text_row(
        comparison.words,
        *([f"Table {comparison.table}"] if are_claims else []),
        ATTACKS[comparison.attack].title,
        *([_format_number(comparison.published, "+.2f")] if are_claims else []),
        _format_number(difference.mean, "+.2f") + ("" if half is None else f" ± {half:.2f}"),
        str(len(difference.by_seed)),
        "-" if half is None else over,
        _format_p(comparison.corrected),
        comparison.verdict,
    )


def _format_p(value: float | None) -> str:
    """Returns a p-value with two digits that count, and never on the other side of the level than it is."""
    if value is None:
        return "-"
    if value < 0.0001:
        return "< 0.0001"
    text = f"{value:.2g}" if value < 0.095 else f"{value:.2f}"
    return f"{value:.4f}" if (float(text) < LEVEL) != (value < LEVEL) else text


def _describe_comparisons(setting: Setting, comparisons: Sequence[Comparison], *, are_claims: bool) -> str:
    tested, number = [c for c in comparisons if c.corrected is not None], len(comparisons)
    seeds = sorted({seed for c in comparisons for seed in c.difference.by_seed})
    verdicts = (
        'A claim of the paper is "seen" if p is below 0.05 and the difference has the paper\'s sign, "refuted at this '
        'scale" if p is below 0.05 and it has the other sign, and "not decided" otherwise.'
        if are_claims
        else 'The method named first is "higher" or "lower" if p is below 0.05; otherwise "not significant".'
    )
    sentences = [
        "Differences in percentage points, seed by seed; ± is half the width of their 95 % confidence interval by "
        f"Student's t, from {MIN_SEEDS} seeds on, and never less than one image.",
        f"p is corrected by Holm's method for the {number} comparison{'' if number == 1 else 's'} of this table; "
        "the interval is not corrected.",
        verdicts,
    ]
    if seeds and seeds != sorted(setting.seeds):
        sentences.append(f"Of {describe_seeds(seeds)} alone.")
    if any(c.difference.over_images for c in tested):
        sentences.append(
            "An interval over seeds and images also covers which test images were taken, by an analysis of variance; "
            "it is never narrower than that over the seeds."
        )
    if not all(c.difference.over_images for c in tested):
        size = setting.num_examples
        sentences.append(
            f"An interval over seeds does not cover which test images were taken: with {size:,}, that alone gives an "
            f"accuracy a standard error of up to {50 / size**0.5:.1f} points, and a difference on the same images less."
        )
    return " ".join(sentences)


def _correlations_table(setting: Setting, workdir: pathlib.Path) -> Table:
    """Returns the table of Figure 4's r: means over the runs of each group."""
    rows = []
    for group in setting.groups:
        pairs: dict[str, list[tuple[float, float]]] = {}  # by checkpoint: r of clean images, r under attack
        for run in group.runs.values():
            if facts := _read_facts(workdir / run.path):
                pairs.setdefault(facts["name"], []).append((facts["r"]["clean"], facts["r"]["adversarial"]))
        for checkpoint, values in pairs.items():
            means = [f"{statistics.fmean(kind):.3f}" for kind in zip(*values, strict=True)]
            rows.append(_text_row(setting.label(group), checkpoint, *means, str(len(values))))
    papers = published.load()["figure4"]
    model, dataset = ARCHITECTURES[papers["model"]].title, DATASETS[papers["dataset"]]
    method = METHODS[papers["method"]].title
    return Table(
        title="Figure 4: Pearson's r of similarity and incorrect rate (Eq. 23)",
        columns=[
            Column("checkpoint", is_number=False),
            *map(Column, ("clean images", "under PGD-20", "runs")),
        ],
        rows=rows,
        caption=f"The paper: {papers['r']:.2f} for {model} on {dataset} with {method} adversarial training.",
    )


def _read_facts(path: pathlib.Path) -> dict[str, Any] | None:
    """Reads the data of a run's figures; None if they are missing or damaged."""
    try:
        facts = json.loads((path / "figures" / "data.json").read_text())
        numbers = [facts["r"]["clean"], facts["r"]["adversarial"]]
        is_usable = isinstance(facts["name"], str) and all(map(is_number, numbers))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return facts if is_usable else None


def _training_table(setting: Setting, workdir: pathlib.Path) -> Table:
    return Table(
        title="How the training went",
        columns=[
            Column(title)
            for title in (
                "warm-up's end",
                "end",
                "mean weight",
                "weighted loss",
                "light weights, %",
                "minutes",
                "runs",
            )
        ],
        rows=[
            _text_row(
                label,
                _format_number(means.warmup_accuracy, ".1f"),
                _format_number(means.accuracy, ".1f"),
                _format_number(means.weight, ".3f"),
                _format_number(means.loss, ".3f"),
                _format_number(means.light, ".1f"),
                _format_number(means.minutes, ".1f"),
                str(number),
            )
            for label, means, number in summarize_training(setting, workdir)
        ],
        caption=(
            "Accuracy on the training images under the training attack, in percent, in the last epoch of the warm-up "
            f"and in the last of all; mean weight and share of the weights below {LIGHT} in the epochs after the "
            "warm-up; weighted loss after the warm-up, a mean over these epochs weighted by their learning rate, "
            "a rough proxy for how much the network still learns, not comparable between objectives; minutes of "
            "training, the warm-up included. Means over the runs."
        ),
    )


def _format_number(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)


def _albums(setting: Setting, workdir: pathlib.Path) -> list[Album]:
    """Returns the pictures of the first run of each group that has some."""
    albums = []
    for group in setting.groups:
        for seed, run in sorted(group.runs.items()):
            paths = figures.of_run(workdir / run.path).items()
            if pictures := {figures.FIGURES[name]: path for name, path in paths if _is_png(path)}:
                albums.append(Album(f"{setting.label(group)}, seed {seed}", run.path, pictures))
                break
    return albums


def _is_png(path: pathlib.Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(8) == b"\x89PNG\r\n\x1a\n"
    except OSError:
        return False
