"""The report of all runs below a directory: Markdown, LaTeX, CSV and one HTML page with everything in it."""

import pathlib

from jaxrw.report import latex, markdown, page, sections, spreadsheet
from jaxrw.report.collect import collect
from jaxrw.report.groups import group
from jaxrw.report.terminal import table
from jaxrw.system import files
from jaxrw.system.errors import RunError, UserError

# In the directory of all runs: what its owner has to say about them, in Markdown.
_NOTES = "notes.md"


def run(workdir, directory=None, *, markdown_path=None):
    """Write the report of every run below `workdir`; returns what to print: a table of the runs, and where it went.

    Args:
      workdir: directory of all runs.
      directory: where report.md, report.tex, report.csv and report.html go; None: `workdir`/report.
      markdown_path: where the Markdown goes once more, its pictures found from there; None: nowhere.

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
    notes = _read_notes(workdir / _NOTES)
    written = {
        directory / "report.md": markdown.render(directory=directory, notes=notes, **content),
        directory / "report.tex": latex.render(found),
        directory / "report.csv": spreadsheet.render(found),
        directory / "report.html": page.render(**content),
    }
    if markdown_path:
        path = pathlib.Path(markdown_path)
        written[path] = markdown.render(directory=path.parent, notes=notes, **content)
    for path, text in written.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with files.replacing(path) as file:
                file.write(text.encode())
        except OSError as error:
            raise RunError(f"{path} cannot be written: {error.strerror or error}") from error
    told = [f"{problem.path}: {problem.words}" for problem in problems]
    return "\n".join([table({run.path: _checked(run) for run in runs}), "", *told, f"report in {directory}"])


def _checked(run):
    """What of a run's results was checked, in their form."""
    return {"config": {"method": {"name": run.config["method.name"]}}, "checkpoints": run.checkpoints}


def _read_notes(path):
    """Content of the notes, empty where there are none."""
    try:
        return path.read_text() if path.exists() else ""
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}; it must be text in UTF-8") from error
