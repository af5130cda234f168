"""RESULTS.md is what the report makes of results/, to the last character: no number in it is typed."""

import pathlib
import shutil

from jaxrw import report

ROOT = pathlib.Path(__file__).parents[2]


def test_it_is_the_report_of_what_is_kept(tmp_path):
    kept = shutil.copytree(ROOT / "results" / "mini_c10", tmp_path / "results" / "mini_c10")
    report.run(kept, tmp_path / "report", markdown_path=tmp_path / "RESULTS.md")
    assert (tmp_path / "RESULTS.md").read_text() == (ROOT / "RESULTS.md").read_text()
