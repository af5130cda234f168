"""Differences with intervals over seeds and images, Holm's correction, and what the owner of the runs asked."""

import csv
import itertools
import json
import math
import statistics

import numpy as np
import pytest
import scipy.stats
from helpers.made_up_runs import put

from jaxrw import report, runs
from jaxrw.report.evidence import comparisons
from jaxrw.report.evidence.tables import Accuracy
from jaxrw.runs.packed import pack
from jaxrw.system.errors import UserError


def by_hand(table):
    """Standard error and degrees of freedom of the mean of a table of seeds and images, in plain loops."""
    num_seeds, num_images = len(table), len(table[0])
    mean = sum(map(sum, table)) / (num_seeds * num_images)
    rows = [sum(row) / num_images for row in table]
    columns = [sum(row[i] for row in table) / num_seeds for i in range(num_images)]
    squares = [
        num_images * sum((row - mean) ** 2 for row in rows) / (num_seeds - 1),
        num_seeds * sum((column - mean) ** 2 for column in columns) / (num_images - 1),
        sum(
            (table[s][i] - rows[s] - columns[i] + mean) ** 2
            for s in range(num_seeds)
            for i in range(num_images)
        )
        / ((num_seeds - 1) * (num_images - 1)),
    ]
    total = squares[0] + max(squares[1] - squares[2], 0)
    sizes = num_seeds - 1, num_images - 1, (num_seeds - 1) * (num_images - 1)
    degrees = total**2 / sum(square**2 / size for square, size in zip(squares, sizes, strict=True))
    return math.sqrt(total / (num_seeds * num_images)), max(degrees, num_seeds - 1)


def draw(random, *, num_seeds, num_images, of_seed, of_image):
    """Differences of two methods on the same images, in -1..1, whose mean over everything is 0."""
    hardness = random.normal(0, 2.0, num_images)
    shift = random.normal(0, of_image, num_images)
    sides = [
        hardness + side * shift / 2 + random.normal(0, of_seed, (num_seeds, 1)) + noise
        for side, noise in zip((1, -1), random.logistic(0, 0.35, (2, num_seeds, num_images)), strict=True)
    ]
    return (sides[0] > 0).astype(float) - (sides[1] > 0)


@pytest.mark.parametrize("of_image", [0.0, 2.0])
def test_the_standard_error_over_seeds_and_images_is_that_of_plain_loops(of_image):
    """Without an effect of the images, they may seem to differ by less than chance."""
    for seed in range(5):
        random = np.random.RandomState(seed)
        table = draw(random, num_seeds=3, num_images=40, of_seed=0.3, of_image=of_image)
        expected, degrees = by_hand(table.tolist())
        found = comparisons.over_seeds_and_images(table)
        assert found == (pytest.approx(expected, rel=1e-9), pytest.approx(degrees, rel=1e-9))
    assert comparisons.over_seeds_and_images(np.zeros((3, 40))) == (0, 2)


@pytest.mark.parametrize("num_seeds", [3, 10])
def test_the_interval_misses_no_more_often_than_it_says(num_seeds):
    """600 draws of seeds and images, true difference 0: 95 % +- 0.9 % are to hold 0. Seeds alone miss far more."""
    random, held, alone = np.random.RandomState(0), 0, 0
    for _ in range(600):
        table = draw(random, num_seeds=num_seeds, num_images=200, of_seed=0.02, of_image=2.0)
        values = [accuracies_of(table, side) for side in (1, -1)]
        difference = comparisons.compare(*values, num_examples=200)
        assert difference.over_images
        assert difference.mean == pytest.approx(100 * table.mean())
        held += abs(difference.mean) <= difference.half_interval
        student = comparisons.compare(*(without_images(v) for v in values), num_examples=200)
        assert not student.over_images
        assert difference.half_interval >= student.half_interval
        assert difference.p_value >= student.p_value
        alone += abs(student.mean) <= student.half_interval
    assert held / 600 >= 0.93
    assert alone / 600 < 0.85


def accuracies_of(table, side):
    """The accuracy of one of two methods whose difference is a table of -1, 0, 1; both are wrong at 0."""
    flags = table == side
    return Accuracy(
        "aa",
        {seed: 100 * float(row.mean()) for seed, row in enumerate(flags)},
        correct={seed: pack(row) for seed, row in enumerate(flags)},
    )


def without_images(accuracy):
    return Accuracy(accuracy.attack, accuracy.values)


def test_without_the_images_of_every_seed_the_interval_is_students():
    table = draw(np.random.RandomState(0), num_seeds=4, num_images=200, of_seed=0.3, of_image=1.0)
    values = [accuracies_of(table, side) for side in (1, -1)]
    del values[1].correct[2]
    found = comparisons.compare(*values, num_examples=200)
    differences = [100 * row.mean() for row in table]
    expected = scipy.stats.ttest_1samp(differences, 0)
    low, high = expected.confidence_interval()
    assert not found.over_images
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.half_interval == pytest.approx((high - low) / 2)
    assert list(found.by_seed.values()) == pytest.approx(differences)


def test_holm_is_bonferroni_over_every_set_that_a_comparison_is_in():
    """Holm's step-down procedure is the closed test of Bonferroni's."""
    random = np.random.RandomState(0)
    for number in range(1, 7):
        p_values = (random.rand(number) ** 3).tolist()
        p_values[-1] = p_values[0]  # a tie
        sets = [s for size in range(1, number + 1) for s in itertools.combinations(range(number), size)]
        expected = [
            max(min(1, len(s) * min(p_values[j] for j in s)) for s in sets if i in s) for i in range(number)
        ]
        assert comparisons.holm(p_values, number) == pytest.approx(expected)
    assert comparisons.holm([0.01, 0.02], 5) == pytest.approx([0.05, 0.08])
    assert comparisons.holm([], 3) == []


def put_flags(root, name, *, seed, method, flags, **fields):
    """A run whose results.json has which images are correct, by checkpoint and attack."""
    content = put(root, name, seed=seed, method=method, best=(), **fields)
    for checkpoint, by_attack in flags.items():
        size = len(next(iter(by_attack.values())))
        content["checkpoints"][checkpoint] |= {
            "num_examples": size,
            "accuracy": {attack: 100 * int(correct.sum()) / size for attack, correct in by_attack.items()},
            "correct": {attack: pack(correct) for attack, correct in by_attack.items()},
        }
    runs.write_json(root / name / "results.json", content)


def table_of(root, title):
    """Rows of a table in report.md, as lists of cells."""
    report.run(root)
    text = (root / "report" / "report.md").read_text().split(f"### {title}\n")[1].split("\n\n")
    lines = text[0].strip().splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines], text[1]


@pytest.fixture
def flagged(tmp_path):
    """Standard and MAIL, four seeds, both checkpoints, 50 images."""
    random, hardness = np.random.RandomState(0), np.random.RandomState(1).normal(0, 1, 50)
    found = {}
    for seed, (method, gain) in itertools.product(range(4), (("standard", 0), ("mail", 1.5))):
        flags = {
            checkpoint: {
                attack: hardness + gain * (checkpoint == "last") + random.normal(0, 0.3, 50) > level
                for attack, level in (("clean", -1), ("pgd100", 0), ("aa", 0.5))
            }
            for checkpoint in ("last", "best")
        }
        put_flags(tmp_path, f"{method}-{seed}", seed=seed, method=method, flags=flags)
        found[method, seed] = flags
    return tmp_path, found


def test_a_claim_is_compared_over_seeds_and_images(flagged):
    root, flags = flagged
    rows, caption = table_of(root, "The paper's claims")
    (row,) = [row for row in rows if row[:3] == ["MAIL against Standard", "Table 1", "PGD-100"]]
    differences = np.array(
        [
            100.0 * flags["mail", s]["last"]["pgd100"] - 100 * flags["standard", s]["last"]["pgd100"]
            for s in range(4)
        ]
    )
    means = differences.mean(1)
    error, degrees = by_hand(differences.tolist())
    student = scipy.stats.t.ppf(0.975, 3) * statistics.stdev(means) / 2
    half = max(scipy.stats.t.ppf(0.975, degrees) * error, student)
    assert half > 1.05 * student  # or the images would not have been seen
    assert row[3:7] == ["+7.80", f"{means.mean():+.2f} ± {half:.2f}", "4", "seeds and images"]
    assert row[8] == "seen"
    assert "never narrower than that over the seeds" in caption
    assert "does not cover which test images" not in caption


def test_what_was_asked_has_a_table_with_the_number_of_all_questions(flagged):
    """Best Standard against last MAIL; and a row that was never run, which counts among the questions."""
    root, flags = flagged
    questions = [
        {"rows": ["MAIL", "Standard"], "checkpoints": ["last", "best"], "attacks": ["aa"]},
        {"rows": ["MAIL", "Constant, constant 0.04"]},
    ]
    (root / "comparisons.json").write_text(json.dumps(questions))
    rows, caption = table_of(root, "What was asked")
    assert [row[0] for row in rows] == [
        "MAIL (last) against Standard (best)",
        *["MAIL against Constant, constant 0.04"] * 2,
    ]
    assert [row[1] for row in rows] == ["AA", "PGD-100", "AA"]
    assert [row[-1] for row in rows] == ["higher", "not run", "not run"]
    differences = 100 * np.array(
        [1.0 * flags["mail", s]["last"]["aa"] - flags["standard", s]["best"]["aa"] for s in range(4)]
    )
    assert rows[0][2].startswith(f"{differences.mean():+.2f} ± ")
    error, degrees = by_hand(differences.tolist())
    p_values = [
        2 * scipy.stats.t.sf(abs(differences.mean()) / error, degrees),
        scipy.stats.ttest_1samp(differences.mean(1), 0).pvalue,
    ]
    assert float(rows[0][5]) == pytest.approx(3 * max(p_values), rel=0.06)  # two digits
    assert "for the 3 comparisons of this table;" in caption
    with (root / "report" / "comparisons.csv").open() as file:
        line = next(line for line in csv.DictReader(file) if line["title"] == "What was asked")
    by_seed = dict(pair.split(":") for pair in line["by_seed"].split())
    assert {int(seed): float(value) for seed, value in by_seed.items()} == pytest.approx(
        dict(enumerate(differences.mean(1)))
    )
    assert (line["rows"], line["attack"], line["verdict"]) == (rows[0][0], "aa", "higher")
    assert float(line["p_value"]) == pytest.approx(max(p_values))
    assert float(line["corrected"]) == pytest.approx(3 * max(p_values))


def test_each_file_of_questions_is_a_family_of_its_own(flagged):
    """One comparison in a second file is not corrected, and leaves the first table as it was."""
    root, _ = flagged
    (root / "comparisons.json").write_text('[{"rows": ["MAIL", "Standard"]}]')
    before, _ = table_of(root, "What was asked")
    (root / "comparisons-own.json").write_text('[{"rows": ["MAIL", "Standard"], "attacks": ["aa"]}]')
    after, caption = table_of(root, "What was asked")
    assert after == before
    assert "for the 2 comparisons of this table;" in caption
    rows, caption = table_of(root, "What was asked: own")
    assert [row[:5] for row in rows] == [before[1][:5]]
    assert "for the 1 comparison of this table;" in caption
    with (root / "report" / "comparisons.csv").open() as file:
        p_values = {
            line["title"]: (float(line["p_value"]), float(line["corrected"]))
            for line in csv.DictReader(file)
            if line["attack"] == "aa"
        }
    p, corrected = p_values["What was asked: own"]
    assert corrected == p == p_values["What was asked"][0] < p_values["What was asked"][1]


def test_questions_about_other_runs_have_no_table(flagged):
    root, _ = flagged
    (root / "comparisons.json").write_text('[{"rows": ["TRADES, lam 6", "Standard"]}]')
    assert "What was asked: no table, since no runs with one setting have both rows" in report.run(root)
    assert "### What was asked" not in (root / "report" / "report.md").read_text()


def test_a_row_that_no_table_has_is_named(flagged):
    """Beside one that has an answer, which is still corrected for both."""
    root, _ = flagged
    questions = [{"rows": ["MAIL", "Standard"]}, {"rows": ["MAIL", "Standrad"]}]
    (root / "comparisons.json").write_text(json.dumps(questions))
    assert "What was asked: no row is called 'Standrad'; did you mean 'Standard'?" in report.run(root)
    _, caption = table_of(root, "What was asked")
    assert "for the 4 comparisons of this table;" in caption


def test_questions_may_be_about_some_seeds_alone(flagged):
    root, flags = flagged
    question = {"rows": ["MAIL", "Standard"], "attacks": ["aa"]}
    (root / "comparisons.json").write_text(json.dumps([question | {"seeds": [1, 2, 3, 7]}, question]))
    rows, caption = table_of(root, "What was asked")
    assert [row[3] for row in rows] == ["3", "4"]
    differences = 100 * np.array(
        [1.0 * flags["mail", s]["last"]["aa"] - flags["standard", s]["last"]["aa"] for s in (1, 2, 3)]
    )
    error, degrees = by_hand(differences.tolist())
    student = statistics.stdev(differences.mean(1)) / math.sqrt(3)
    half = max(scipy.stats.t.ppf(0.975, degrees) * error, scipy.stats.t.ppf(0.975, 2) * student)
    assert rows[0][2] == f"{differences.mean():+.2f} ± {half:.2f}"
    assert "alone" not in caption
    (root / "comparisons.json").write_text(json.dumps([question | {"seeds": [1, 2, 3, 7]}]))
    assert "Of seeds 1, 2, 3 alone." in table_of(root, "What was asked")[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read"),
        ("{}", "must be a list of objects"),
        ('[{"row": ["a", "b"]}]', "must be an object with rows, and of rows, checkpoints, attacks, seeds"),
        ('[{"rows": "ab"}]', "rows must be a list of texts"),
        ('[{"rows": ["a", "b"], "seeds": [true]}]', "seeds must be a list of integers"),
        ('[{"rows": ["a"]}]', "must have two rows and two checkpoints"),
        ('[{"rows": ["a", "b"], "checkpoints": ["last", "first"]}]', "'first'; choose of last, best"),
        ('[{"rows": ["a", "b"], "attacks": ["pgd"]}]', "'pgd'; choose of clean, fgsm"),
    ],
)
def test_questions_that_are_none_are_named(tmp_path, text, words):
    put(tmp_path, "mail", last={"aa": 40.0})
    (tmp_path / "comparisons.json").write_text(text)
    with pytest.raises(UserError, match=rf"comparisons\.json .*{words}"):
        report.run(tmp_path)


def test_best_checkpoints_stand_beside_last_ones(flagged):
    """Also where every best checkpoint of a reweighted method is of the warm-up, and so has no table of its own."""
    root, flags = flagged
    for seed in range(4):
        path = root / f"mail-{seed}" / "results.json"
        content = json.loads(path.read_text())
        content["checkpoints"]["best"]["epoch"] = 70 + seed
        runs.write_json(path, content)
    rows, caption = table_of(root, "Best beside last")
    assert [row[:2] for row in rows] == [["Standard", "120"], ["MAIL", "71-74"]]
    for row, method in zip(rows, ("standard", "mail"), strict=True):
        for place, (attack, checkpoint) in enumerate(
            itertools.product(("clean", "pgd100", "aa"), ("last", "best"))
        ):
            values = [100 * flags[method, s][checkpoint][attack].mean() for s in range(4)]
            text = f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f} n=4"
            assert row[2 + place] == text, (method, attack, checkpoint)
    assert "50 test images" in caption
    text = (root / "report" / "report.md").read_text()
    assert "| best epoch | Clean, last | Clean, best | PGD-100, last | PGD-100, best | AA, last |" in text
    assert "All runs, best checkpoint" not in text


def test_best_checkpoints_that_were_not_attacked_stand_nowhere(tmp_path):
    put(tmp_path, "mail", last={"aa": 40.0}, best={"clean": 80.0})
    put(tmp_path, "standard", method="standard", last={"aa": 40.0}, best={"clean": 80.0})
    report.run(tmp_path)
    assert "Best beside last" not in (tmp_path / "report" / "report.md").read_text()
