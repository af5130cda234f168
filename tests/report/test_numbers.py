"""The numbers of the pages of results, computed once more with plain JSON, NumPy and SciPy: nothing of jaxrw."""

import base64
import functools
import json
import math
import pathlib
import re
import statistics

import numpy as np
import pytest
import scipy.stats

ROOT = pathlib.Path(__file__).parents[2]
# Pages: the runs that they are made of, how many rows of all runs and of the paper's tables they have at least, and how
# many tables of comparisons.
PAGES = {
    "RESULTS.md": ("results/mini_c10", 14, 8, 2),
    "results/controls/README.md": ("results/controls", 10, 0, 7),
    "results/own/README.md": ("results/own", 4, 0, 0),
}
ATTACKS = {
    "Clean": "clean",
    "FGSM": "fgsm",
    "PGD-20": "pgd20",
    "PGD-100": "pgd100",
    "CW-PGD": "cw_pgd",
    "PGD-100, 10 z": "scaled_pgd",
    "APGD-CE": "apgd_ce",
    "APGD-CE+T": "apgd_t",
    "AA": "aa",
}
CELL = re.compile(
    r"(?:\*\*)?([\d.]+)(?: ± ([\d.]+))?(?:\*\*)?(?: ↑)? n=(\d+)‡?(?:<br>paper ([\d.]+) ± ([\d.]+))?$"
)


def read_tables(text):
    """Rows of every table by its heading; each row as a dict by the titles of columns, its label under ""."""
    tables = {}
    for part in text.split("\n### ")[1:]:
        lines = part.splitlines()
        rows = [
            [cell.strip() for cell in line.strip()[1:-1].split("|")]
            for line in lines
            if line.startswith("|") and not line.startswith("|---")
        ]
        titles = [*rows[0][:-1], rows[0][-1] or "verdict"]
        tables[lines[0]] = [dict(zip(titles, row, strict=True)) for row in rows[1:]]
    return tables


class Page:
    """A page as a reader has it, and the runs as JSON has them.

    Attributes:
      directory: of the runs.
      text: of the page.
      tables: see `read_tables`.
      runs: checkpoints by the name of a run without its seed, and by seed.
      epochs: the lines of metrics.jsonl for each epoch of training, likewise.
      least_runs, least_rows, num_comparisons: see `PAGES`.
    """

    def __init__(self, path):
        self.directory, self.least_runs, self.least_rows, self.num_comparisons = PAGES[path]
        self.text = (ROOT / path).read_text()
        self.tables = read_tables(self.text.replace("\\_", "_"))
        self.runs, self.epochs = {}, {}
        for file in sorted((ROOT / self.directory).rglob("results.json")):
            name, seed = file.parent.name.rsplit("-", 1)
            self.runs.setdefault(name, {})[int(seed)] = json.loads(file.read_text())["checkpoints"]
            lines = map(json.loads, (file.parent / "metrics.jsonl").read_text().splitlines())
            epochs = [line for line in lines if line["kind"] == "train"]
            self.epochs.setdefault(name, {})[int(seed)] = epochs


@pytest.fixture(scope="module", params=PAGES)
def page(request):
    return Page(request.param)


def accuracies(page, name, checkpoint, attack):
    """Percent by seed."""
    found = {
        seed: (checkpoints[checkpoint] or {}).get("accuracy", {}).get(attack)
        for seed, checkpoints in page.runs[name].items()
    }
    return {seed: value for seed, value in found.items() if value is not None}


def as_cell(values):
    """Mean, deviation and number as a table writes them; None: not run."""
    if not values:
        return None
    deviation = f"{statistics.stdev(values):.2f}" if len(values) > 1 else None
    return f"{statistics.fmean(values):.2f}", deviation, str(len(values))


def parsed(cell):
    return None if "not run" in cell else CELL.match(cell).groups()[:3]


@functools.cache
def names_of_rows(page, checkpoint):
    """Name of the run of each row of the table of all runs: the one whose numbers it has, column by column."""
    found = {}
    for row in page.tables[f"All runs, {checkpoint} checkpoint"]:
        columns = {title: cell for title, cell in row.items() if title}
        cells = {title: parsed(cell) for title, cell in columns.items()}
        fitting = [
            name
            for name in page.runs
            if all(
                as_cell(list(accuracies(page, name, checkpoint, ATTACKS[title]).values())) == cell
                for title, cell in cells.items()
            )
        ]
        if checkpoint == "best" and len(fitting) > 1:  # Of one warm-up, with one method or another after it.
            fitting = [name for name in fitting if name == names_of_rows(page, "last")[row[""]]]
        assert len(fitting) == 1, (row, fitting)
        found[row[""]] = fitting[0]
    return found


def test_every_run_is_a_row_with_its_mean_deviation_and_number(page):
    assert sorted(names_of_rows(page, "last").values()) == sorted(page.runs)
    assert len(page.runs) >= page.least_runs
    if "All runs, best checkpoint" in page.tables:
        assert names_of_rows(page, "best") == names_of_rows(page, "last")


def test_the_papers_tables_have_the_same_numbers_and_the_papers(page):
    """No row without a run, and no difference from the paper's numbers: the settings are not the paper's."""
    rows = [
        (title, row) for title, rows in page.tables.items() if re.match(r"Table \d", title) for row in rows
    ]
    assert len(rows) >= page.least_rows
    published = json.loads((ROOT / "jaxrw" / "report" / "evidence" / "published.json").read_text())["blocks"]
    for title, row in rows:
        papers = [
            [column, *(f"{number:.2f}" for number in published_row["accuracy"][attack])]
            for block in published
            if f"Table {block['table']}" == title.partition(":")[0]
            for published_row in block["rows"]
            for column, attack in ATTACKS.items()
            if attack in published_row["accuracy"]
        ]
        label = {"tau = 2": "Ours+MAIL", "with similarity": "Ours+MAIL"}.get(row[""], row[""])
        label = label.replace("tau = ", "Ours+MAIL, tau ").replace("without s", "Ours+MAIL, without s")
        cells = {column: cell for column, cell in row.items() if column and "not run" not in cell}
        assert cells
        for column, cell in cells.items():
            values = list(
                accuracies(
                    page, names_of_rows(page, "last")[label], title.split()[-2], ATTACKS[column]
                ).values()
            )
            assert parsed(cell) == as_cell(values), (title, label, column)
            assert [column, *CELL.match(cell).groups()[3:]] in papers


def rows_of(words, table):
    """The two rows that the words of a comparison name, with their checkpoints."""
    last = re.search(", (last instead of best|paper: .*)$", words)
    blocks = json.loads((ROOT / "jaxrw" / "report" / "evidence" / "published.json").read_text())["blocks"]
    of_paper = [
        b["checkpoint"] for b in blocks if b["model"] == "resnet18" and f"Table {b['table']}" == table
    ]
    checkpoint = "last" if last or "last" in of_paper or not table else "best"
    words = words[: last.start()] if last else words
    if match := re.match(r"larger tau \((\d) against 2\)", words):
        return ("Ours+MAIL, tau " + match[1], checkpoint), ("Ours+MAIL", checkpoint)
    if words == "with against without similarity":
        return ("Ours+MAIL", checkpoint), ("Ours+MAIL, without similarity", checkpoint)
    pairs = []
    for label in words.split(" against "):
        match = re.match(r"(.*?)(?: \((last|best)\))?$", label.rstrip(","))
        pairs.append((match[1], match[2] or checkpoint))
    return pairs


def flags(page, name, checkpoint, attack, seed):
    """Which images are correct; None if it is not kept."""
    found = page.runs[name][seed][checkpoint]
    text = found.get("correct", {}).get(attack)
    if text is None:
        return None
    bits = "".join(f"{byte:08b}" for byte in base64.b64decode(text))
    return np.array([float(bit) for bit in bits[: found["num_examples"]]])


def recomputed(page, row, chosen):
    """Mean, half interval, p-value, number of seeds of a comparison; None for what fewer than three seeds lack."""
    (first, one), (second, other) = rows_of(row[""], row.get("table"))
    attack, names = ATTACKS[row["attack"]], names_of_rows(page, "last")
    if first not in names or second not in names:
        return None, None, None, 0
    values = accuracies(page, names[first], one, attack), accuracies(page, names[second], other, attack)
    seeds = sorted(values[0].keys() & values[1].keys())
    seeds = [seed for seed in seeds if chosen is None or seed in chosen]
    differences = [values[0][seed] - values[1][seed] for seed in seeds]
    mean, number = (statistics.fmean(differences) if seeds else None), len(seeds)
    if number < 3:
        return mean, None, None, number
    size = page.runs[names[first]][seeds[0]][one]["num_examples"]
    least = 100 / size / scipy.stats.t.ppf(0.975, number - 1)
    errors = [(max(statistics.stdev(differences) / math.sqrt(number), least), number - 1)]
    images = [
        (flags(page, names[first], one, attack, s), flags(page, names[second], other, attack, s))
        for s in seeds
    ]
    assert (row["interval over"] == "seeds and images") == all(f is not None for pair in images for f in pair)
    if row["interval over"] == "seeds and images":
        table = 100 * np.array([a - b for a, b in images])
        # Sums of squares of a two-way layout: total = seeds + images + rest.
        correction = table.sum() ** 2 / table.size
        of_seeds = (table.sum(1) ** 2).sum() / size - correction
        of_images = (table.sum(0) ** 2).sum() / number - correction
        rest = (table**2).sum() - correction - of_seeds - of_images
        sizes = np.array([number - 1, size - 1, (number - 1) * (size - 1)])
        squares = np.array([of_seeds, of_images, rest]) / sizes
        total = squares[0] + max(squares[1] - squares[2], 0)
        degrees = max(total**2 / (squares**2 / sizes).sum(), number - 1)
        errors.append((max(math.sqrt(total / table.size), least), degrees))
    half = max(scipy.stats.t.ppf(0.975, degrees) * error for error, degrees in errors)
    p = max(2 * scipy.stats.t.sf(abs(mean) / error, degrees) for error, degrees in errors)
    return mean, half, p, number


def test_differences_intervals_and_holms_correction(page):
    titles = [title for title in page.tables if title.startswith(("What was asked", "The paper's claims"))]
    assert len(titles) == page.num_comparisons
    for title in titles:
        check_comparisons(page, title)


def chosen_seeds(page, title):
    """The seeds that each row of a table may compare, None for all, as its file asks for."""
    if not title.startswith("What was asked"):
        return [None] * len(page.tables[title])
    name = title.partition(": ")[2]
    path = ROOT / page.directory / f"comparisons{'-' if name else ''}{name}.json"
    asked = json.loads(path.read_text())
    return [question.get("seeds") for question in asked for _ in question.get("attacks", "12")]


def check_comparisons(page, title):
    """A table of comparisons, each corrected for the number of that table."""
    rows = page.tables[title]
    found = [recomputed(page, row, seeds) for row, seeds in zip(rows, chosen_seeds(page, title), strict=True)]
    p_values = sorted((p, i) for i, (_, _, p, _) in enumerate(found) if p is not None)
    family = len(rows)
    corrected, so_far = {}, 0.0
    for rank, (p, place) in enumerate(p_values):
        so_far = max(so_far, min((family - rank) * p, 1.0))
        corrected[place] = so_far
    assert f"Holm's method for the {family} comparisons of this table" in page.text
    for place, (row, (mean, half, _, number)) in enumerate(zip(rows, found, strict=True)):
        assert row["seeds"] == str(number), row
        expected = "-" if mean is None else f"{mean:+.2f}" + ("" if half is None else f" ± {half:.2f}")
        assert row["measured"] == expected, row
        p = corrected.get(place)
        if p is None:
            assert row["p"] == "-"
            assert row["verdict"].startswith(
                ("not decided, ", "not significant, ", "not run", "no seed in common")
            )
            continue
        if row["p"] == "&lt; 0.0001":
            assert p < 0.0001
        else:
            assert float(row["p"]) == pytest.approx(p, rel=0.05, abs=0)  # two digits
        if p >= 0.05 - 1e-9:
            verdict = "not decided" if "paper" in row else "not significant"
        elif "paper" in row:
            verdict = "seen" if mean * float(row["paper"]) > 0 else "refuted at this scale"
        else:
            verdict = "higher" if mean > 0 else "lower"
        assert row["verdict"] == verdict, row


def test_best_beside_last(page):
    for row in page.tables.get("Best beside last", ()):
        name = names_of_rows(page, "last")[row[""]]
        epochs = sorted(run["best"]["epoch"] + 1 for run in page.runs[name].values() if run["best"])
        assert row["best epoch"] in (f"{epochs[0]}-{epochs[-1]}", str(epochs[0]))
        for column, cell in list(row.items())[2:]:
            title, checkpoint = column.rsplit(", ", 1)
            values = list(accuracies(page, name, checkpoint, ATTACKS[title]).values())
            assert parsed(cell) == as_cell(values), (row[""], column)


def test_how_the_training_went(page):
    """The warm-up of these runs has 37 epochs."""
    rows = page.tables["How the training went"]
    assert len(rows) == len(page.runs)
    for row in rows:
        runs = page.epochs[names_of_rows(page, "last")[row[""]]].values()
        assert row["runs"] == str(len(runs))
        after = [epochs[37:] for epochs in runs]
        rates = [np.array([epoch["learning_rate"] for epoch in epochs]) for epochs in after]
        losses = [np.array([epoch["loss"] for epoch in epochs]) for epochs in after]
        means = {
            "warm-up's end": [epochs[36]["accuracy"] for epochs in runs],
            "end": [epochs[-1]["accuracy"] for epochs in runs],
            "mean weight": [np.mean([epoch["mean_weight"] for epoch in epochs]) for epochs in after],
            "weighted loss": [rate @ loss / rate.sum() for rate, loss in zip(rates, losses, strict=True)],
            "light weights, %": [100 * np.mean([e["light_share"] for e in epochs]) for epochs in after],
            "minutes": [sum(epoch["seconds"] for epoch in epochs) / 60 for epochs in runs],
        }
        for title, values in means.items():
            digits = len(row[title].partition(".")[2])
            assert float(row[title]) == pytest.approx(np.mean(values), abs=0.5001 * 10**-digits), (row, title)


def test_the_table_of_the_readme_is_that_of_the_controls():
    """Its rows by the words they begin with: a row of the table of last checkpoints, or of best ones."""
    rows = {
        "Standard: ": ("last", "Standard"),
        "MAIL": ("last", "MAIL"),
        "Ours+MAIL": ("last", "Ours+MAIL"),
        "a weight of 0.04": ("last", "Constant, constant 0.04"),
        "a weight of 0.08": ("last", "Constant, constant 0.08"),
        "Standard, its best": ("best", "Standard"),
    }
    section = (ROOT / "README.md").read_text().split("## Does reweighting help?")[1].split("\n## ")[0]
    (shown,) = read_tables(f"\n### It\n{section}").values()
    tables = read_tables((ROOT / "results" / "controls" / "README.md").read_text())
    for row, (words, (checkpoint, label)) in zip(shown, rows.items(), strict=True):
        assert row["method"].startswith(words)
        (found,) = [line for line in tables[f"All runs, {checkpoint} checkpoint"] if line[""] == label]
        for attack in ("PGD-100", "APGD-CE+T"):
            mean, number = re.match(r"\**([\d.]+) ± [\d.]+\** n=(\d+)", found[attack]).groups()
            assert (row[attack], row["seeds"]) == (mean, number), (row, found)


@pytest.mark.parametrize("path", ["results/mini_c10/notes.md", "results/controls/notes.md"])
def test_numbers_in_sentences_stand_in_a_table(path):
    """Accuracies "a / b" and differences "d ± h" with two digits after the point, their sign left out."""
    text = (ROOT / path).read_text()
    pages = "results/controls/README.md", "RESULTS.md"
    cells = {
        number
        for page in pages
        for rows in read_tables((ROOT / page).read_text()).values()
        for row in rows
        for cell in row.values()
        for number in re.findall(r"\d+\.\d\d(?: ± \d+\.\d\d)?", cell)
    }
    differences = set(re.findall(r"\d+\.\d\d ± \d+\.\d\d", text))
    pairs = re.findall(r"(\d+\.\d\d)(?: ± \d+\.\d\d)? / (\d+\.\d\d)", text)
    assert pairs
    assert differences <= cells
    assert {number for pair in pairs for number in pair} <= {cell.split(" ± ")[0] for cell in cells}
