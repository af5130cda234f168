"""docs/tutorial.ipynb: it runs, what is stored in it is what its code has printed, and its links lead somewhere."""

import os
import re

from helpers import commands, notebook
from helpers.flags import TINY

STORED = notebook.read()

# What makes the notebook small enough for a test; each has to be in it once.
_SMALLER = {
    "\"--config.evaluation.attacks=('clean','pgd20')\",": f"*{TINY!r},"
    '"--config.dataset.validation_size=0", "--config.evaluation.figure_examples=20", '
    '"--config.evaluation.figure_eps=(0.0,1.0)",',
    'networks.create("resnet18", num_classes=10, depth=10, width=16)': 'networks.create("wrn", 10, depth=10, width=1)',
    '"batch_size": 360': "'batch_size': 60, 'attacks': ['square'], 'num_queries': 5",
    "images = digits.test.images /": "images = digits.test.images[:60] /",
    "labels = digits.test.labels": "labels = digits.test.labels[:60]",
    "num_steps = 300": "num_steps = 3",
}


def test_every_cell_runs(tmp_path, monkeypatch):
    """Smaller; the numbers are others, the kinds of outputs are those that are stored."""
    small = notebook.read()
    for old, new in _SMALLER.items():
        (cell,) = [cell for cell in small.cells if old in cell.source]
        assert cell.source.count(old) == 1
        cell.source = cell.source.replace(old, new)
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"  # Compiles in less time.
    monkeypatch.setenv("XLA_FLAGS", flags)
    notebook.run(small, tmp_path, seconds=300)
    for cell, stored in zip(small.cells, STORED.cells, strict=True):
        assert set(kinds(cell)) == set(kinds(stored)), cell.id
    assert "of 60 examples robust" in text_of(small)


def kinds(cell):
    """Kinds of the outputs of a cell."""
    return [output.output_type for output in cell.get("outputs", ())]


def text_of(what):
    """All that the cells of a notebook have printed."""
    outputs = [output for cell in notebook.executed_cells(what) for output in cell.outputs]
    return "".join(
        output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs
    )


def test_the_outputs_are_of_the_code():
    """After a change of the code, `make notebook` runs it again."""
    assert STORED.metadata.code_of_outputs == notebook.fingerprint(STORED)
    cells = notebook.executed_cells(STORED)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert all(kinds(cell) for cell in cells)


def test_the_outputs_are_small_and_of_no_machine():
    text = text_of(STORED)
    assert notebook.PATH.stat().st_size < 400_000
    for cell in STORED.cells:
        assert "execution" not in cell.metadata
        for output in cell.get("outputs", ()):
            assert output.get("name") != "stderr", output
            assert output.output_type != "error"
    assert not re.search(r"(?<![\w.])/\w+/|[Ww]arning|images/s", text)


def test_the_ordinary_network_is_not_robust_and_the_other_is():
    (printed,) = [cell.outputs[0].text for cell in STORED.cells if cell.id == "compare"]
    ordinary, robust = (float(number) for number in re.findall(r"AutoAttack +([\d.]+) %", printed))
    assert ordinary < 15
    assert robust > 85


def test_links_and_the_installation():
    text = "\n".join(cell.source for cell in STORED.cells if cell.cell_type == "markdown")
    for page, _, anchor in (link.partition("#") for link in re.findall(r"\]\((.*?)\)", text)):
        target = notebook.PATH.parent / page
        assert target.exists(), page
        assert not anchor or anchor in commands.anchors(target)
    (install,) = [cell.source for cell in STORED.cells if cell.source.startswith("%pip")]
    extras = re.search(r'"\.\.\[(\w+)\]"', install)
    assert extras
    commands.check(f"pip install -e .[{extras[1]}]")
