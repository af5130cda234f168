"""Rows and columns of the tables."""

import json

import pytest
from helpers.made_up_runs import cells, put

from jaxrw import methods, report


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


def test_networks_are_named_with_what_is_unusual(tmp_path):
    put(tmp_path, "a", last={"pgd20": 50.0}, model__name="dm_wrn", model__activation="relu")
    report.run(tmp_path)
    text = (tmp_path / "report" / "report.md").read_text()
    assert "\n## DeepMind WRN-28-10 (activation relu) on CIFAR-10" in text


def test_how_the_runs_were_made(tmp_path):
    """Accuracy 40, 60 at the warm-up's end, 80, 90 at the end; weights 1, 0.5, 0.25; loss (0.4 3 + 0.2) / 4."""
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
            {"epoch": 2, "accuracy": 70.0, "mean_weight": 0.5, "light_share": 0.5}
            | {"loss": 0.4, "learning_rate": 0.03},
            {"epoch": 3, "accuracy": last, "mean_weight": 0.25, "light_share": 0.7}
            | {"loss": 0.2, "learning_rate": 0.01},
        ]
        text = "".join(
            json.dumps({"kind": "train", "step": 1, "seconds": 90} | line) + "\n" for line in lines
        )
        (tmp_path / f"mail-{seed}" / "metrics.jsonl").write_text(text)
    put(tmp_path, "standard-0", method="standard", last={"pgd100": 48.0}, method__warmup_epochs=2)
    (tmp_path / "notes.md").write_text("# Two_seeds\n\nTwo *seeds*.\n")
    report.run(tmp_path, markdown_path=tmp_path / "elsewhere" / "RESULTS.md")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "| MAIL | 50.0 | 85.0 | 0.375 | 0.350 | 60.0 | 6.0 | 2 |" in text
    assert "| Standard |" not in text.split("### How the training went")[1]
    assert "Seeds 0, 1. 2 runs: Abacus, 2 cores, Python 3.11.0, JAX 1.2. 1 run began with the warm-up" in text
    assert text.startswith("# Two\\_seeds\n\nTwo *seeds*.\n\n3 runs.")
    assert (tmp_path / "elsewhere" / "RESULTS.md").read_text() == text
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Abacus, 2 cores" in page
    assert "<title>Two_seeds</title>" in page
    assert page.count("<td>85.0</td>") == 1


def test_in_other_settings_than_the_papers_nothing_is_subtracted_from_its_numbers(tmp_path):
    """And a row that only the paper has is named, not shown."""
    texts, pgd = {}, {"pgd100": 50.0}
    whole = pgd | {"clean": 80.0, "cw_pgd": 48.0, "apgd_ce": 49.0, "aa": 46.0}
    for name, last, fields in (
        ("papers", pgd, {}),
        ("others", whole, {"optim__batch_size": 64}),
        ("few", pgd, {"optim__batch_size": 64}),
    ):
        put(tmp_path / name, "mail", last=last, **fields)
        report.run(tmp_path / name)
        texts[name] = (tmp_path / name / "report" / "report.md").read_text()
    assert (
        "| MAIL | not run<br>paper 82.53 ± 0.30 | 50.00 n=1<br>paper 56.66 ± 0.17 (-6.66) |"
        in texts["papers"]
    )
    assert "five seeds, and measured minus published." in texts["papers"]
    assert "\n| WMMR | not run<br>" in texts["papers"]
    assert "| MAIL | 80.00 n=1<br>paper 82.53 ± 0.30 | 50.00 n=1<br>paper 56.66 ± 0.17 |" in texts["others"]
    assert "five seeds." in texts["others"]
    assert "\n| WMMR" not in texts["others"]
    assert "Not run: Standard, WMMR, Ours+WMMR, Ours+MAIL." in texts["others"]
    assert "No row has every attack of the paper's Table" in texts["few"]
    assert "<br>paper" not in texts["few"]


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


def test_a_checkpoint_that_was_not_attacked_has_no_table_beside_one_that_was(tmp_path):
    put(tmp_path, "mail", last={"aa": 40.0}, best={"clean": 80.0})
    report.run(tmp_path)
    text = (tmp_path / "report" / "report.md").read_text()
    assert "The best checkpoint was evaluated on clean images alone: it has no table." in text
    assert ", best checkpoint" not in text
    put(tmp_path / "clean", "mail", last={"clean": 80.0})
    report.run(tmp_path / "clean")
    assert "All runs, last checkpoint" in (tmp_path / "clean" / "report" / "report.md").read_text()


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


@pytest.mark.parametrize(("attacks", "is_told"), [({}, True), ({"aa": 40.0}, False)])
def test_autoattack_that_is_missing_is_told_where_another_column_is_the_last(tmp_path, attacks, is_told):
    """ "Corrupted" comes after AutoAttack."""
    put(tmp_path, "a", method="standard", last={"clean": 80.0, "pgd100": 50.0, "corruptions": 70.0} | attacks)
    put(tmp_path, "b", method="mail", last={"clean": 80.0, "pgd100": 50.0} | attacks)
    report.run(tmp_path)
    text = (tmp_path / "report" / "report.md").read_text().split("### Table 1")[0]
    assert ("AutoAttack was not run for every row" in text) == is_told


def test_images_of_validation_are_not_called_test_images(tmp_path):
    put(tmp_path, "a", last={"clean": 80.0, "pgd100": 50.0}, dataset__test_split="validation")
    report.run(tmp_path)
    text = (tmp_path / "report" / "report.md").read_text()
    assert "10,000 validation images" in text
    assert "10,000 test images" not in text
    assert "dataset.test\\_split validation (for its tables here test)" in text
