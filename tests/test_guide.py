"""What the pages tell people to type: every command is run, small, or checked, and every block of code is run."""

import os
import pathlib
import re
import subprocess
import types

import commands
import jax
import jax.numpy as jnp
import pytest
from PIL import Image

import launch
from jaxrw import reweighting

ROOT = commands.ROOT
DOCS = ROOT / "docs"


def blocks(page):
    """Blocks of Python of a page of the guide."""
    return commands.blocks(DOCS / f"{page}.md", "python")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A directory with the configs and a folder of images, as a person would stand in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for number in range(12):
        for part in ("train", "test"):
            path = tmp_path / "data" / part / f"class{number % 3}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (20 * number, 0, 0)).save(path)
    return tmp_path


@pytest.mark.parametrize("page", commands.PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_page(page, here):
    typed = commands.check_all(page)
    if any("--mode report" in command for command in typed):
        assert (here / "runs" / "report" / "report.html").exists()


@pytest.mark.parametrize(
    "line",
    [
        "    conda activate jaxrw",
        "Then `nvidia-smi -L` lists them.",
        "    make tarin",
        "    make test TEST=tests/test_step.py",
        "    pip install jaxwr",
        "    tensorboard --logdir runs",
        "    python launch.py --config configs/digit.py",
        "Add `--config.method.tua=3`.",
        "Add `--wordkir`.",
        "Type `python -m benchmarks.evaluate --widht 16`.",
        "```sh\nmake test\n```",
    ],
)
def test_a_command_that_cannot_be_typed_or_that_nothing_checks_is_told(line, here):
    (here / "page.md").write_text(f"Type\n\n{line}\n")
    with pytest.raises((AssertionError, subprocess.CalledProcessError)):
        commands.check_all(here / "page.md")


@pytest.mark.parametrize("page", ["method", "data"])
def test_code_prints_what_the_page_says(page, capsys):
    (block,) = blocks(page)
    exec(block, {})
    (printed,) = re.findall(r"^prints `(.*?)`", (DOCS / f"{page}.md").read_text(), re.MULTILINE)
    assert capsys.readouterr().out.strip() == printed


def test_figures_are_drawn_again_as_the_page_says(here):
    run = ["--config", "configs/digits.py", "--workdir", "runs/digits"]
    figures = ["--config.evaluation.figure_examples=20", "--config.evaluation.figure_eps=(0.0,1.0)"]
    assert commands.launch_small(run, figures) == 0
    drawn = here / "runs" / "digits" / "figures" / "figure4_similarity.svg"
    drawn.unlink()
    (block,) = blocks("evaluation")
    exec(block, {})
    assert drawn.exists()


def test_kernels_are_chosen_as_the_page_says(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    (block,) = blocks("performance")
    exec(block, {})


def test_configs_of_the_page_are_configs(tmp_path, capsys, monkeypatch):
    own, sweep = blocks("configs")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "digits.py").write_text((ROOT / "configs" / "digits.py").read_text())
    (tmp_path / "sweeps" / "slopes.py").write_text(sweep)
    assert launch.main(["launch.py", "--config=sweeps/slopes.py", "--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
    namespace = {}
    exec(own, namespace)
    assert namespace["get_config"]().method.gamma == 5


def test_the_new_weighting_of_the_page_works():
    """Its three additions, made to a copy of the module."""
    function, case, check = blocks("extending")
    source = pathlib.Path(reweighting.__file__).read_text()
    source = source.replace('        case "ours_mail":', f'{case}        case "ours_mail":')
    source = source.replace("@dataclasses.dataclass", f"{function}\n\n@dataclasses.dataclass", 1)
    source = source.replace('METHODS = ("standard",', 'METHODS = ("standard", "focal",')
    module = types.ModuleType("extended")
    vars(module)["__name__"] = reweighting.__name__  # dataclasses look their module up
    exec(source, vars(module))
    exec(check, vars(module))
    fields = {
        "tau": 2.0,
        "similarity": True,
        "beta": 0.5,
        "gamma": 2.0,
        "alpha": 2.0,
        "multiplier": 3.0,
        "lam": -1.0,
    }
    weighting = module.create("focal", num_steps=10, **fields)
    assert jax.vmap(weighting.weight)(
        jnp.zeros((4, 10)), jnp.zeros(4, int), jnp.zeros(4, int)
    ) == pytest.approx(2.43)


def test_links_lead_somewhere():
    for path in commands.PAGES:
        for link in re.findall(r"\]\(<?([^)>#]+?)>?(?:#[^)]*)?\)", path.read_text()):
            if "://" not in link:
                assert os.path.exists(path.parent / link), (path.name, link)
