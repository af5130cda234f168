"""The report in Markdown."""

import os
import pathlib

from jaxrw import figures
from jaxrw.attacks.suite import ATTACKS
from jaxrw.report import words


def render(*, sections, problems, runs, name, directory, notes=""):
    """The report in Markdown, pictures by their paths relative to `directory`; `notes` are Markdown already."""
    parts = [f"# Results of {_plain(name)}", *([notes.strip()] if notes else []), f"{words.runs(len(runs))}."]
    if problems:
        parts += [
            "## To know first",
            "\n".join(f"- **{_plain(p.path)}**: {_plain(p.words)}" for p in problems),
        ]
    for section in sections:
        parts += [f"## {_plain(section.title)}", _plain(words.setting_words(section))]
        parts += [_plain(text) for text in (words.circumstances(section),) if text]
        for made in section.tables:
            parts += [f"### {_plain(made.title)}", _table(made), _plain(words.caption(made))]
        parts += _trends(section) + _correlations(section) + _training(section)
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


def _table(made):
    """Cells of two lines: what was measured, and the paper's number below it."""
    rows = [["", *(ATTACKS[attack].title for attack in made.attacks)]]
    for row in made.rows:
        cells = []
        for cell in row.cells:
            text = f"**{words.measured(cell)}**" if cell.best else words.measured(cell)
            text = f"{words.NOT_RUN} {text}" if words.lacks_autoattack(cell) else text
            text = f"{text}{' ↑' if cell.improved else ''} {words.counted(cell)}".strip()
            cells.append(f"{text}<br>{words.beside(cell)}" if words.beside(cell) else text)
        rows.append([_plain(row.label), *cells])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"|---|{'---:|' * len(made.attacks)}", *lines[1:]])


def _trends(section):
    """The trends as a table."""
    if not section.trends:
        return []
    rows = [f"| {' | '.join(map(_plain, row))} |" for row in words.trend_rows(section)]
    head = "| | table | attack | paper | measured | seeds | |\n|---|---|---|---:|---:|---:|---|"
    return ["### The paper's trends", "\n".join([head, *rows]), _plain(words.trend_words(section))]


def _correlations(section):
    """Figure 4's r as a table."""
    if not section.correlations:
        return []
    rows = [f"| {' | '.join(map(_plain, row))} |" for row in words.correlation_rows(section)]
    head = "| | checkpoint | clean images | under PGD-20 | runs |\n|---|---|---:|---:|---:|"
    return [f"### {words.CORRELATION_TITLE}", "\n".join([head, *rows]), words.correlation_words()]


def _training(section):
    """How the training went, as a table."""
    if not section.training:
        return []
    rows = [f"| {' | '.join(map(_plain, row))} |" for row in words.training_rows(section)]
    columns = words.TRAINING_COLUMNS
    head = f"| | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}"
    return [f"### {words.TRAINING_TITLE}", "\n".join([head, *rows]), words.TRAINING_WORDS]
