"""The same report as Markdown, LaTeX, HTML and files."""

import json
import pathlib
import re

import pytest
from helpers.made_up_runs import put
from PIL import Image

import launch
from jaxrw import report
from jaxrw.report import render
from jaxrw.system.errors import UserError


def test_markdown_latex_and_html_show_the_same(three_seeds):
    report.run(three_seeds)
    text = (three_seeds / "report" / "report.md").read_text()
    assert "### Table 1: ResNet-18 on CIFAR-10, last checkpoint" in text
    line = next(line for line in text.split("Table 1: ")[1].splitlines() if line.startswith("| Ours+MAIL"))
    assert "53.25 ± 0.35 ↑ n=2‡<br>paper 57.96 ± 0.13 (-4.71)" in line
    assert "⚠ not run<br>paper 46.38 ± 0.26" in text
    assert (
        "‡ Seeds missing: Standard: seeds 1, 2 of Clean, PGD-100; MAIL: seed 2 of AA; Ours+MAIL: seed 2 of"
        in text
    )
    assert "⚠ AutoAttack was not run for every row" in text
    assert "120 epochs, eps 8/255, 10,000 test images. The paper's settings." in text
    tex = (three_seeds / "report" / "report.tex").read_text()
    assert r"& 53.25 $\pm$ 0.35$\uparrow$$^{\ddagger}_{n=2}$ &" in tex
    assert r"{\tiny 57.96 $\pm$ 0.13 ($-$4.71)}" in tex
    assert r"\textbf{!} not run" in tex
    assert r"\caption{As the paper's Table 1: ResNet-18 on CIFAR-10, last checkpoint. 120 epochs" in tex
    assert r"\caption{ResNet-18 on CIFAR-10: All runs, last checkpoint. 120 epochs" in tex
    assert "120 epochs, eps 8/255, 10,000 test images. The paper's settings. Accuracy in percent" in tex
    assert tex.count(r"\toprule") == tex.count(r"\bottomrule") == tex.count(r"\begin{tabular}") > 1
    assert len(set(re.findall(r"\\label{.*}", tex))) == tex.count(r"\label") == tex.count(r"\begin{table*}")
    page = (three_seeds / "report" / "report.html").read_text().replace("\u00a0", " ")
    for part in ("53.25 ± 0.35", "paper 57.96 ± 0.13 (-4.71)", "⚠ not run", "n=2‡"):
        assert part in page


def test_names_and_values_are_escaped(tmp_path):
    hostile = "<script>alert(1)</script>"
    put(tmp_path, "<img src=x onerror=alert(1)>", last={"pgd20": 50.0}, dataset__name=hostile)
    put(tmp_path, "=1+1|`x`", seed=1, method="standard", last={"pgd20": 50.0}, dataset__name="=cmd")
    (tmp_path / "<b>bad").mkdir()
    (tmp_path / "<b>bad" / "results.json").write_text("{")
    report.run(tmp_path)
    page = (tmp_path / "report" / "report.html").read_text()
    assert "<script" not in page
    assert "<img" not in page
    assert "<b>bad" not in page
    text = (tmp_path / "report" / "report.md").read_text()
    assert "<script" not in text
    assert "<img" not in text
    assert "'=cmd" in (tmp_path / "report" / "report.csv").read_text()


def test_pictures_are_in_the_page_and_linked_from_markdown(tmp_path):
    put(tmp_path / "runs", "a", last={"pgd20": 50.0})
    figures = tmp_path / "runs" / "a" / "figures"
    figures.mkdir()
    Image.new("RGB", (8, 8), "red").save(figures / "learning_curves.png")
    (figures / "weights.png").write_text("<script>no picture</script>")
    facts = {"name": "last", "r": {"clean": 0.5, "adversarial": 0.75}}
    (figures / "data.json").write_text(json.dumps(facts))
    report.run(tmp_path / "runs", tmp_path / "elsewhere")
    page = (tmp_path / "elsewhere" / "report.html").read_text()
    assert page.count("<img ") == page.count('src="data:image/png;base64,iVBOR') == 1
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    text = (tmp_path / "elsewhere" / "report.md").read_text()
    (link,) = re.findall(r"\]\(<(.*)>\)", text)
    assert (tmp_path / "elsewhere" / link).resolve() == figures / "learning_curves.png"
    assert "| MAIL | last | 0.500 | 0.750 | 1 |" in text
    assert "The paper: 0.98 for WRN-34-10 on CIFAR-10 with Standard adversarial training." in text
    (figures / "data.json").write_text('{"name": "last", "r": {"clean": null, "adversarial": 2}}')
    report.run(tmp_path / "runs")
    assert "Eq. 23" not in (tmp_path / "runs" / "report" / "report.md").read_text()


def test_a_report_that_cannot_be_written(tmp_path, capsys):
    put(tmp_path, "a", last={"pgd20": 50.0})
    (tmp_path / "report").write_text("in the way")
    assert launch.main(["launch.py", "--mode=report", f"--workdir={tmp_path}"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_tex_has_no_character_that_tex_takes_for_more():
    assert render.escape_tex("50% & a_b #1 ±") == r"50\% \& a\_b \#1 $\pm$"


def test_the_page_is_in_the_package():
    folder = pathlib.Path(report.__file__).parent
    for name in ("page.html", "report.md.jinja", "report.tex.jinja", "evidence/published.json"):
        assert (folder / name).is_file()


def test_notes_that_are_no_text_are_named(tmp_path):
    put(tmp_path, "mail", last={"pgd100": 50.0})
    (tmp_path / "notes.md").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"notes\.md cannot be read"):
        report.run(tmp_path)
