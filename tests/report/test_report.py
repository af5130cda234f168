"""Reports from made-up results.json files: every number of a table by hand, every unusable file named."""

import copy
import csv
import json
import pathlib
import re

import pytest
from helpers.made_up_runs import put
from PIL import Image

import launch
from configs import digits
from jaxrw import methods, report, runs
from jaxrw.report import render
from jaxrw.report.evidence import collect, published
from jaxrw.system.errors import UserError


@pytest.fixture
def three_seeds(tmp_path):
    """MAIL and Ours+MAIL with three and two seeds; AutoAttack on some; Standard once, without AutoAttack."""
    mail = ({"pgd100": 50.0, "aa": 40.0}, {"pgd100": 52.0, "aa": 41.0}, {"pgd100": 54.0})
    ours = ({"pgd100": 53.0, "aa": 39.0}, {"pgd100": 53.5, "aa": 39.5})
    for seed, accuracy in enumerate(mail):
        put(tmp_path, f"mail-{seed}", seed=seed, last=accuracy)
    for seed, accuracy in enumerate(ours):
        put(tmp_path, f"ours-{seed}", seed=seed, method="ours_mail", last=accuracy)
    put(tmp_path, "standard-0", method="standard", last={"pgd100": 48.0, "clean": 85.0})
    return tmp_path


def cells(workdir):
    """Lines of report.csv of Table 1, by row and attack."""
    with (workdir / "report" / "report.csv").open() as file:
        return {(line["row"], line["attack"]): line for line in csv.DictReader(file) if line["table"] == "1"}


def test_every_number_of_a_table(three_seeds):
    """50, 52, 54: mean 52, sample deviation 2; 53, 53.5: 53.25 and 1/sqrt(8); 40, 41: 40.5 and 1/sqrt(2)."""
    report.run(three_seeds)
    found = cells(three_seeds)
    by_hand = {
        # row, attack: mean, deviation, seeds, missing, best, improved, paper, difference
        ("MAIL", "pgd100"): (52, 2, "0 1 2", "", 0, 0, 56.66, -4.66),
        ("Ours+MAIL", "pgd100"): (53.25, 0.353553, "0 1", "2", 0, 1, 57.96, -4.71),
        ("Standard", "pgd100"): (48, None, "0", "1 2", 0, 0, 48.86, -0.86),
        ("MAIL", "aa"): (40.5, 0.707107, "0 1", "2", 0, 0, 45.22, -4.72),
        ("Ours+MAIL", "aa"): (39.25, 0.353553, "0 1", "2", 0, 0, 44.78, -5.53),
        ("Standard", "aa"): (None, None, "", "", 0, 0, 46.38, None),
        ("Standard", "clean"): (85, None, "0", "1 2", 0, 0, 85.69, -0.69),
        ("WMMR", "pgd100"): (None, None, "", "", 0, 0, 49.60, None),
    }
    for (row, attack), (
        mean,
        deviation,
        seeds,
        missing,
        best,
        improved,
        paper,
        difference,
    ) in by_hand.items():
        line = found[row, attack]
        numbers = {"mean": mean, "deviation": deviation, "paper_mean": paper, "difference": difference}
        for name, value in numbers.items():
            got = float(line[name]) if line[name] else None
            assert got == (value if value is None else pytest.approx(value, abs=1e-5)), (row, attack, name)
        assert (line["seeds"], line["missing_seeds"]) == (seeds, missing), (row, attack)
        assert (int(line["best"]), int(line["improved"])) == (best, improved), (row, attack)
        assert (line["num_seeds"], line["num_examples"]) == (str(len(seeds.split())), "10000")


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


def test_claims_are_differences_seed_by_seed(three_seeds):
    """Ours+MAIL - MAIL, PGD-100: 3 and 1.5, mean 2.25; two seeds give no interval."""
    report.run(three_seeds)
    text = (three_seeds / "report" / "report.md").read_text()
    trends = text.split("### The paper's claims")[1]
    assert (
        "| Ours+MAIL against MAIL | Table 1 | PGD-100 | +1.30 | +2.25 | 2 | - | - | not decided, two seeds |"
        in trends
    )
    # AutoAttack: -1 and -1.5, mean -1.25; the paper's 44.78 - 45.22.
    assert (
        "| Ours+MAIL against MAIL | Table 1 | AA | -0.44 | -1.25 | 2 | - | - | not decided, two seeds |"
        in trends
    )
    assert (
        "| MAIL against Standard | Table 1 | PGD-100 | +7.80 | +2.00 | 1 | - | - | not decided, one seed |"
        in trends
    )
    # Standard has no AutoAttack: its row says so.
    assert "| MAIL against Standard | Table 1 | AA | -1.16 | - | 0 | - | - | not run |" in trends
    assert "GAIRAT" not in trends


def test_claims_of_runs_without_a_common_seed(tmp_path):
    put(tmp_path, "mail", seed=0, last={"pgd100": 50.0, "aa": 40.0})
    put(tmp_path, "standard", seed=1, method="standard", last={"pgd100": 48.0, "aa": 45.0})
    report.run(tmp_path)
    trends = (tmp_path / "report" / "report.md").read_text().split("### The paper's claims")[1]
    assert (
        "| MAIL against Standard | Table 1 | PGD-100 | +7.80 | - | 0 | - | - | no seed in common |" in trends
    )


def test_three_seeds_that_agree_are_not_certain_of_one_image(tmp_path):
    """0.01 points, one image of 10,000, with every seed."""
    for seed in range(3):
        put(tmp_path, f"mail-{seed}", seed=seed, last={"pgd100": 50.0, "aa": 40.0})
        put(tmp_path, f"standard-{seed}", seed=seed, method="standard", last={"pgd100": 49.99, "aa": 45.0})
    report.run(tmp_path)
    trends = (tmp_path / "report" / "report.md").read_text().split("### The paper's claims")[1]
    assert "| PGD-100 | +7.80 | +0.01 ± 0.01 | 3 | seeds | 0.05 | not decided |" in trends
    assert "| AA | -1.16 | -5.00 ± 0.01 | 3 | seeds | &lt; 0.0001 | seen |" in trends


def test_marks_compare_the_seeds_that_both_have(tmp_path):
    """Means of 45 (50 and 40) and 46: but 46 is of the seed with 50."""
    put(tmp_path, "mail-0", seed=0, last={"aa": 50.0})
    put(tmp_path, "mail-1", seed=1, last={"aa": 40.0})
    put(tmp_path, "ours-0", seed=0, method="ours_mail", last={"aa": 46.0})
    for seed, accuracy in enumerate((41.0, 42.0)):
        put(tmp_path, f"wmmr-{seed}", seed=seed, method="wmmr", last={"aa": accuracy})
    report.run(tmp_path)
    found = cells(tmp_path)
    marks = {row: (line["best"], line["improved"]) for (row, attack), line in found.items() if attack == "aa"}
    assert marks == {
        "Standard": ("0", "0"),
        "WMMR": ("0", "0"),
        "MAIL": ("1", "0"),
        "Ours+WMMR": ("0", "0"),
        "Ours+MAIL": ("0", "0"),
    }


def test_claims_that_the_paper_shows_of_another_network(tmp_path):
    """Similarity stands in Tables 4 and 7, of WRN-34-10 alone."""
    put(tmp_path, "with", method="ours_mail", last={"pgd100": 52.0, "aa": 46.0})
    put(tmp_path, "without", method="ours_mail", method__similarity=False, last={"pgd100": 50.0, "aa": 47.0})
    report.run(tmp_path)
    rows = {
        row["similarity"]: row["accuracy"]
        for block in published.load()["blocks"]
        if (block["table"], block["checkpoint"]) == (7, "last")
        for row in block["rows"]
    }
    text = (tmp_path / "report" / "report.md").read_text().split("### The paper's claims")[1]
    for attack, title, measured in (("pgd100", "PGD-100", "+2.00"), ("aa", "AA", "-1.00")):
        difference = f"{rows[True][attack][0] - rows[False][attack][0]:+.2f}"
        line = f"| with against without similarity, paper: WRN-34-10 | Table 7 | {title} | {difference} |"
        assert f"{line} {measured} | 1 |" in text


def test_a_best_checkpoint_of_the_warm_up_is_no_result_of_a_method(tmp_path):
    """All of the warm-up: no table; some: a note, and the table stays."""
    content = put(tmp_path, "mail", last={"aa": 40.0}, best={"pgd20": 50.0})
    content["checkpoints"]["best"]["epoch"] = 74
    runs.write_json(tmp_path / "mail" / "results.json", content)
    put(tmp_path, "standard", method="standard", last={"aa": 40.0}, best={"pgd20": 50.0})
    report.run(tmp_path)
    text = (tmp_path / "report" / "report.md").read_text()
    assert (
        "The best checkpoint of every method is of the warm-up, in which all weights are 1: it has no table."
        in text
    )
    assert ", best checkpoint" not in text
    put(tmp_path, "wmmr", method="wmmr", last={"aa": 41.0}, best={"clean": 81.0, "pgd20": 51.0})
    report.run(tmp_path)
    text = (tmp_path / "report" / "report.md").read_text()
    assert "All runs, best checkpoint" in text
    assert text.count("From the warm-up, before the method begins: MAIL (seed 0).") == 2


def test_claims_outside_of_their_interval_appear_or_not(tmp_path):
    """Differences 2, 2.2, 2.1 and 1, 1, 1.1; Student's t of two degrees 4.303; the paper: +1.30 and -0.44.

    Their t of 36.4 and 31 have p of 0.00075 and 0.00104: of two, Holm's are 0.0015 and the larger of that and 0.00104.
    """
    for seed, (pgd100, aa) in enumerate([(52.0, 41.0), (54.2, 42.0), (56.1, 43.1)]):
        put(tmp_path, f"mail-{seed}", seed=seed, last={"pgd100": 50.0 + 2 * seed, "aa": 40.0 + seed})
        put(tmp_path, f"ours-{seed}", seed=seed, method="ours_mail", last={"pgd100": pgd100, "aa": aa})
    report.run(tmp_path)
    trends = (tmp_path / "report" / "report.md").read_text().split("### The paper's claims")[1]
    assert "| PGD-100 | +1.30 | +2.10 ± 0.25 | 3 | seeds | 0.0015 | seen |" in trends
    assert "| AA | -0.44 | +1.03 ± 0.14 | 3 | seeds | 0.0015 | refuted at this scale |" in trends


def test_the_papers_other_tables(tmp_path):
    """tau and similarity choose the row; beta = -0.5 is none of the paper's; Tables 3 and 4 get a column AA."""
    from configs import wrn_c10

    for name, fields in {
        "two": {},
        "three": {"method__tau": 3.0},
        "without": {"method__similarity": False},
        "printed": {"method__beta": -0.5},
    }.items():
        put(
            tmp_path,
            name,
            config=wrn_c10,
            method="ours_mail",
            last={"cw_pgd": 50.0},
            best={"clean": 80.0, "fgsm": 60.0},
            **fields,
        )
    report.run(tmp_path)
    with (tmp_path / "report" / "report.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["mean"]]
    found = {
        (line["table"], line["row"], line["attack"], line["paper_mean"]) for line in lines if line["table"]
    }
    assert found == {
        ("1", "Ours+MAIL", "cw_pgd", "51.55"),
        ("3", "tau = 2", "cw_pgd", "51.55"),
        ("3", "tau = 3", "cw_pgd", "50.65"),
        ("4", "with similarity", "cw_pgd", "51.55"),
        ("4", "without similarity", "cw_pgd", "51.07"),
        ("5", "Ours+MAIL", "clean", "86.45"),
        ("5", "Ours+MAIL", "fgsm", "64.66"),
        ("7", "with similarity", "cw_pgd", "51.55"),
        ("7", "without similarity", "cw_pgd", "51.07"),
        ("7", "with similarity", "clean", "86.45"),
        ("7", "without similarity", "clean", "86.27"),
        ("7", "with similarity", "fgsm", "64.66"),
        ("7", "without similarity", "fgsm", "64.88"),
    }
    rows = {line["row"] for line in lines if not line["table"]}
    assert rows == {
        "Ours+MAIL",
        "Ours+MAIL, tau 3",
        "Ours+MAIL, without similarity",
        "Ours+MAIL, beta -0.5",
    }
    text = (tmp_path / "report" / "report.md").read_text()
    table3 = text.split("### Table 3")[1].split("###")[0]
    assert "| AA |" in table3
    assert table3.count("⚠ not run") == 3


def test_published_numbers():
    """All 352 of the eight tables; some by hand from the paper's text."""
    found = published.load()["blocks"]
    assert sum(len(row["accuracy"]) for block in found for row in block["rows"]) == 352
    rows = {
        (
            b["table"],
            b["dataset"],
            b["model"],
            b["checkpoint"],
            r["method"],
            r.get("tau"),
            r.get("similarity"),
        ): r
        for b in found
        for r in b["rows"]
    }
    assert len({key[0] for key in rows}) == 8
    for key, attack, value in (
        ((1, "cifar10", "wrn34_10", "last", "standard", None, None), "aa", [46.82, 0.38]),
        ((2, "cifar100", "resnet18", "last", "ours_mail", 3, True), "apgd_ce", [30.46, 0.17]),
        ((5, "cifar10", "wrn34_10", "best", "gairat", None, None), "cw_pgd", [45.85, 2.48]),
        ((7, "cifar10", "wrn34_10", "best", "ours_mail", 2, False), "pgd100", [61.35, 0.17]),
        ((8, "cifar100", "resnet18", "last", "ours_mail", 4, True), "aa", [21.83, 0.05]),
    ):
        assert rows[key]["accuracy"][attack] == value


def damaged(change):
    """results.json of a good run after a change of its content."""

    def make(content):
        content = copy.deepcopy(content)
        result = change(content)
        return json.dumps(content if result is None else result)

    return make


def at(*path, value):
    """A change that sets one value."""

    def change(content):
        for name in path[:-1]:
            content = content[name]
        content[path[-1]] = value

    return damaged(change)


UNUSABLE = {
    "no JSON": (lambda content: "{", "results.json is damaged"),
    "empty": (lambda content: "", "results.json is damaged"),
    "no text": (lambda content: b"\xff\xfe\x00", "results.json is damaged"),
    "deep": (lambda content: "[" * 200_000, "results.json is damaged"),
    "a list": (lambda content: "[]", "holds a list, not an object"),
    "of another program": (lambda content: '{"loss": 1}', "has no schema"),
    "another schema": (at("schema", value=2), "has schema 2; this version reads 1"),
    "without config": (damaged(lambda content: content.pop("config") and None), "config is missing"),
    "config that is none": (at("config", value=[1]), "config is [1]; must be of type dict"),
    "empty config": (
        damaged(lambda content: {**content, "config": {}}),
        "config.dataset.name is missing",
    ),
    "seed of text": (at("config", "seed", value="x"), "config.seed is 'x'; must be of type int"),
    "seed of truth": (at("config", "seed", value=True), "config.seed is True"),
    "no method": (at("config", "method", value={}), "config.method.name is missing"),
    "unknown method": (at("config", "method", "name", value="mart"), "'mart'; no such method is known"),
    "no checkpoints": (at("checkpoints", value={}), "checkpoints has neither last nor best"),
    "weights from elsewhere": (at("checkpoints", value={"file": {}}), "trained elsewhere, by no method"),
    "all null": (at("checkpoints", value={"last": None, "best": None}), "checkpoints are all null"),
    "a checkpoint of text": (at("checkpoints", "last", value="x"), "checkpoints.last is 'x'"),
    "no accuracy": (at("checkpoints", "last", value={"epoch": 1}), "checkpoints.last.accuracy is missing"),
    "NaN": (at("checkpoints", "last", "accuracy", "pgd20", value=float("nan")), "last.accuracy.pgd20 is nan"),
    "infinite": (at("checkpoints", "last", "accuracy", "aa", value=float("inf")), "last.accuracy.aa is inf"),
    "above 100": (at("checkpoints", "last", "accuracy", "aa", value=101), "must be a percentage in 0..100"),
    "text": (at("checkpoints", "last", "accuracy", "aa", value="44"), "last.accuracy.aa is '44'"),
    "no images": (at("checkpoints", "last", "num_examples", value=0), "num_examples 0"),
    "no epochs": (at("config", "optim", "num_epochs", value=-5), "num_epochs is -5; must be at least 1"),
    "not finished": (at("checkpoints", "last", "epoch", value=4), "not finished: 5 of 120 epochs"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_file_is_named_and_left_out(name, tmp_path, capsys):
    make, words = UNUSABLE[name]
    content = put(tmp_path, "good", last={"pgd20": 50.0})
    (tmp_path / "bad").mkdir()
    text = make(content)
    (tmp_path / "bad" / "results.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    found, (problem,) = collect.collect(tmp_path)
    assert [run.path for run in found] == ["good"]
    assert problem.path == "bad"
    assert "left out: " in problem.words
    assert words in problem.words
    assert launch.main(["launch.py", "--mode=report", f"--workdir={tmp_path}"]) == 0
    out, err = capsys.readouterr()
    assert "bad: left out" in out
    assert err == ""
    (tmp_path / "good" / "results.json").unlink()
    with pytest.raises(UserError, match="no usable"):
        report.run(tmp_path)


def test_duplicates_conflicts_and_missing_runs_are_named(tmp_path):
    put(tmp_path, "a", last={"pgd20": 50.0, "aa": 40.0})
    put(tmp_path, "b", last={"pgd20": 51.0})  # same config and seed, less measured, and another number
    put(tmp_path, "c", seed=1, last={"pgd20": 50.0})
    put(tmp_path, "d", seed=1, last={"pgd20": 50.0}, method__tau=4.0)  # MAIL has no tau
    put(tmp_path, "e", seed=2, last={"pgd20": 50.0}, optim__learning_rate=0.02)
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "config.json").write_text("{}")
    content = put(tmp_path, "g", seed=3, last={"pgd20": 50.0})
    content["config"]["seed"] = 4
    runs.write_json(tmp_path / "g" / "config.json", content["config"])
    report.run(tmp_path)
    text = (tmp_path / "report" / "report.md").read_text()
    told = dict(re.findall(r"- \*\*(\w)\*\*: (.*)", text))
    assert told == {
        "b": "left out: same config and seed as a, but pgd20 of last is 50.00 there and 51.00 here",
        "d": "left out: same config and seed as c",
        "e": "conflicts with a in optim.learning\\_rate (0.01 and 0.02): they are kept apart",
        "f": "has no results.json: not finished, or not evaluated yet",
        "g": "left out: results.json and config.json contradict each other: seed is 3 and 4",
    }
    assert text.count("\n## ResNet-18 on CIFAR-10") == 2
    assert "Not the paper's settings" in text


def fingerprint(digit, *, side=8):
    """A fingerprint of images that differ from others in their digest, and maybe in their size."""
    images = {"train": 24, "validation": 6, "test": 10_000}
    return {"classes": ["a", "b", "c"], "shape": [side, side, 3], "images": images, "sha256": digit * 64}


def test_folders_of_other_images_or_sizes_are_never_averaged(tmp_path):
    for name, data_dir, data in (
        ("a", "/data/pets", fingerprint("1")),
        ("moved", "/disk/pets", fingerprint("1")),
        ("other", "/data/cars", fingerprint("2")),
        ("smaller", "/data/pets", fingerprint("1", side=16)),
    ):
        folder = {"dataset__name": "folder", "dataset__data_dir": data_dir}
        put(tmp_path, name, seed=int(name == "moved"), last={"aa": 40.0}, data=data, **folder)
    report.run(tmp_path)
    text = (tmp_path / "report" / "report.md").read_text()
    assert text.count("## ResNet-18 on the folder pets") == 2
    assert text.count("## ResNet-18 on the folder cars") == 1
    words = "3 classes, 24 training, 6 validation and 10,000 test images of"
    assert f"Data: {words} 8x8x3, SHA-256 111111111111." in text
    assert f"Data: {words} 16x16x3, SHA-256 111111111111." in text
    assert f"Data: {words} 8x8x3, SHA-256 222222222222." in text
    assert f"conflicts with a in data ({words} 8x8x3, SHA-256 111111111111 and {words} 8x8x3, SHA" in text
    with (tmp_path / "report" / "report.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["mean"]]
    assert sorted((row["data"].partition("images of ")[2], row["num_seeds"]) for row in rows) == [
        ("16x16x3, SHA-256 111111111111", "1"),
        ("8x8x3, SHA-256 111111111111", "2"),
        ("8x8x3, SHA-256 222222222222", "1"),
    ]


def test_folders_of_versions_without_a_fingerprint_are_told_apart_by_their_place(tmp_path):
    for seed, place in enumerate(("/data/pets", "/data/pets", "/data/cars")):
        folder = {"dataset__name": "folder", "dataset__data_dir": place}
        put(tmp_path, f"run-{seed}", seed=seed, last={"aa": 40.0}, **folder)
    report.run(tmp_path)
    text = (tmp_path / "report" / "report.md").read_text()
    assert text.count("Data: the folder /data/pets.") == text.count("Data: the folder /data/cars.") == 1
    assert "40.00 ± 0.00" in text


def test_a_named_set_is_one_setting_with_runs_of_versions_without_a_fingerprint(tmp_path):
    put(tmp_path, "old", seed=0, last={"aa": 40.0})
    put(tmp_path, "new", seed=1, last={"aa": 42.0}, data=fingerprint("1"))
    put(tmp_path, "twice", seed=1, last={"aa": 42.0})
    assert "twice: left out: same config and seed as new" in report.run(tmp_path)
    text = (tmp_path / "report" / "report.md").read_text()
    assert "41.00 ± 1.41" in text
    put(tmp_path, "changed", seed=2, last={"aa": 43.0}, data=fingerprint("2"))
    report.run(tmp_path)  # Now nobody knows which of the two images the old one saw.
    assert (tmp_path / "report" / "report.md").read_text().count("\n## ResNet-18 on CIFAR-10") == 3


def test_a_run_from_before_a_field_was_there_is_compared_with_later_ones(tmp_path):
    earlier = put(tmp_path, "a", last={"pgd100": 50.0})
    for field in ("activation", "shortcut", "last_norm"):
        assert earlier["config"]["model"].pop(field) is None
    runs.write_json(tmp_path / "a" / "results.json", earlier)
    put(tmp_path, "b", seed=1, last={"pgd100": 52.0})
    report.run(tmp_path)
    assert cells(tmp_path)["MAIL", "pgd100"]["mean"] == "51.0"
    assert "kept apart" not in (tmp_path / "report" / "report.md").read_text()


def test_networks_are_named_with_what_is_unusual(tmp_path):
    put(tmp_path, "a", last={"pgd20": 50.0}, model__name="dm_wrn", model__activation="relu")
    report.run(tmp_path)
    text = (tmp_path / "report" / "report.md").read_text()
    assert "\n## DeepMind WRN-28-10 (activation relu) on CIFAR-10" in text


def test_what_fits_a_row_of_the_paper_twice_is_left_empty(tmp_path):
    put(tmp_path, "a", last={"pgd100": 50.0})
    put(tmp_path, "b", last={"pgd100": 51.0}, method__warmup_epochs=60)
    put(tmp_path, "c", method="standard", last={"pgd100": 48.0})
    report.run(tmp_path)
    assert cells(tmp_path)["MAIL", "pgd100"]["mean"] == ""
    text = (tmp_path / "report" / "report.md").read_text()
    assert (
        "MAIL is left empty, since several fit: MAIL, warmup\\_epochs 60; MAIL, warmup\\_epochs 75." in text
    )


def test_a_data_set_that_the_paper_does_not_know(tmp_path):
    put(tmp_path, "a", config=digits, last={"clean": 99.0, "aa": 80.0})
    report.run(tmp_path)
    page = (tmp_path / "report" / "report.html").read_text()
    assert "ResNet-10 (width 16) on digits" in page
    assert "<small>paper" not in page
    assert "the paper" not in page.lower()


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


def test_how_the_runs_were_made(tmp_path):
    """Training accuracy 40 and 60 at the warm-up's end, 80 and 90 at the end; weights 1, then 0.5 and 0.25."""
    machine = {"processor": "Abacus", "cores": 2, "system": "Linux", "python": "3.11.0"}
    for seed, (warm, last) in enumerate(((40.0, 80.0), (60.0, 90.0))):
        content = put(tmp_path, f"mail-{seed}", seed=seed, last={"pgd100": 50.0}, method__warmup_epochs=2)
        content |= {
            "machine": machine,
            "versions": {"jax": "1.2"},
            "warmup_from": "elsewhere" if seed else None,
        }
        (tmp_path / f"mail-{seed}" / "results.json").write_text(json.dumps(content))
        lines = [
            {"epoch": 0, "accuracy": 10.0, "mean_weight": 1.0, "light_share": 0.0},
            {"epoch": 1, "accuracy": warm, "mean_weight": 1.0, "light_share": 0.0},
            {"epoch": 2, "accuracy": 70.0, "mean_weight": 0.5, "light_share": 0.5},
            {"epoch": 3, "accuracy": last, "mean_weight": 0.25, "light_share": 0.7},
        ]
        text = "".join(
            json.dumps({"kind": "train", "step": 1, "seconds": 90} | line) + "\n" for line in lines
        )
        (tmp_path / f"mail-{seed}" / "metrics.jsonl").write_text(text)
    put(tmp_path, "standard-0", method="standard", last={"pgd100": 48.0}, method__warmup_epochs=2)
    (tmp_path / "notes.md").write_text("Two *seeds*.\n")
    report.run(tmp_path, markdown_path=tmp_path / "elsewhere" / "RESULTS.md")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "| MAIL | 50.0 | 85.0 | 0.375 | 60.0 | 6.0 | 2 |" in text
    assert "| Standard |" not in text.split("### How the training went")[1]
    assert "Seeds 0, 1. 2 runs: Abacus, 2 cores, Python 3.11.0, JAX 1.2. 1 run began with the warm-up" in text
    assert "Two *seeds*.\n\n3 runs." in text
    assert (tmp_path / "elsewhere" / "RESULTS.md").read_text() == text
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Abacus, 2 cores" in page
    assert page.count("<td>85.0</td>") == 1


def test_the_other_sign_of_beta_stands_beside_what_the_paper_reports(tmp_path):
    """55 - 48 = +7, the paper's MAIL - Standard +7.80; AutoAttack 47 - 46 = +1, where the paper has -1.16."""
    put(tmp_path, "standard", method="standard", last={"pgd100": 48.0, "aa": 46.0})
    put(tmp_path, "other", method__beta=-0.5, last={"pgd100": 55.0, "aa": 47.0})
    report.run(tmp_path)
    text = (tmp_path / "report" / "report.md").read_text().split("### The paper's claims")[1]
    line = "| MAIL, beta -0.5, against Standard | Table 1 |"
    assert f"{line} PGD-100 | +7.80 | +7.00 | 1 | - | - | not decided, one seed |" in text
    assert f"{line} AA | -1.16 | +1.00 | 1 | - | - | not decided, one seed |" in text


def test_the_other_sign_of_beta_is_told_of_every_warm_up(tmp_path):
    """The paper's PGD-100: 56.66 of MAIL, 48.86 of Standard."""
    put(tmp_path, "standard", method="standard", last={"pgd100": 48.0})
    for epochs, accuracy in ((60, 55.0), (75, 50.0)):
        fields = {"method__beta": -0.5, "method__warmup_epochs": epochs}
        put(tmp_path, f"other-{epochs}", last={"pgd100": accuracy}, **fields)
    report.run(tmp_path)
    text = (tmp_path / "report" / "report.md").read_text().split("### The paper's claims")[1]
    for epochs, difference in ((60, "+7.00"), (75, "+2.00")):
        row = f"| MAIL, beta -0.5, warmup\\_epochs {epochs}, against Standard | Table 1 | PGD-100 | +7.80"
        assert f"{row} | {difference} | 1 | - | - | not decided, one seed |" in text


def test_notes_that_are_no_text_are_named(tmp_path):
    put(tmp_path, "mail", last={"pgd100": 50.0})
    (tmp_path / "notes.md").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"notes\.md cannot be read"):
        report.run(tmp_path)


def test_what_the_paper_shows_of_best_checkpoints_is_also_measured_on_the_last(tmp_path):
    """GAIRAT stands in Table 5 alone: 34.76 - 47.86 = -13.10. MAIL's is Table 1's, and not told a second time."""
    put(tmp_path, "standard", method="standard", last={"pgd100": 48.0, "aa": 46.0})
    put(tmp_path, "gairat", method="gairat", last={"pgd100": 55.0, "aa": 30.0})
    put(tmp_path, "mail", last={"pgd100": 55.0, "aa": 45.0})
    report.run(tmp_path)
    text = (tmp_path / "report" / "report.md").read_text().split("### The paper's claims")[1]
    line = "| GAIRAT against Standard, last instead of best | Table 5 | AA | -13.10 | -16.00 | 1 |"
    assert f"{line} - | - | not decided, one seed |" in text
    assert text.count("| MAIL against Standard") == 2


def test_an_attack_beyond_the_papers_has_a_column_only_where_it_was_run(tmp_path, capsys):
    put(tmp_path, "standard", method="standard", last={"pgd100": 48.0, "aa": 46.0})
    put(tmp_path, "mail", last={"pgd100": 50.0, "aa": 46.0})
    assert "10 z" not in report.run(tmp_path)
    assert "10 z" not in (tmp_path / "report" / "report.md").read_text()
    put(tmp_path, "gairat", method="gairat", last={"pgd100": 55.0, "scaled_pgd": 40.0, "aa": 30.0})
    lines = report.run(tmp_path).splitlines()
    assert "|  CW-PGD | PGD-100, 10 z | APGD-CE |" in lines[0]
    assert "|       not run | " in next(line for line in lines if line.startswith("| mail "))
    text = (tmp_path / "report" / "report.md").read_text()
    assert "|  | PGD-100 | PGD-100, 10 z | AA |" in text
    assert text.count("10 z") == text.count("|  | PGD-100 | PGD-100, 10 z | AA |") == 1


def test_differences_are_written_as_people_write_them(tmp_path):
    put(
        tmp_path,
        "standard",
        method="standard",
        last={"pgd100": 48.0},
        attack__eps=4 / 255,
        dataset__train_size=7,
    )
    report.run(tmp_path)
    text = (tmp_path / "report" / "report.md").read_text()
    assert "dataset.train\\_size 7 (paper all), attack.eps 4/255 (paper 8/255)." in text


def test_a_checkpoint_that_was_not_attacked_has_no_table_beside_one_that_was(tmp_path):
    put(tmp_path, "mail", last={"aa": 40.0}, best={"clean": 80.0})
    report.run(tmp_path)
    text = (tmp_path / "report" / "report.md").read_text()
    assert "The best checkpoint was evaluated on clean images alone: it has no table." in text
    assert ", best checkpoint" not in text
    put(tmp_path / "clean", "mail", last={"clean": 80.0})
    report.run(tmp_path / "clean")
    assert "All runs, last checkpoint" in (tmp_path / "clean" / "report" / "report.md").read_text()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"method__warmup_epochs": 0}, "method.warmup\\_epochs 0 (paper 75)"),
        ({"dataset__pad": 0}, "dataset.pad 0 (for its tables here 4)"),
        ({"dataset__flip": False}, "dataset.flip False (for its tables here True)"),
        ({"attack__start": "none"}, "attack.start none (for its tables here uniform)"),
        ({"model__dtype": "bfloat16"}, "model.dtype bfloat16 (for its tables here float32)"),
        ({"evaluation__step_size": 1 / 255}, "evaluation.step\\_size 1/255 (for its tables here 2/255)"),
    ],
)
def test_every_field_that_a_number_depends_on_is_compared_with_the_papers(tmp_path, fields, words):
    put(tmp_path, "mail", last={"aa": 40.0}, **fields)
    report.run(tmp_path)
    assert f"{words}." in (tmp_path / "report" / "report.md").read_text()


def test_fewer_test_images_than_the_paper_has_are_named(tmp_path):
    content = put(tmp_path, "mail", last={"aa": 40.0})
    content["checkpoints"]["last"]["num_examples"] = 1000
    runs.write_json(tmp_path / "mail" / "results.json", content)
    report.run(tmp_path)
    assert "dataset.test\\_size 1000 (paper 10000)." in (tmp_path / "report" / "report.md").read_text()


def test_a_method_that_was_added_has_a_row(tmp_path, monkeypatch):
    """As docs/extending.md adds one: its record says which fields of `method` are its constants."""

    def weight(logits, label, kappa, *, gamma):
        return gamma

    monkeypatch.setitem(methods.METHODS, "focal", methods.Method("focal", "focal", "gamma", weight))
    put(tmp_path, "focal", method="focal", last={"pgd100": 50.0, "aa": 40.0})
    put(tmp_path, "other", method="focal", last={"pgd100": 51.0, "aa": 41.0}, method__gamma=2.0)
    put(tmp_path, "standard", method="standard", last={"pgd100": 48.0, "aa": 46.0})
    report.run(tmp_path)
    text = (tmp_path / "report" / "report.md").read_text()
    assert "\n| focal | 50.00 n=1 |" in text
    assert "\n| focal, gamma 2 | **51.00** n=1 |" in text


def test_objectives_and_recipes_stand_in_the_same_table_under_their_own_names(tmp_path):
    """Beside the paper's methods, never in its rows."""
    scores = {"pgd100": 50.0, "aa": 40.0}
    put(tmp_path, "standard", method="standard", last=scores)
    put(tmp_path, "mail", last=scores)
    put(tmp_path, "trades", method="standard", objective__name="trades", last=scores)
    trades = {"objective__name": "trades", "method__beta": 0.0, "method__gamma": 2.0}
    put(tmp_path, "mail-trades", last={"pgd100": 51.0, "aa": 41.0}, **trades)
    put(tmp_path, "awp", last=scores, awp__gamma=0.005, **trades)
    put(tmp_path, "ema", method="standard", average__name="ema", last=scores)
    put(tmp_path, "normalized", method__normalize=True, last=scores)
    report.run(tmp_path)
    text = (tmp_path / "report" / "report.md").read_text()
    table = text[text.index("All runs, last") :]
    table = table[: table.index("\n\n", table.index("|"))]
    labels = [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()[4:]]
    assert labels[:2] == ["Standard", "MAIL"]
    assert "MAIL, normalize True" in labels
    assert "TRADES, lam 6" in labels
    assert "MAIL-TRADES, beta 0, gamma 2, lam 6" in labels
    assert "MAIL-TRADES-AWP, beta 0, gamma 2, lam 6, AWP gamma 0.005" in labels
    assert [label for label in labels if label.startswith("Standard, average ema")]
    first = text[text.index("Table 1") : text.index("Table 1") + 3000]
    assert "TRADES" not in first
    assert "\n| MAIL | " in first
    assert "several fit" not in text


def test_what_was_not_checked_is_not_read(tmp_path, capsys):
    """A checkpoint of another name, and a field whose name is another's path."""
    content = put(tmp_path, "mail", last={"aa": 40.0})
    content["checkpoints"]["middle"] = {"epoch": 1}
    content["config"]["method.name"] = content["config"]["method"].pop("name")
    content["config"]["method"] |= {"name": "mail"}
    runs.write_json(tmp_path / "mail" / "results.json", content)
    assert launch.main(["launch.py", "--mode=report", f"--workdir={tmp_path}"]) == 0
    assert "| mail |" in capsys.readouterr().out


def test_runs_behind_links_are_found_once(tmp_path):
    put(tmp_path / "disk", "mail", last={"aa": 40.0})
    put(tmp_path / "runs", "standard", method="standard", last={"aa": 40.0})
    (tmp_path / "runs" / "linked").symlink_to(tmp_path / "disk")
    (tmp_path / "runs" / "again").symlink_to(tmp_path / "runs")
    (tmp_path / "runs" / "nowhere").symlink_to(tmp_path / "missing")
    found, problems = collect.collect(tmp_path / "runs")
    assert [run.path for run in found] == ["linked/mail", "standard"]
    assert not problems
