"""What docs/ promises: the tests it names are there, its commands can be typed, and no file of a user is executed."""

import ast
import html.parser
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import urllib.parse

import pytest
from helpers import commands

import jaxrw
from jaxrw import command_line

ROOT = commands.ROOT
DOCS = ROOT / "docs"


def functions_of(path):
    """Names of the test functions of a file."""
    tree = ast.parse(path.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_test_that_the_promises_name_exists():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (DOCS / "reliability.md").read_text())
    assert len(named) > 30
    for path, name in named:
        assert name in functions_of(ROOT / path), f"{path}::{name}"


def test_every_row_of_the_promises_names_a_test():
    text = (DOCS / "reliability.md").read_text().split("## How")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    for row in rows:
        assert "::" in row.split("|")[3], row


# Stands in for a program: tells its arguments. What gcloud would run on another machine is run here, and each of its
# calls fails once, so that what comes after a failure is run too. ASCII has separators for units and for records.
_STAND_IN = r"""#!{bash}
printf -v call '%s\x1f' "${{0##*/}}" "$@"
known=$(<"$CALLS")
printf '%s\x1e' "$call" >> "$CALLS"
for argument; do
  [[ $argument != --command=* ]] || {bash} -c "${{argument#*=}}"
done
[[ $0 != */gcloud || $known == *"$call"* ]]
"""
PROGRAMS = {"gcloud", "pip", "python", "python3.11", "sudo", "sleep"}


@pytest.fixture
def typed(tmp_path):
    """Function that types a script into a shell that has stand-ins and nothing else; returns their calls."""
    bash, programs = shutil.which("bash"), tmp_path / "venv" / "bin"
    activate, calls = tmp_path / ".venv" / "bin" / "activate", tmp_path / "calls"
    for directory in (programs, activate.parent):
        directory.mkdir(parents=True)
    activate.touch()
    for name in PROGRAMS:
        (programs / name).write_text(_STAND_IN.format(bash=bash))
        (programs / name).chmod(0o755)
    environment = {"PATH": str(programs), "HOME": str(tmp_path), "CALLS": str(calls)}
    environment["BASH_FUNC_cd%%"] = "() { :; }"  # another machine's directories are not here

    def run(script):
        calls.write_text("")
        command = [bash, "-c", script]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert not done.stderr
        return [call.split("\x1f")[:-1] for call in calls.read_text().split("\x1e")[:-1]]

    return run


def test_scripts_for_cloud_tpus_call_what_is_there(typed, monkeypatch):
    """Each program is one that is known here; pip and launch.py understand their command lines."""
    monkeypatch.chdir(ROOT)
    calls = [call for script in commands.blocks(DOCS / "cloud_tpu.md", "bash") for call in typed(script)]
    for program, *arguments in calls:
        if program == "pip":
            commands.check(shlex.join([program, *arguments]))
        if arguments[:1] == ["launch.py"]:
            assert command_line.parse(arguments).config is not None
    assert {program for program, *_ in calls} == PROGRAMS
    assert sum("launch.py" in arguments for _, *arguments in calls) >= 5
    assert [page.stem for page in commands.PAGES if commands.blocks(page, "bash")] == ["cloud_tpu", "slurm"]


@pytest.mark.parametrize(
    "script", ["conda activate jaxrw", "gcloud ssh --command='kubectl get pods'", "for i in 1"]
)
def test_a_program_that_no_test_knows_is_told(script, typed):
    with pytest.raises(AssertionError):
        typed(script)


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


def test_every_page_is_once_in_the_navigation():
    groups = runpy.run_path(DOCS / "site" / "conf.py")["NAVIGATION"]
    listed = [page for pages in groups.values() for page in pages]
    # notes.md are the beginnings of these pages.
    results = [page for page in (ROOT / "results").rglob("*.md") if page.name != "notes.md"]
    pages = [*commands.PAGES, *results, DOCS / "tutorial.ipynb", ROOT / "benchmarks" / "README.md"]
    written = [str(page.relative_to(ROOT).with_suffix("")) for page in pages]
    generated = [f"docs/reference/{name}" for name in dir(jaxrw) if not name.startswith("_")]
    assert sorted(listed) == sorted(written + generated)


class _Page(html.parser.HTMLParser):
    """What a page of the site refers to, and the places in it that others may refer to."""

    def __init__(self, path):
        super().__init__()
        self.targets, self.anchors = [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.targets += [values[name] for name in ("href", "src") if name in values]
        self.anchors.add(values.get("id"))


def test_the_site_is_built_without_a_warning_and_needs_nothing_else(tmp_path):
    """What its pages refer to is in it, anchors included; nothing but links of the text leads to the network."""
    for name in ("furo", "myst_nb"):
        pytest.importorskip(name)
    (command,) = re.findall(
        r"^\t\$\(BIN\)/python -m (sphinx .*)$", (ROOT / "Makefile").read_text(), re.MULTILINE
    )
    flags = command.removesuffix("build/doctrees . build/site").split()
    built = subprocess.run(
        [sys.executable, "-m", *flags, tmp_path / "doctrees", ".", tmp_path / "site"], cwd=ROOT
    )
    assert built.returncode == 0
    pages = {path: _Page(path) for path in (tmp_path / "site").rglob("*.html")}
    assert len(pages) > 25
    for path, page in pages.items():
        for target in page.targets:
            url = urllib.parse.urlparse(target)
            if not url.scheme:
                other = (path.parent / urllib.parse.unquote(url.path)).resolve() if url.path else path
                assert other.exists(), (path, target)
                assert not url.fragment or other not in pages or url.fragment in pages[other].anchors, (
                    path,
                    target,
                )
        assert not re.search(r"<(script|link|img)[^>]*(src|href)=\"(https?:)?//", path.read_text()), path
