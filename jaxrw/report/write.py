"""The report of all runs below a directory: Markdown, LaTeX, CSV and one HTML page with everything in it."""

import pathlib

from jaxrw import files
from jaxrw.errors import RunError, UserError
from jaxrw.report import latex, markdown, page, sections, spreadsheet
from jaxrw.report.collect import collect
from jaxrw.report.groups import group
from jaxrw.report.terminal import table


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
    found = [sections.create(setting, workdir) for setting in group(runs, problems)]
    content = {"sections": found, "problems": problems, "runs": runs, "name": workdir.resolve().name}
    written = {
        "report.md": markdown.render(directory=directory, **content),
        "report.tex": latex.render(found),
        "report.csv": spreadsheet.render(found),
        "report.html": page.render(**content),
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in written.items():
            with files.replacing(directory / name) as file:
                file.write(text.encode())
    except OSError as error:
        raise RunError(f"{directory} cannot be written: {error.strerror or error}") from error
    told = [f"{problem.path}: {problem.words}" for problem in problems]
    return "\n".join([table({run.path: run.content for run in runs}), "", *told, f"report in {directory}"])
