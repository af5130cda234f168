"""Writes docs/zoo.md from docs/zoo.csv: which models of RobustBench can be loaded here, and with which fields.

    python -m benchmarks.zoo

A row of the table is an entry of RobustBench's model zoo (https://github.com/RobustBench/robustbench, commit 78fcc9e of
March 2025): its board, name, architecture and accuracies in percent as published there, `robust` being the lowest of
AutoAttack's and of outside attacks'. What follows was read from its code: the fields of `jaxrw.networks.create`, empty
where they have their defaults, the mean and std that it sets for a file which may lack them; or the reason why the
network is none of jaxrw's.
"""

import argparse
import csv
import pathlib
from collections.abc import Sequence
from typing import Any

DOCS = pathlib.Path(__file__).parents[1] / "docs"

_PAGE = """# Which models of RobustBench can I load?

{counts}

**Loads** means that the architecture and the names in its file are supported: each such network has the names and
shapes of a PyTorch network written from what is published, and each family's logits are that network's. The files
themselves were not downloaded, and no accuracy below was measured here. A file with more than weights, because
something else was pickled into it, is refused in one line: load it with its authors' code, save `model.state_dict()`.

Download a file from [RobustBench](https://github.com/RobustBench/robustbench), then evaluate it with the fields of its
row. For example, Wang2023Better_WRN-28-10:

    python launch.py --mode evaluate --config configs/resnet18_c10.py --config.model.name=dm_wrn --checkpoint FILE.pt

- For CIFAR-100, begin with `configs/resnet18_c100.py`.
- A row gives `model.name` and, where they differ from its defaults, `model.depth`, `model.width` and so on.
- A letter stands for the `model.mean` and `model.std` to set, as the file may lack them. DeepMind's networks (`dm_`)
  need none: CIFAR-10's and CIFAR-100's are known.
- `model.shortcut` and `model.activation`, which no file shows, are as in RobustBench's code.

| | `model.mean` | `model.std` |
|---|---|---|
{statistics}

Accuracies are RobustBench's, in percent; robust is the lowest that it lists. The tables are written by
`python -m benchmarks.zoo` from [zoo.csv](zoo.csv), which was read from RobustBench's code in its state of March 2025.
"""

Entry = dict[str, str]


def main() -> None:
    """Writes the page."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    (DOCS / "zoo.md").write_text(page(read()))


def read() -> list[Entry]:
    """Returns the entries of the table of facts."""
    with (DOCS / "zoo.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def fields(entry: Entry) -> dict[str, Any]:
    """Returns the fields of the network that an entry is loaded with, without the defaults; empty if it is not."""
    if not entry["name"]:
        return {}
    found: dict[str, Any] = {"name": entry["name"]}
    found |= {field: int(entry[field]) for field in ("depth", "width") if entry[field]}
    for option in entry["options"].split():
        field, value = option.split("=")
        found[field] = {"False": False}.get(value, value)
    for field in ("mean", "std"):
        if entry[field]:
            found[field] = tuple(map(float, entry[field].split()))
    return found


def page(entries: Sequence[Entry]) -> str:
    """Returns the page as Markdown."""
    pairs = dict.fromkeys((entry["mean"], entry["std"]) for entry in entries if entry["mean"])
    letters = {pair: chr(ord("A") + number) for number, pair in enumerate(pairs)}
    boards = {
        board: [entry for entry in entries if entry["board"] == board]
        for board in dict.fromkeys(entry["board"] for entry in entries)
    }
    counts = [
        f"{sum(bool(entry['name']) for entry in members)} of {len(members)} of {board}"
        for board, members in boards.items()
    ]
    statistics = [
        f"| {letter} | `({', '.join(mean.split())})` | `({', '.join(std.split())})` |"
        for (mean, std), letter in letters.items()
    ]
    text = _PAGE.format(
        counts=f"{', '.join(counts[:-1])}, and {counts[-1]}.", statistics="\n".join(statistics)
    )
    for board, members in boards.items():
        members.sort(key=lambda entry: -float(entry["robust"]))
        rows = [
            f"| {e['model']} | {e['architecture']} | {e['clean']} | {e['robust']} | {_verdict(e, letters)} |"
            for e in members
        ]
        text += "\n".join(
            [
                f"\n## {board}: {sum(bool(entry['name']) for entry in members)} of {len(members)} load\n",
                "| model | architecture | clean | robust | loads with, or why not |",
                "|---|---|---:|---:|---|",
                *rows,
                "",
            ]
        )
    return text


def _verdict(entry: Entry, letters: dict[tuple[str, str], str]) -> str:
    if not entry["name"]:
        return f"no: {entry['reason']}"
    found = fields(entry)
    words = [f"`{found['name']}`"]
    words += [f"{field} {value}" for field, value in found.items() if field not in ("name", "mean", "std")]
    letter = letters.get((entry["mean"], entry["std"]))
    return ", ".join(words + ([letter] if letter else []))


if __name__ == "__main__":
    main()
