"""What README.md says: its first two commands, its files, fields and Python; test_guide runs its commands."""

import re
import subprocess

import jax.numpy as jnp
import numpy as np
from helpers import commands

ROOT = commands.ROOT
TEXT = (ROOT / "README.md").read_text()


def test_it_begins_with_the_two_commands():
    assert re.findall(r"^    make (\w+)", TEXT, re.MULTILINE) == ["train", "test"]


def test_make_train_shows_what_it_installs():
    command = ["make", "--dry-run", "--always-make", "train"]
    typed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert "Installing JAX, Flax" in typed
    assert 'pip install --editable ".[train]"' in typed
    assert "--quiet" not in typed


def test_every_file_and_field_it_names_is_there():
    for path in re.findall(r"configs/\w+\.py", TEXT):
        assert (ROOT / path).exists(), path
    named = re.findall(r"`((?:dataset|method|optim|evaluation|attack|model)\.\w+)[`/]", TEXT)
    assert len(named) > 5
    assert set(named) <= commands.FIELDS


def test_its_table_of_methods_is_that_of_the_records():
    commands.check_table_of_methods(TEXT)


def test_its_comparisons_are_those_of_the_pages_it_links():
    section = TEXT.split("## How does it compare?")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| [")]
    assert len(rows) == 2
    for row in rows:
        page = (ROOT / re.search(r"\]\(([\w/.]+)", row).group(1)).read_text()
        numbers = re.findall(r"\d+\.\d+", row.split("|")[2])
        assert numbers, row
        for number in numbers:
            assert number in page, f"{number} of: {row}"


def test_its_python_runs(capsys):
    (block,) = commands.blocks(ROOT / "README.md", "python")
    block = block.replace("batch_size=500", "batch_size=500, num_steps=3, num_queries=5")
    images = np.random.RandomState(0).rand(6, 8, 8, 1).astype(np.float32)
    parameters = jnp.asarray(np.random.RandomState(1).randn(64, 10), jnp.float32)
    labels = np.asarray((images.reshape(6, -1) @ parameters).argmax(1))
    exec(block, {"parameters": parameters, "images": images, "labels": labels})
    assert "apgd-ce" in capsys.readouterr().out


def test_no_placeholder_is_left():
    for path in (ROOT / "README.md", *sorted((ROOT / "configs").glob("*.py"))):
        assert not re.findall(r"\b[A-Z]+_(?:TIME|TABLE)\b", path.read_text()), path
