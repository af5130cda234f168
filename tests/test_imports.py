"""The direction of imports: a module imports only from rooms that CONTRIBUTING.md lists above its own."""

import ast
import pathlib
import re
import shutil
import subprocess

import pytest

import jaxrw

ROOT = pathlib.Path(jaxrw.__file__).parent
CONTRIBUTING = (ROOT.parent / "CONTRIBUTING.md").read_text()
(BLOCK,) = re.findall(r"```text\n(.*?)```", CONTRIBUTING, re.DOTALL)
LISTED = [name for line in BLOCK.splitlines() for name in re.split(r"\s{2,}", line)[0].split(", ")]
ORDER = [name.removesuffix("/") for name in LISTED]


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


def test_contributing_marks_folders():
    folders = {f"{path.name}/" for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    assert {name for name in LISTED if name.endswith("/")} == folders


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
