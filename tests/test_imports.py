"""The direction of the tree: an import only ever points to the left of this list."""

import ast
import pathlib
import re
import shutil
import subprocess

import pytest

import jaxrw

ORDER = (
    "errors",
    "files",
    "compilation",
    "command_line",
    "preemption",
    "integrity",
    "hosts",
    "data",
    "augment",
    "attacks",
    "convolution",
    "models",
    "torch_weights",
    "margins",
    "reweighting",
    "losses",
    "histograms",
    "settings",
    "step",
    "accuracy",
    "experiment",
    "checkpoints",
    "runs",
    "progress",
    "figures",
    "train",
    "evaluate",
    "export",
    "sweep",
    "report",
)
ROOT = pathlib.Path(jaxrw.__file__).parent


def rooms():
    """Every source file with the module or sub-package it belongs to."""
    for path in sorted(ROOT.rglob("*.py")):
        room = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if room != "__init__":
            yield room, path


def imported(path):
    """First name after `jaxrw.` of each import in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jaxrw":
            below = node.module.split(".")[1:]
            yield from below[:1] or [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("jaxrw."))


def test_every_room_is_in_the_order():
    assert {room for room, _ in rooms()} == set(ORDER)


def test_contributing_shows_the_rooms_in_their_order():
    (block,) = re.findall(r"```text\n(.*?)```", (ROOT.parent / "CONTRIBUTING.md").read_text(), re.DOTALL)
    listed = re.findall(r"^((?:\w+/?(?:, )?)+)  ", block, re.MULTILINE)
    names = [name for line in listed for name in line.split(", ")]
    assert [name.removesuffix("/") for name in names] == list(ORDER)
    assert {name for name in names if name.endswith("/")} == {
        f"{path.name}/" for path in ROOT.iterdir() if (path / "__init__.py").exists()
    }


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_no_source_file_is_kept_out_of_the_repository():
    """A pattern in .gitignore that fits a folder of the package would leave everybody else without it."""
    paths = [str(path) for path in sorted(ROOT.rglob("*.py"))]
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", *paths], cwd=ROOT.parent, capture_output=True, text=True
    )
    if done.returncode == 128:
        pytest.skip("no git repository here")
    assert done.stdout == ""


def test_imports_never_turn_back():
    for room, path in rooms():
        for name in imported(path):
            assert name == room or ORDER.index(name) < ORDER.index(room), f"{path} imports {name}"


def test_pmap_is_called_in_one_file():
    calling = [path.name for _, path in rooms() if "pmap(" in path.read_text()]
    assert calling == ["step.py"]
