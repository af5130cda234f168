"""Writes the report of all runs below a directory as Markdown, LaTeX, CSV and one HTML page."""

import dataclasses
import difflib
import os
import pathlib
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence

from jaxrw.report.document import Document
from jaxrw.report.evidence.collect import Problem, Run, collect
from jaxrw.report.evidence.comparisons import Comparison
from jaxrw.report.evidence.groups import group_runs
from jaxrw.report.evidence.questions import Question, read_questions
from jaxrw.report.evidence.tables import create_tables
from jaxrw.report.fronts import draw_fronts
from jaxrw.report.render import render_latex, render_markdown, render_page
from jaxrw.report.sections import compare_all, count_runs, create_section
from jaxrw.report.spreadsheet import render_comparisons, render_csv
from jaxrw.report.terminal import table
from jaxrw.runs.json_files import as_run_errors
from jaxrw.system import files
from jaxrw.system.errors import UserError

# In the directory of all runs: what its owner has to say about them, in Markdown.
_NOTES = "notes.md"


def run(
    workdir: str | os.PathLike[str],
    directory: str | os.PathLike[str] | None = None,
    *,
    markdown_path: str | os.PathLike[str] | None = None,
) -> str:
    """Writes the report of every run below `workdir`.

    Args:
      workdir: directory of all runs.
      directory: of report.md, report.tex, report.csv, comparisons.csv, report.html and front.png; None: a folder
        "report" in `workdir`.
      markdown_path: file for a second copy of the Markdown, with links to the pictures from there; None: no copy. It
        shows a second copy of front.png that is written to `workdir`, to be kept with the runs.

    Returns:
      What to print: a table of the runs, problems, and where the report is.

    Raises:
      UserError: no run below `workdir` can be used, or one of its comparisons*.json is wrong.
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
    settings = [(setting, create_tables(setting)) for setting in group_runs(runs, problems)]
    questions = read_questions(workdir)
    title, notes = _read_notes(workdir / _NOTES)
    with as_run_errors(directory):
        pictures = draw_fronts([setting for setting, _ in settings], directory)
    comparisons = [compare_all(setting, tables, questions) for setting, tables in settings]
    labels = {setting.label(group) for setting, _ in settings for group in setting.groups}
    problems += _unanswered(questions, comparisons, labels)
    document = Document(
        title=title or f"Results of {workdir.resolve().name}",
        notes=notes,
        num_runs=count_runs(len(runs)),
        problems=problems,
        sections=[
            create_section(setting, tables, workdir, comparisons=compared, pictures=fronts)
            for (setting, tables), compared, fronts in zip(settings, comparisons, pictures, strict=True)
        ],
    )
    texts = {
        directory / "report.md": render_markdown(document, directory),
        directory / "report.tex": render_latex(document),
        directory / "report.csv": render_csv(settings),
        directory / "comparisons.csv": render_comparisons(comparisons),
        directory / "report.html": render_page(document),
    }
    if markdown_path:
        path = pathlib.Path(markdown_path)
        with as_run_errors(workdir):
            texts[path] = render_markdown(_with_pictures_in(workdir, document), path.parent)
    _write(texts)
    return _describe(runs, problems, directory)


def _write(texts: Mapping[pathlib.Path, str]) -> None:
    for path, text in texts.items():
        with as_run_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with files.replacing(path) as file:
                file.write(text.encode())


def _describe(runs: Iterable[Run], problems: Iterable[Problem], directory: pathlib.Path) -> str:
    """Returns a table of the runs, the problems, and where the report is."""
    results = {run.path: {"config": run.content["config"], "checkpoints": run.checkpoints} for run in runs}
    lines = [f"{problem.path}: {problem.words}" for problem in problems]
    return "\n".join([table(results), "", *lines, f"report in {directory}"])


def _unanswered(
    questions: Mapping[str, Sequence[Question]],
    comparisons: Sequence[Mapping[str, Sequence[Comparison]]],
    labels: Collection[str],
) -> list[Problem]:
    """Returns a problem for each row of a question that no table has, and for each table without an answer."""
    problems = []
    for title, asked in questions.items():
        for row in sorted({row for question in asked for row in question.rows} - set(labels)):
            (nearest,) = difflib.get_close_matches(row, labels, n=1, cutoff=0)
            problems.append(Problem(title, f"no row is called {row!r}; did you mean {nearest!r}?"))
        if not any(compared[title] for compared in comparisons):
            words = "no table, since no runs with one setting have both rows of one of its comparisons"
            problems.append(Problem(title, words))
    return problems


def _with_pictures_in(directory: pathlib.Path, document: Document) -> Document:
    """Copies the pictures over all runs to a directory, and returns the document with those."""
    sections = []
    for section in document.sections:
        pictures = {}
        for caption, path in section.pictures.items():
            pictures[caption] = directory / path.name
            if path.resolve() != pictures[caption].resolve():
                shutil.copyfile(path, pictures[caption])
        sections.append(dataclasses.replace(section, pictures=pictures))
    return dataclasses.replace(document, sections=sections)


def _read_notes(path: pathlib.Path) -> tuple[str, str]:
    """Returns the title that a first line "# TITLE" gives the report, and the rest; empty what is not there."""
    try:
        text = path.read_text().strip() if path.exists() else ""
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}; it must be text in UTF-8") from error
    if not text.startswith("# "):
        return "", text
    title, _, rest = text.removeprefix("# ").partition("\n")
    return title.strip(), rest.strip()
