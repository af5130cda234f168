"""Evaluation of files of weights, of networks that may have been trained elsewhere."""

import ast
import json
import pathlib
import re
import shutil

import numpy as np
import pytest
import safetensors.numpy
from helpers import tiny
from helpers.tiny import with_attacks

import launch
from jaxrw import evaluate, export, report, runs
from jaxrw.runs.results import doubts
from jaxrw.system.errors import UserError
from jaxrw.training.experiment import create_experiment

ROOT = pathlib.Path(__file__).parent.parent


def test_a_file_is_worth_what_the_run_is_worth(run, tmp_path):
    _, workdir = run
    config = with_attacks("clean", "pgd20", evaluation__eps=0.05)
    own = evaluate.run(config, shutil.copytree(workdir, tmp_path / "run"), checkpoint="last")
    path = tmp_path / "network.safetensors"
    shutil.copy(workdir / "last.safetensors", path)
    results = evaluate.run(config, tmp_path / "file", checkpoint=path)
    assert results == json.loads((tmp_path / "file" / "results.json").read_text())
    assert results["checkpoints"]["file"]["accuracy"] == own["checkpoints"]["last"]["accuracy"]
    assert results["checkpoints"]["file"]["num_examples"] == 30
    # Nothing is said about a training that nobody here has seen.
    assert set(results["config"]) == {"seed", "dataset", "model", "evaluation"}
    # What is there is not measured again, whatever the file's place, and more can be added.
    (tmp_path / "elsewhere").mkdir()
    moved = path.rename(tmp_path / "elsewhere" / "moved.safetensors")
    more = evaluate.run(with_attacks("fgsm", evaluation__eps=0.05), tmp_path / "file", checkpoint=moved)
    accuracy = more["checkpoints"]["file"]["accuracy"]
    assert accuracy == results["checkpoints"]["file"]["accuracy"] | {"fgsm": accuracy["fgsm"]}
    assert accuracy["fgsm"] is not None


def test_a_file_that_is_better_with_a_usual_mean_and_std_is_told(run, tmp_path, capsys):
    """Weights of the run, whose first layer takes images as they come, but for the mean and std of MNIST."""
    _, workdir = run
    weights = safetensors.numpy.load_file(workdir / "last.safetensors")
    path = tmp_path / "network.safetensors"
    weights["conv1.weight"] = 3 * weights["conv1.weight"]  # The std is 0.3081; the mean is near enough to 0.
    safetensors.numpy.save_file(weights, path)
    config = with_attacks("clean", model__mean=(0.9,), model__std=(0.3081,))
    evaluate.run(config, tmp_path / "wrong", checkpoint=path)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "normalized" in line]
    shown = re.search(
        r"with model.mean=(.*) and model.std=(.*) the .* first 30 test images is (.*), here (.*)$", line
    )
    mean, std = (None if value == "None" else ast.literal_eval(value) for value in shown.groups()[:2])
    best, own = map(float, shown.groups()[2:])
    config = with_attacks("clean", model__mean=mean, model__std=std)
    found = evaluate.run(config, tmp_path / "right", checkpoint=path)["checkpoints"]["file"]["accuracy"][
        "clean"
    ]
    assert found == pytest.approx(best, abs=0.06)
    assert best >= own + 10
    assert "normalized" not in capsys.readouterr().err


def test_a_mean_and_std_in_the_file_belong_to_the_network(run, tmp_path):
    _, workdir = run
    weights = safetensors.numpy.load_file(workdir / "last.safetensors")
    weights |= {"mean": np.float32([0.3]), "std": np.float32([0.5])}
    path = tmp_path / "normalizing.safetensors"
    safetensors.numpy.save_file(weights, path)
    config = with_attacks("pgd20", evaluation__eps=0.05, model__mean=(0.3,), model__std=(0.5,))
    inside = evaluate.run(with_attacks("pgd20", evaluation__eps=0.05), tmp_path / "inside", checkpoint=path)
    both = evaluate.run(config, tmp_path / "both", checkpoint=path)
    plain = workdir / "last.safetensors"
    outside = evaluate.run(config, tmp_path / "outside", checkpoint=plain)
    accuracies = [content["checkpoints"]["file"]["accuracy"] for content in (inside, both, outside)]
    assert accuracies[0] == accuracies[1] == accuracies[2]
    assert accuracies[0]["pgd20"] > 0
    config.model.mean = (0.4,)
    with pytest.raises(
        UserError, match=r"model.mean is \(0.4,\), but .*normalizing.* by \(0.3,.*leave it out"
    ):
        evaluate.run(config, tmp_path / "other", checkpoint=path)


def test_files_that_cannot_be_evaluated(run, tmp_path):
    config, workdir = run
    weights = workdir / "last.safetensors"
    with pytest.raises(UserError, match="--checkpoint is 'first'; choose of last, best, or a file"):
        evaluate.run(config, workdir, checkpoint="first")
    with pytest.raises(UserError, match=r"holds a run; last.safetensors needs a directory of its own"):
        evaluate.run(config, workdir, checkpoint=weights)
    with pytest.raises(UserError, match=r"is a WRN-10-1 with 10 classes: set .*model.width to 1"):
        evaluate.run(tiny.config(model__width=2), tmp_path / "wide", checkpoint=weights)
    assert not (tmp_path / "wide").exists()
    with_one = with_attacks("clean")
    evaluate.run(with_one, tmp_path / "file", checkpoint=weights)
    before = (tmp_path / "file" / "results.json").read_bytes()
    weights = safetensors.numpy.load_file(weights)
    safetensors.numpy.save_file(weights | {"fc.bias": weights["fc.bias"] + 1}, tmp_path / "b.safetensors")
    with pytest.raises(UserError, match=r"holds results of other weights than .*b.safetensors"):
        evaluate.run(with_one, tmp_path / "file", checkpoint=tmp_path / "b.safetensors")
    assert (tmp_path / "file" / "results.json").read_bytes() == before
    with pytest.raises(UserError, match="--mode export chooses of last, best"):
        export.run(config, workdir, checkpoint="best.pt")


def test_on_the_command_line(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, workdir = run
    small = tiny.config()
    fields = [
        f"--config.{field}={getattr(small.model, field.split('.')[1])}"
        for field in ("model.name", "model.depth", "model.width")
    ]
    arguments = [
        "launch.py",
        f"--config={ROOT / 'configs' / 'digits.py'}",
        *fields,
        "--config.dataset.test_size=30",
    ]
    arguments += ["--config.evaluation.attacks=('clean',)", "--mode=evaluate"]
    assert launch.main([*arguments, f"--checkpoint={workdir / 'last.safetensors'}"]) == 0
    out = capsys.readouterr().out
    assert "| last | -      | file       |     - |     30 |" in out
    assert pathlib.Path("runs/last/results.json").exists()
    (tmp_path / "broken.safetensors").write_bytes(b"x")
    assert launch.main([*arguments, "--checkpoint=broken.safetensors"]) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert "broken.safetensors is no .safetensors file" in err
    assert launch.main(["launch.py", "--mode=report"]) == 2  # no method and no seed: no row of a table
    assert "last: left out: of weights that were trained elsewhere" in capsys.readouterr().err


def test_a_constant_classifier_is_said_in_the_evaluation_and_in_every_table(run, tmp_path, capsys):
    """All weights 0 but a bias: always the first class, whatever the attack."""
    _, workdir = run
    weights = safetensors.numpy.load_file(workdir / "last.safetensors")
    path = tmp_path / "constant.safetensors"
    constant = {name: 0 * value for name, value in weights.items()}
    constant["fc.bias"] = np.eye(10, dtype=np.float32)[0]
    safetensors.numpy.save_file(constant, path)
    results = evaluate.run(with_attacks("clean", "pgd20"), tmp_path / "file", checkpoint=path)
    checkpoint = results["checkpoints"]["file"]
    labels = create_experiment(with_attacks("clean")).dataset.test.labels
    assert checkpoint["chance"] == 100 * np.bincount(labels).max() / 30
    assert checkpoint["accuracy"]["clean"] == checkpoint["accuracy"]["pgd20"] == 100 * (labels == 0).mean()
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "warning: file: a clean accuracy of" in err
    (words,) = doubts(results["checkpoints"])
    assert words in err
    # In a run's directory the report has it too.
    copy = shutil.copytree(workdir, tmp_path / "runs" / "run")
    results = evaluate.run(with_attacks("clean"), copy)
    assert doubts(results["checkpoints"]) == []
    best = results["checkpoints"]["best"]
    best["accuracy"]["clean"] = best["chance"]
    del best["correct"]
    runs.write_json(copy / "results.json", results)
    assert "run: best: a clean accuracy of" in report.run(tmp_path / "runs")
    assert "- **run**: best: a clean accuracy of" in (tmp_path / "runs/report/report.md").read_text()
