"""What docs/ promises: the tests it names are there, its commands can be typed, and no file of a user is executed."""

import ast
import pathlib
import re

import pytest

import launch

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"


def functions_of(path):
    """Names of the test functions of a file."""
    tree = ast.parse(path.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_test_that_the_promises_name_exists():
    named = re.findall(r"`(tests/\w+\.py)::(\w+)`", (DOCS / "reliability.md").read_text())
    assert len(named) > 30
    for path, name in named:
        assert name in functions_of(ROOT / path), f"{path}::{name}"


def test_every_row_of_the_promises_names_a_test():
    text = (DOCS / "reliability.md").read_text().split("## How")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    for row in rows:
        assert "::" in row.split("|")[3], row


def test_commands_for_cloud_tpus_are_ours():
    """Every launch.py command in the page is understood by the command line, whatever the shell would put in."""
    text = (DOCS / "cloud_tpu.md").read_text().replace("\\\n", " ")
    commands = re.findall(r"launch\.py (--[^\n\"&#]*)", text)
    assert len(commands) >= 4
    for command in commands:
        words = command.replace("$i", "0").split()
        for path in re.findall(r"configs/\w+\.py", command):
            assert (ROOT / path).exists()
        assert launch.command_line.parse(["launch.py", *words]).config is not None


# What runs or builds arbitrary objects from a file. A config is Python and is run by ml_collections alone.
_DANGEROUS = re.compile(
    r"\b(pickle|cPickle|dill|cloudpickle|marshal|shelve|joblib)\b|\beval\(|\bexec\(|yaml\.load"
)


@pytest.mark.parametrize("path", sorted((ROOT / "jaxrw").rglob("*.py")), ids=lambda path: path.stem)
def test_nothing_is_unpickled(path):
    """No module imports what executes a file; `allow_pickle` is only ever False; see torch_weights for .pt files."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            assert path.stem == "torch_weights" or not any(_DANGEROUS.search(name) for name in names)
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("eval", "exec", "pickle.load", "pickle.loads", "yaml.load"), called
            if called in ("np.load", "numpy.load"):
                options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert options.get("allow_pickle", "False") == "False"
