"""The pages of results are what the report makes of results/, to the last character: no number in them is typed."""

import pathlib
import shutil

import pytest

from jaxrw import report

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("runs", "page"),
    [
        ("results/mini_c10", "RESULTS.md"),
        ("results/controls", "results/controls/README.md"),
        ("results/own", "results/own/README.md"),
    ],
)
def test_it_is_the_report_of_what_is_kept(runs, page, tmp_path):
    kept = shutil.copytree(ROOT / runs, tmp_path / runs)
    report.run(kept, tmp_path / "report", markdown_path=tmp_path / page)
    assert (tmp_path / page).read_text() == (ROOT / page).read_text()
