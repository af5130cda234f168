"""The benchmarks run, and their arithmetic is right; PyTorch's side is checked by themselves where it is installed."""

import argparse
import json
import pathlib

import pytest

from benchmarks import attack_step, evaluate, start, timing, train_step


def test_ratio_is_of_rounds_not_of_medians():
    """A slow minute that meets both contenders of its round leaves the ratio alone."""
    assert timing.ratio([1, 10, 3], [2, 20, 4]) == (0.5, 0.5, 0.75)


def test_contenders_take_turns():
    calls = []
    seconds = timing.alternate({name: lambda name=name: calls.append(name) for name in "ab"}, repeats=2)
    assert "".join(calls) == "ab" * 3
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


def test_table_names_the_faster_peer():
    seconds = {"jaxrw": [1.0, 1.0, 1.2], "slow": [3.0, 3.0, 3.0], "fast": [2.0, 2.0, 2.0]}
    last = timing.comparison([{"width": 16, "seconds": seconds}]).splitlines()[2]
    assert [cell.strip() for cell in last.split("|")[1:-1]] == [
        "16", "1.000 +-0.100", "fast", "2.000 +-0.000", "0.50 (0.50 to 0.60)"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("benchmark", "arguments"),
    [
        (train_step, "--width 1 --batch 2 --repeats 1 --no-torch --parts whole"),
        (evaluate, "--width 1 --batch 2 --repeats 1 --no-torch --steps 2"),
        (start, "--repeats 0 --configs"),
        (attack_step, "--batch 2 --size 8 --width 1 --steps 1 --repeats 1"),
    ],
)
def test_benchmarks_write_what_they_measured(benchmark, arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(timing, "RESULTS", tmp_path)
    benchmark.main(arguments.split())
    (path,) = tmp_path.glob("*.json")
    content = json.loads(path.read_text())
    assert str(path) in capsys.readouterr().out
    assert content["versions"]["jax"]
    assert content["machine"]["cores"]
    assert content["measured"] is not None


def test_a_path_among_the_arguments_is_written_too(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "RESULTS", tmp_path)
    arguments = argparse.Namespace(plot=pathlib.Path("docs") / "picture")
    assert (
        json.loads(timing.write("scaling", [], arguments=arguments).read_text())["arguments"]["plot"]
        == "docs/picture"
    )
