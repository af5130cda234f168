"""What the pages tell people to type: every command is run, small, or checked, and every block of code is run."""

import functools
import json
import re
import shutil
import subprocess
import warnings

import jax
import numpy as np
import pytest
from helpers import commands
from PIL import Image

import launch
from jaxrw import attacks, data, methods, networks, torch_weights

ROOT = commands.ROOT
DOCS = ROOT / "docs"


def blocks(page):
    """Blocks of Python of a page of the guide."""
    return commands.blocks(DOCS / f"{page}.md", "python")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A directory with the configs and a folder of images, as a person would stand in."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "configs", tmp_path / "configs", ignore=shutil.ignore_patterns("__pycache__"))
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
        assert list((here / "runs").rglob("report/report.html"))


@pytest.mark.parametrize(
    "line",
    [
        "    conda activate jaxrw",
        "Then `nvidia-smi -L` lists them.",
        "    make tarin",
        "    make test TEST=tests/test_step.py",
        "    pip install jaxwr",
        "    pip install -e . 'jax[cuda99]'",
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


@pytest.mark.parametrize("number", range(5), ids=["linen", "nnx", "equinox", "haiku", "plain"])
def test_models_of_the_page_are_attacked(number, capsys):
    """Equinox and Haiku where they are installed."""
    block = blocks("models")[number]
    for name in re.findall(r"^import (equinox|haiku)", block, re.MULTILINE):
        pytest.importorskip(name)
    images = np.random.RandomState(0).rand(6, 32, 32, 3).astype(np.float32)
    few = block.replace("batch_size=500", "batch_size=6, attacks=('apgd-ce',), num_steps=2, progress=False")
    labels = np.zeros(6, int)
    exec(few, {"images": images, "labels": labels})
    printed = capsys.readouterr().out
    assert "of 6 examples robust" in printed
    assert "apgd-ce" in printed


def test_figures_are_drawn_again_as_the_page_says(here):
    run = ["--config", "configs/digits.py", "--workdir", "runs/digits"]
    figures = ["--config.evaluation.figure_examples=20", "--config.evaluation.figure_eps=(0.0,1.0)"]
    assert commands.launch_small(run, figures) == 0
    drawn = here / "runs" / "digits" / "figures" / "figure4_similarity.svg"
    drawn.unlink()
    _, block = blocks("runs")
    exec(block, {})
    assert drawn.exists()


def test_trained_weights_are_used_in_python_as_the_page_says(here, capsys):
    """They print what the network that was saved answers."""
    network = networks.create("resnet18", num_classes=10, depth=10, width=16)
    images = data.load("digits").test.images[:10] / np.float32(255)
    variables = network.init(jax.random.key(0), images[:1], train=False)
    file = here / "runs" / "digits" / "last.safetensors"
    file.parent.mkdir(parents=True)
    torch_weights.save(file, variables, model=network)
    block, _ = blocks("runs")
    exec(block, {})
    printed = [int(word) for word in capsys.readouterr().out.strip(" []\n").split()]
    assert printed == network.apply(variables, images, train=False).argmax(-1).tolist()


def test_autoattack_runs_in_l2_on_random_models_and_with_a_surrogate_as_the_page_says(monkeypatch):
    plain, random, cheap = blocks("evaluation")
    weights = jax.random.normal(jax.random.key(0), (12, 3))
    images = jax.random.uniform(jax.random.key(1), (6, 2, 2, 3))
    model = jax.tree_util.Partial(lambda weights, images: images.reshape(len(images), -1) @ weights, weights)
    namespace = {"model": model, "images": images, "labels": model(images).argmax(1)}
    whole = attacks.autoattack
    monkeypatch.setattr(attacks, "autoattack", functools.partial(whole, num_steps=5, num_queries=5))
    exec(plain, namespace)
    assert namespace["result"].norm == "l2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", attacks.RobustnessWarning)  # of votes that were close
        exec(random, namespace)
    assert namespace["result"].version == "rand"
    exec(cheap, namespace)
    assert namespace["result"].surrogate


def test_kernels_are_chosen_as_the_page_says(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    (block,) = blocks("performance")
    exec(block, {})


def test_configs_of_the_page_are_configs(tmp_path, capsys, monkeypatch):
    own, _, sweep = blocks("configs")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "digits.py").write_text((ROOT / "configs" / "digits.py").read_text())
    (tmp_path / "sweeps" / "slopes.py").write_text(sweep)
    assert launch.main(["launch.py", "--config=sweeps/slopes.py", "--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
    namespace = {}
    exec(own, namespace)
    assert namespace["get_config"]().method.gamma == 5


def test_the_method_of_the_page_is_known_everywhere(here, monkeypatch, capsys):
    """Added as docs/extending.md says, it is in the config check, the step, report, figure and README check."""
    _, function, record, check = blocks("extending")
    namespace = {}
    exec(f"import jax\nimport jax.numpy as jnp\nfrom jaxrw.methods import Method\n{function}", namespace)
    exec(check, namespace)
    added = eval(record, namespace)
    monkeypatch.setitem(methods.METHODS, added.name, added)
    assert added.constants == ("gamma", "multiplier")

    run = ["--config", "configs/digits.py", "--config.method.name=focal", "--workdir", "runs/digits/focal-0"]
    figures = ["--config.evaluation.figure_examples=20", "--config.evaluation.figure_eps=(0.0,1.0)"]
    assert commands.launch_small(run, figures) == 0
    assert "| focal " in capsys.readouterr().out
    lines = map(json.loads, (here / "runs/digits/focal-0/metrics.jsonl").read_text().splitlines())
    weights = [line["mean_weight"] for line in lines if line["kind"] == "train"]
    # Two epochs, of which the first is the warm-up; with ten classes and few steps p_y is near 0.1.
    assert weights[0] == 1
    assert 0.3 < weights[1] < 3
    svg = (here / "runs/digits/focal-0/figures/weighting.svg").read_text()
    assert "Focal" in svg

    assert launch.main(["launch.py", "--mode", "report", "--workdir", "runs"]) == 0
    assert "\n| Focal" in (here / "runs" / "report" / "report.md").read_text()

    listed = (ROOT / "configs" / "sweeps" / "table5.py").read_text().replace("../resnet", "../configs/resnet")
    (here / "sweeps").mkdir()
    (here / "sweeps" / "all.py").write_text(listed.replace("../wrn", "../configs/wrn"))
    capsys.readouterr()
    assert launch.main(["launch.py", "--config=sweeps/all.py", "--list", "--workdir=elsewhere"]) == 0
    assert "--config.method.name=focal" not in capsys.readouterr().out  # The paper's tables stay the paper's.

    with pytest.raises(AssertionError):
        commands.check_table_of_methods((ROOT / "README.md").read_text())


def test_links_lead_somewhere():
    for path in commands.PAGES:
        for link, anchor in re.findall(r"\]\(<?([^)>#]*)(?:#([^)>]*))?>?\)", path.read_text()):
            if "://" not in link:
                target = path.parent / link if link else path
                assert target.exists(), (path.name, link)
                assert not anchor or anchor in commands.anchors(target), (path.name, link, anchor)
