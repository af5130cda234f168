"""What the paper shows, beside what the runs show."""

import csv

import pytest
from helpers.made_up_runs import cells, put

from configs import digits
from jaxrw import report, runs
from jaxrw.report.evidence import published


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
