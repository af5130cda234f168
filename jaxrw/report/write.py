"""The report of all runs below a directory: Markdown, LaTeX, CSV and one HTML page with everything in it."""

import base64
import csv
import dataclasses
import io
import json
import math
import os
import pathlib

import jinja2

from jaxrw import figures
from jaxrw.errors import RunError, UserError
from jaxrw.report import published, tables, trends
from jaxrw.report.collect import collect
from jaxrw.report.groups import NAMES, group, mean_and_deviation
from jaxrw.report.terminal import TITLES, table

FILES = ("report.md", "report.tex", "report.csv", "report.html")


@dataclasses.dataclass(frozen=True)
class Section:
    """A setting with all that is said of it."""

    title: str
    setting: object
    differences: dict  # fields that differ from the paper's; None where the paper has nothing to compare
    tables: list
    trends: list
    correlations: list  # (label, checkpoint, r of clean images, r under attack, number of runs)
    pictures: list  # (label, run's path, {figure's name: path of its PNG})


def run(workdir, directory=None):
    """Write the report of every run below `workdir`; returns what to print: a table of the runs, and where it went.

    Args:
      workdir: directory of all runs.
      directory: where report.md, report.tex, report.csv and report.html go; None: `workdir`/report.

    Raises:
      UserError: no run below `workdir` can be used.
      RunError: the report cannot be written.
    """
    workdir = pathlib.Path(workdir)
    directory = workdir / "report" if directory is None else pathlib.Path(directory)
    runs, problems = collect(workdir)
    if not runs:
        reasons = "".join(f"; {problem.path}: {problem.words}" for problem in problems[:3])
        raise UserError(
            f"--workdir {workdir} has no usable results.json below it{reasons}; train or evaluate first"
        )
    sections = [_section(setting, workdir) for setting in group(runs, problems)]
    content = {"sections": sections, "problems": problems, "runs": runs, "name": workdir.resolve().name}
    written = (markdown(directory=directory, **content), latex(sections), as_csv(sections), html(**content))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in zip(FILES, written, strict=True):
            (directory / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(f"{directory} cannot be written: {error.strerror or error}") from error
    told = [f"{problem.path}: {problem.words}" for problem in problems]
    return "\n".join([table({run.path: run.content for run in runs}), "", *told, f"report in {directory}"])


def _section(setting, workdir):
    """All that is said of a setting."""
    config = setting.config
    model, dataset = config["model.name"], config["dataset.name"]
    changed = [
        f"{name} {config[f'model.{name}']}" for name in ("depth", "width") if config.get(f"model.{name}")
    ]
    title = tables.MODELS.get(model, model) + (f" ({', '.join(changed)})" if changed else "")
    made = tables.create(setting)
    known = published.blocks(dataset, model)
    return Section(
        title=f"{title} on {tables.DATASETS.get(dataset, dataset)}",
        setting=setting,
        differences=published.differences(config) if known else None,
        tables=made,
        trends=trends.create(made),
        correlations=_correlations(setting, workdir),
        pictures=_pictures(setting, workdir),
    )


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
        return (
            facts
            if isinstance(facts["name"], str) and all(math.isfinite(number) for number in numbers)
            else None
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


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


def measured(cell):
    """Text of a cell: mean and sample deviation; "not run" where there is none."""
    if cell.mean is None:
        return "not run"
    return f"{cell.mean:.2f}" + ("" if cell.deviation is None else f" ± {cell.deviation:.2f}")


def counted(cell):
    """How many seeds a cell has, with a mark where some lack."""
    return f"n={len(cell.values)}{'‡' if cell.missing else ''}" if cell.values else ""


def beside(cell):
    """The paper's number and the difference."""
    if cell.published is None:
        return ""
    mean, deviation = cell.published
    difference = "" if cell.difference is None else f" ({cell.difference:+.2f})"
    return f"paper {mean:.2f} ± {deviation:.2f}{difference}"


def missing_words(made):
    """Which seeds lack where, in one line; empty where none does."""
    found = {}
    for row in made.rows:
        for cell in row.cells:
            if cell.missing:
                found.setdefault((row.label, cell.missing), []).append(TITLES[cell.attack])
    return "; ".join(
        f"{label}: seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))} of "
        + ("all columns" if len(names) == len(made.attacks) else ", ".join(names))
        for (label, seeds), names in found.items()
    )


def caption(made):
    """What the numbers of a table are."""
    seeds = made.setting.seeds
    words = [
        f"Accuracy in percent on {made.setting.num_examples:,} test images, mean ± sample deviation over n seeds "
        f"(found: {', '.join(map(str, seeds))}). Bold: best of its column. ↑: higher than without margin reweighting."
    ]
    if any(cell.published for row in made.rows for cell in row.cells):
        words.append("Paper: its mean ± deviation over five seeds, and measured minus published.")
    if not all(row.cells[-1].values for row in made.rows):
        words.append("⚠ AutoAttack was not run for every row: believe no other robust accuracy without it.")
    if missing_words(made):
        words.append(f"‡ Seeds missing: {missing_words(made)}.")
    return " ".join([*words, *(f"{note}." for note in made.notes)])


def setting_words(section):
    """The setting's schedule and size, and how far it is from the paper's."""
    config = section.setting.config
    words = [f"{config['optim.num_epochs']} epochs, {section.setting.num_examples:,} test images."]
    if section.differences:
        fields = ", ".join(
            f"{name} {mine} (paper {theirs})" for name, (mine, theirs) in section.differences.items()
        )
        words.append(
            f"Not the paper's settings, so compare the order of its numbers, not their size: {fields}."
        )
    elif section.differences is not None:
        words.append("The paper's settings.")
    return " ".join(words)


def markdown(*, sections, problems, runs, name, directory):
    """The report in Markdown, pictures by their paths relative to `directory`."""
    parts = [f"# Results of {_plain(name)}", f"{len(runs)} runs."]
    if problems:
        parts += [
            "## To know first",
            "\n".join(f"- **{_plain(p.path)}**: {_plain(p.words)}" for p in problems),
        ]
    for section in sections:
        parts += [f"## {_plain(section.title)}", _plain(setting_words(section))]
        for made in section.tables:
            parts += [f"### {_plain(made.title)}", _markdown_table(made), _plain(caption(made))]
        parts += _markdown_trends(section) + _markdown_correlations(section)
        for label, _, pictures in section.pictures:
            parts += [f"<details><summary>Figures: {_plain(label)}</summary>"]
            for picture, path in pictures.items():
                where = pathlib.Path(os.path.relpath(path, directory)).as_posix()
                parts += [f"![{figures.FIGURES[picture]}](<{where}>)"]
            parts += ["</details>"]
    return "\n\n".join(parts) + "\n"


def _plain(text):
    """Text whose characters mean nothing to Markdown or HTML."""
    text = text.replace("\n", " ").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return (
        text.replace("|", "\\|").replace("`", "'").replace("_", "\\_").replace("*", "\\*").replace("[", "\\[")
    )


def _markdown_table(made):
    """Cells of two lines: what was measured, and the paper's number below it."""
    rows = [["", *(TITLES[attack] for attack in made.attacks)]]
    for row in made.rows:
        cells = []
        for cell in row.cells:
            text = f"**{measured(cell)}**" if cell.best else measured(cell)
            text = f"⚠ {text}" if cell.attack == "aa" and not cell.values else text
            text = f"{text}{' ↑' if cell.improved else ''} {counted(cell)}".strip()
            cells.append(f"{text}<br>{beside(cell)}" if beside(cell) else text)
        rows.append([_plain(row.label), *cells])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"|---|{'---:|' * len(made.attacks)}", *lines[1:]])


def _markdown_trends(section):
    """The trends as a table."""
    if not section.trends:
        return []
    rows = [f"| {' | '.join(map(_plain, row))} |" for row in trend_rows(section)]
    head = "| | table | attack | paper | measured | seeds | |\n|---|---|---|---:|---:|---:|---|"
    return ["### The paper's trends", "\n".join([head, *rows]), TREND_WORDS]


TREND_WORDS = (
    "Differences in percentage points, seed by seed; ± is their standard error. A difference within two standard "
    "errors is not told apart from 0."
)


def trend_rows(section):
    """Text of the trends, row by row."""
    return [
        (
            trend.words,
            trend.table.title.split(":")[0],
            TITLES[trend.attack],
            f"{trend.published:+.2f}",
            f"{trend.measured:+.2f}" + ("" if trend.error is None else f" ± {trend.error:.2f}"),
            str(trend.num_seeds),
            trend.verdict,
        )
        for trend in section.trends
    ]


def _markdown_correlations(section):
    """Figure 4's r as a table."""
    if not section.correlations:
        return []
    rows = [f"| {' | '.join(map(_plain, row))} |" for row in correlation_rows(section)]
    head = "| | checkpoint | clean images | under PGD-20 | runs |\n|---|---|---:|---:|---:|"
    return [f"### {CORRELATION_TITLE}", "\n".join([head, *rows]), correlation_words()]


CORRELATION_TITLE = "Figure 4: Pearson's r of similarity and incorrect rate (Eq. 23)"


def correlation_words():
    """The paper's r."""
    facts = published.load()["figure4"]
    model, dataset = tables.MODELS[facts["model"]], tables.DATASETS[facts["dataset"]]
    return f"The paper: {facts['r']:.2f} for {model} on {dataset} with {NAMES[facts['method']]} adversarial training."


def correlation_rows(section):
    """Text of the r's, row by row."""
    return [
        (label, checkpoint, f"{clean:.3f}", f"{adversarial:.3f}", str(number))
        for label, checkpoint, clean, adversarial, number in section.correlations
    ]


def latex(sections):
    """All tables for a paper that loads booktabs."""
    return "% Needs \\usepackage{booktabs}.\n\n" + "\n\n".join(
        _latex_table(made) for section in sections for made in section.tables
    )


_LATEX = {
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "‡": r"$\ddagger$",
    "⚠": r"\textbf{!}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
} | {character: f"\\{character}" for character in "&%$#_{}"}


def _tex(text):
    """Text whose characters mean nothing to TeX."""
    return "".join(_LATEX.get(character, character) for character in text)


def _latex_table(made):
    """Two lines a row: what was measured, and the paper's number in small type."""
    lines = [
        r"\begin{table}",
        rf"\caption{{{_tex(made.title)}. {_tex(caption(made))}}}",
        rf"\begin{{tabular}}{{l{'r' * len(made.attacks)}}}",
        r"\toprule",
        " & ".join(["", *(TITLES[attack] for attack in made.attacks)]) + r" \\",
        r"\midrule",
    ]
    for row in made.rows:
        cells = []
        for cell in row.cells:
            text = _tex(measured(cell))
            text = rf"\textbf{{{text}}}" if cell.best else text
            cells.append(
                text + (r"$\uparrow$" if cell.improved else "") + (r"$\ddagger$" if cell.missing else "")
            )
        lines.append(" & ".join([_tex(row.label), *cells]) + r" \\")
        if any(cell.published for cell in row.cells):
            small = [rf"{{\scriptsize {_tex(beside(cell))}}}" if beside(cell) else "" for cell in row.cells]
            lines.append(" & ".join(["", *small]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"])


_COLUMNS = [
    "dataset",
    "model",
    "table",
    "title",
    "checkpoint",
    "row",
    "attack",
    "mean",
    "deviation",
    "num_seeds",
    "seeds",
    "missing_seeds",
    "num_examples",
    "best",
    "improved",
    "paper_mean",
    "paper_deviation",
    "difference",
]


def as_csv(sections):
    """A line a cell, numbers in full; empty where there is none."""
    file = io.StringIO()
    writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for section in sections:
        config = section.setting.config
        for made in section.tables:
            for row in made.rows:
                for cell in row.cells:
                    mean, deviation = cell.published or ("", "")
                    values = {
                        "dataset": config["dataset.name"],
                        "model": config["model.name"],
                        "table": made.number or "",
                        "title": made.title,
                        "checkpoint": made.checkpoint,
                        "row": row.label,
                        "attack": cell.attack,
                        "mean": cell.mean,
                        "deviation": cell.deviation,
                        "num_seeds": len(cell.values),
                        "seeds": " ".join(map(str, sorted(cell.values))),
                        "missing_seeds": " ".join(map(str, cell.missing)),
                        "num_examples": made.setting.num_examples,
                        "best": int(cell.best),
                        "improved": int(cell.improved),
                        "paper_mean": mean,
                        "paper_deviation": deviation,
                        "difference": cell.difference,
                    }
                    writer.writerow({name: _safe(value) for name, value in values.items()})
    return file.getvalue()


def _safe(value):
    """A text that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


def html(*, sections, problems, runs, name):
    """One page that needs nothing but itself: pictures are in it, what came from files is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxrw.report", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.globals |= {
        "measured": measured,
        "counted": counted,
        "beside": beside,
        "caption": caption,
        "setting_words": setting_words,
        "trend_rows": trend_rows,
        "trend_words": TREND_WORDS,
        "correlation_rows": correlation_rows,
        "correlation_title": CORRELATION_TITLE,
        "correlation_words": correlation_words(),
        "titles": TITLES,
        "figures": figures.FIGURES,
        "embedded": _embedded,
    }
    return environment.get_template("page.html").render(
        sections=sections, problems=problems, runs=runs, name=name
    )


def _embedded(path):
    """A PNG as the address of itself."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
