"""Which runs a report finds, and which it leaves out."""

import copy
import csv
import json
import re

import pytest
from helpers.made_up_runs import cells, put

import launch
from configs import base
from jaxrw import methods, report, runs, settings
from jaxrw.report.evidence import collect, published
from jaxrw.system.errors import UserError


def damaged(change):
    """results.json of a good run after a change of its content."""

    def make(content):
        content = copy.deepcopy(content)
        result = change(content)
        return json.dumps(content if result is None else result)

    return make


def at(*path, value):
    """A change that sets one value."""

    def change(content):
        for name in path[:-1]:
            content = content[name]
        content[path[-1]] = value

    return damaged(change)


UNUSABLE = {
    "no JSON": (lambda content: "{", "results.json is damaged"),
    "empty": (lambda content: "", "results.json is damaged"),
    "no text": (lambda content: b"\xff\xfe\x00", "results.json is damaged"),
    "deep": (lambda content: "[" * 200_000, "results.json is damaged"),
    "a list": (lambda content: "[]", "holds a list, not an object"),
    "of another program": (lambda content: '{"loss": 1}', "has no schema"),
    "another schema": (at("schema", value=2), "has schema 2; this version reads 1"),
    "without config": (damaged(lambda content: content.pop("config") and None), "config is missing"),
    "config that is none": (at("config", value=[1]), "config is [1]; must be of type dict"),
    "empty config": (
        damaged(lambda content: {**content, "config": {}}),
        "config.dataset.name is missing",
    ),
    "seed of text": (at("config", "seed", value="x"), "config.seed is 'x'; must be of type int"),
    "seed of truth": (at("config", "seed", value=True), "config.seed is True"),
    "no method": (at("config", "method", value={}), "config.method.name is missing"),
    "unknown method": (at("config", "method", "name", value="mart"), "'mart'; no such method is known"),
    "no checkpoints": (at("checkpoints", value={}), "checkpoints has neither last nor best"),
    "weights from elsewhere": (at("checkpoints", value={"file": {}}), "trained elsewhere, by no method"),
    "all null": (at("checkpoints", value={"last": None, "best": None}), "checkpoints are all null"),
    "a checkpoint of text": (at("checkpoints", "last", value="x"), "checkpoints.last is 'x'"),
    "no accuracy": (at("checkpoints", "last", value={"epoch": 1}), "checkpoints.last.accuracy is missing"),
    "NaN": (at("checkpoints", "last", "accuracy", "pgd20", value=float("nan")), "last.accuracy.pgd20 is nan"),
    "infinite": (at("checkpoints", "last", "accuracy", "aa", value=float("inf")), "last.accuracy.aa is inf"),
    "above 100": (at("checkpoints", "last", "accuracy", "aa", value=101), "must be a percentage in 0..100"),
    "text": (at("checkpoints", "last", "accuracy", "aa", value="44"), "last.accuracy.aa is '44'"),
    "no images": (at("checkpoints", "last", "num_examples", value=0), "num_examples 0"),
    "no epochs": (at("config", "optim", "num_epochs", value=-5), "num_epochs is -5; must be at least 1"),
    "not finished": (
        at("checkpoints", "last", "epoch", value=4),
        "not finished: it was stopped in epoch 5 of 120 epochs",
    ),
    "stopped in its last epoch": (at("finished", value=False), "stopped in epoch 120 of 120 epochs"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_file_is_named_and_left_out(name, tmp_path, capsys):
    make, words = UNUSABLE[name]
    content = put(tmp_path, "good", last={"pgd20": 50.0})
    (tmp_path / "bad").mkdir()
    text = make(content)
    (tmp_path / "bad" / "results.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    found, (problem,) = collect.collect(tmp_path)
    assert [run.path for run in found] == ["good"]
    assert problem.path == "bad"
    assert "left out: " in problem.words
    assert words in problem.words
    assert launch.main(["launch.py", "--mode=report", f"--workdir={tmp_path}"]) == 0
    out, err = capsys.readouterr()
    assert "bad: left out" in out
    assert err == ""
    (tmp_path / "good" / "results.json").unlink()
    with pytest.raises(UserError, match="no usable"):
        report.run(tmp_path)


def test_duplicates_conflicts_and_missing_runs_are_named(tmp_path):
    put(tmp_path, "a", last={"pgd20": 50.0, "aa": 40.0})
    put(tmp_path, "b", last={"pgd20": 51.0})  # same config and seed, less measured, and another number
    put(tmp_path, "c", seed=1, last={"pgd20": 50.0})
    put(tmp_path, "d", seed=1, last={"pgd20": 50.0}, method__tau=4.0)  # MAIL has no tau
    put(tmp_path, "e", seed=2, last={"pgd20": 50.0}, optim__learning_rate=0.02)
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "config.json").write_text("{}")
    content = put(tmp_path, "g", seed=3, last={"pgd20": 50.0})
    content["config"]["seed"] = 4
    runs.write_json(tmp_path / "g" / "config.json", content["config"])
    report.run(tmp_path)
    text = (tmp_path / "report" / "report.md").read_text()
    told = dict(re.findall(r"- \*\*(\w)\*\*: (.*)", text))
    assert told == {
        "b": "left out: same config and seed as a, but pgd20 of last is 50.00 there and 51.00 here",
        "d": "left out: same config and seed as c",
        "e": "conflicts with a in optim.learning\\_rate (0.01 and 0.02): they are kept apart",
        "f": "has no results.json: not finished, or not evaluated yet",
        "g": "left out: results.json and config.json contradict each other: seed is 3 and 4",
    }
    assert text.count("\n## ResNet-18 on CIFAR-10") == 2
    assert "Not the paper's settings" in text


def fingerprint(digit, *, side=8):
    """A fingerprint of images that differ from others in their digest, and maybe in their size."""
    images = {"train": 24, "validation": 6, "test": 10_000}
    return {"classes": ["a", "b", "c"], "shape": [side, side, 3], "images": images, "sha256": digit * 64}


def test_folders_of_other_images_or_sizes_are_never_averaged(tmp_path):
    for name, data_dir, data in (
        ("a", "/data/pets", fingerprint("1")),
        ("moved", "/disk/pets", fingerprint("1")),
        ("other", "/data/cars", fingerprint("2")),
        ("smaller", "/data/pets", fingerprint("1", side=16)),
    ):
        folder = {"dataset__name": "folder", "dataset__data_dir": data_dir}
        put(tmp_path, name, seed=int(name == "moved"), last={"aa": 40.0}, data=data, **folder)
    report.run(tmp_path)
    text = (tmp_path / "report" / "report.md").read_text()
    assert text.count("## ResNet-18 on the folder pets") == 2
    assert text.count("## ResNet-18 on the folder cars") == 1
    words = "3 classes, 24 training, 6 validation and 10,000 test images of"
    assert f"Data: {words} 8x8x3, SHA-256 111111111111." in text
    assert f"Data: {words} 16x16x3, SHA-256 111111111111." in text
    assert f"Data: {words} 8x8x3, SHA-256 222222222222." in text
    assert f"conflicts with a in data ({words} 8x8x3, SHA-256 111111111111 and {words} 8x8x3, SHA" in text
    with (tmp_path / "report" / "report.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["mean"]]
    assert sorted((row["data"].partition("images of ")[2], row["num_seeds"]) for row in rows) == [
        ("16x16x3, SHA-256 111111111111", "1"),
        ("8x8x3, SHA-256 111111111111", "2"),
        ("8x8x3, SHA-256 222222222222", "1"),
    ]


def test_folders_of_versions_without_a_fingerprint_are_told_apart_by_their_place(tmp_path):
    for seed, place in enumerate(("/data/pets", "/data/pets", "/data/cars")):
        folder = {"dataset__name": "folder", "dataset__data_dir": place}
        put(tmp_path, f"run-{seed}", seed=seed, last={"aa": 40.0}, **folder)
    report.run(tmp_path)
    text = (tmp_path / "report" / "report.md").read_text()
    assert text.count("Data: the folder /data/pets.") == text.count("Data: the folder /data/cars.") == 1
    assert "40.00 ± 0.00" in text


def test_a_named_set_is_one_setting_with_runs_of_versions_without_a_fingerprint(tmp_path):
    put(tmp_path, "old", seed=0, last={"aa": 40.0})
    put(tmp_path, "new", seed=1, last={"aa": 42.0}, data=fingerprint("1"))
    put(tmp_path, "twice", seed=1, last={"aa": 42.0})
    assert "twice: left out: same config and seed as new" in report.run(tmp_path)
    text = (tmp_path / "report" / "report.md").read_text()
    assert "41.00 ± 1.41" in text
    put(tmp_path, "changed", seed=2, last={"aa": 43.0}, data=fingerprint("2"))
    report.run(tmp_path)  # Now nobody knows which of the two images the old one saw.
    assert (tmp_path / "report" / "report.md").read_text().count("\n## ResNet-18 on CIFAR-10") == 3


def test_a_run_from_before_a_field_was_there_is_compared_with_later_ones(tmp_path):
    earlier = put(tmp_path, "a", last={"pgd100": 50.0})
    for field in ("activation", "shortcut", "last_norm"):
        assert earlier["config"]["model"].pop(field) is None
    runs.write_json(tmp_path / "a" / "results.json", earlier)
    put(tmp_path, "b", seed=1, last={"pgd100": 52.0})
    report.run(tmp_path)
    assert cells(tmp_path)["MAIL", "pgd100"]["mean"] == "51.0"
    assert "kept apart" not in (tmp_path / "report" / "report.md").read_text()


def test_where_corrupted_images_lay_keeps_no_runs_apart(tmp_path):
    """One of three seeds has the column, or two have it from different machines."""
    for seed, directory in enumerate((None, "/a/CIFAR-10-C", "/b/CIFAR-10-C")):
        last = {"pgd20": 50.0} | ({} if directory is None else {"corruptions": 40.0})
        put(tmp_path, f"mail-{seed}", seed=seed, last=last, evaluation__corruptions_dir=directory)
    found, problems = collect.collect(tmp_path)
    assert len({json.dumps(run.setting, sort_keys=True) for run in found}) == 1
    assert problems == []


def test_what_was_not_checked_is_not_read(tmp_path, capsys):
    """A checkpoint of another name, and a field whose name is another's path."""
    content = put(tmp_path, "mail", last={"aa": 40.0})
    content["checkpoints"]["middle"] = {"epoch": 1}
    content["config"]["method.name"] = content["config"]["method"].pop("name")
    content["config"]["method"] |= {"name": "mail"}
    runs.write_json(tmp_path / "mail" / "results.json", content)
    assert launch.main(["launch.py", "--mode=report", f"--workdir={tmp_path}"]) == 0
    assert "| mail |" in capsys.readouterr().out


def test_runs_behind_links_are_found_once(tmp_path):
    put(tmp_path / "disk", "mail", last={"aa": 40.0})
    put(tmp_path / "runs", "standard", method="standard", last={"aa": 40.0})
    (tmp_path / "runs" / "linked").symlink_to(tmp_path / "disk")
    (tmp_path / "runs" / "again").symlink_to(tmp_path / "runs")
    (tmp_path / "runs" / "nowhere").symlink_to(tmp_path / "missing")
    found, problems = collect.collect(tmp_path / "runs")
    assert [run.path for run in found] == ["linked/mail", "standard"]
    assert not problems


def test_two_weights_of_ones_own_that_share_a_name_are_two_rows(tmp_path, monkeypatch):
    """The code of the weight, as results.json keeps it, tells them apart; one code alone is not shown."""
    monkeypatch.setitem(methods.METHODS, "own", methods.Method("own", "Own", "", weight=None))
    for seed, code in ((0, "one"), (1, "one"), (2, "two")):
        content = put(tmp_path, f"own-{seed}", seed=seed, last={"clean": 80.0 + seed})
        content["config"]["method"] |= {"name": "own", "title": "Own", "constants": ["c"], "c": 1.0}
        content["config"]["method"]["source"] = f"def own(): return {code}"
        runs.write_json(tmp_path / f"own-{seed}" / "results.json", content)
    report.run(tmp_path)
    text = (tmp_path / "report" / "report.md").read_text()
    rows = re.findall(r"^\| (Own, c 1(?:, code \w{8})?) \| .*?n=(\d)", text, re.MULTILINE)
    assert len({label for label, _ in rows}) == 2
    assert {number for _, number in rows} == {"1", "2"}


# What accuracies depend on besides, and where it is compared: the data and the network in a report's settings, the
# methods and what they weigh in its rows, and fields that another one turns on.
COMPARED_ELSEWHERE = (
    "seed",
    "dataset.name",
    "dataset.validation_size",  # of the best checkpoint alone, which the paper chose on test images
    "dataset.validation_share",
    "dataset.test_size",  # by the number of images that were evaluated
    "model.name",
    "method.",
    "objective.",
    "awp.",
    "average.",
    "extra.share",
    "optim.learning_rate",
    "optim.weight_decay",
    "optim.peak",
    "evaluation.selection_steps",
    "evaluation.corruptions_dir",
)


def test_every_field_of_a_config_is_compared_with_the_papers_or_elsewhere():
    flat = settings.with_effect(settings.flatten(base.get_config().to_dict()))
    known = published.differences(flat | {name: object() for name in flat} | {"model.name": "resnet18"}, 0)
    missing = [name for name in flat if name not in known and not name.startswith(COMPARED_ELSEWHERE)]
    assert not missing


def test_a_schedule_that_is_not_the_papers_is_said(tmp_path):
    put(tmp_path, "a", last={"clean": 80.0}, optim__schedule="one_cycle", extra__path="more.npz")
    report.run(tmp_path)
    text = (tmp_path / "report" / "report.md").read_text()
    assert "optim.schedule one\\_cycle (for its tables here milestones)" in text
    assert "extra.path more.npz (for its tables here none)" in text
    assert "The paper's settings" not in text
