"""What the guide tells people to type: every command is run, small, and every block of code."""

import os
import pathlib
import re
import shlex
import types

import jax
import jax.numpy as jnp
import pytest
from PIL import Image
from test_launch import TINY

import launch
from jaxrw import reweighting

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = ("method", "configs", "data", "evaluation", "extending")

# After what a command says, so that a test can afford it; test_launch has compiled most of it.
FIGURES = ["--config.evaluation.figure_examples=20", "--config.evaluation.figure_eps=(0.0,1.0)"]
FOLDER = [
    "--config.dataset.train_size=8",
    "--config.dataset.validation_size=0",
    "--config.optim.batch_size=4",
]
FOLDER += ["--config.dataset.test_size=4"]


def commands(page):
    """Command lines of launch.py in a page."""
    return [
        shlex.split(line) for line in re.findall(r"^    python launch.py (.*)$", read(page), re.MULTILINE)
    ]


def read(page):
    return (DOCS / f"{page}.md").read_text()


def blocks(page):
    return re.findall(r"```python\n(.*?)```", read(page), re.DOTALL)


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


def run(arguments, *, figures=()):
    """Run a command of a page, smaller where it trains."""
    if "report" in arguments or "--list" in arguments:
        return launch.main(["launch.py", *arguments])
    more = [*TINY, *figures, *(FOLDER if any("folder" in argument for argument in arguments) else [])]
    if any("evaluation.attacks" in argument for argument in arguments):
        more = [argument for argument in more if "evaluation.attacks" not in argument]
    if any("keep_warmup" in argument or "warmup_from" in argument for argument in arguments):
        more += ["--config.method.warmup_epochs=1", "--config.optim.num_epochs=2"]
    return launch.main(["launch.py", *arguments, *more])


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_every_command_runs(page, here, capsys):
    for arguments in commands(page):
        assert run(arguments, figures=FIGURES if page == "evaluation" else ()) == 0, (
            arguments,
            capsys.readouterr().err,
        )
    if page == "evaluation":
        exec(blocks(page)[0], {})
        assert (here / "runs" / "digits" / "figures" / "figure4_similarity.svg").exists()
        assert (here / "runs" / "report" / "report.html").exists()


@pytest.mark.parametrize("page", ["method", "data"])
def test_code_prints_what_the_page_says(page, capsys):
    (block,) = blocks(page)
    exec(block, {})
    (printed,) = re.findall(r"^prints `(.*?)`", read(page), re.MULTILINE)
    assert capsys.readouterr().out.strip() == printed


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
    for path in (ROOT / "README.md", *DOCS.glob("*.md")):
        for link in re.findall(r"\]\(<?([^)>#]+?)>?(?:#[^)]*)?\)", path.read_text()):
            if "://" not in link:
                assert os.path.exists(path.parent / link), (path.name, link)
