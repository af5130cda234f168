"""A run belongs to the images that it saw: moved ones go on, others are refused before anything is written."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from helpers import tiny
from helpers.prepared import example, prepare
from PIL import Image

from jaxrw import data, evaluate, export, runs, train
from jaxrw.runs import provenance
from jaxrw.runs.json_files import UnusableFileError
from jaxrw.system.errors import UserError

SIZES = {"dataset__train_size": 24, "dataset__validation_size": 6, "dataset__test_size": 6}


def folder(root, *, seed=0, classes="abc", side=8, per_class=12):
    """A folder set of random images, other ones for every seed."""
    pixels = np.random.RandomState(seed)
    for part in ("train", "test"):
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for number in range(per_class):
                image = pixels.randint(0, 256, (side, side, 3), np.uint8)
                Image.fromarray(image).save(root / part / name / f"{number:02}.png")
    return root


def config(data_dir, name="folder", **fields):
    own = {"dataset__name": name, "dataset__data_dir": str(data_dir), "optim__batch_size": 8}
    small = {"dataset__pad": 0, "optim__num_epochs": 2, "evaluation__attacks": ("clean",)}
    return tiny.config(**(own | SIZES | small | fields))


def contents(root):
    """Digests of all files below a directory but locks."""
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A trained and evaluated run on a folder, and the folder."""
    root = tmp_path_factory.mktemp("provenance")
    images = folder(root / "images")
    train.run(config(images), root / "run")
    evaluate.run(config(images), root / "run")
    return root / "run", images


def test_a_fingerprint_is_that_of_the_decoded_images(tmp_path):
    loaded = data.load("folder", data_dir=folder(tmp_path / "set"), validation_size=6, test_size=5)
    splits = loaded.train, loaded.validation, loaded.test
    content = b"".join(s.images.tobytes() + s.labels.astype("<i4").tobytes() for s in splits)
    assert loaded.fingerprint == {
        "classes": ["a", "b", "c"],
        "shape": [8, 8, 3],
        "images": {"train": 30, "validation": 6, "test": 5},
        "sha256": hashlib.sha256(b'["a", "b", "c"]' + content).hexdigest(),
    }
    assert data.describe_fingerprint(loaded.fingerprint) == (
        "3 classes, 30 training, 6 validation and 5 test images of 8x8x3, SHA-256 "
        + loaded.fingerprint["sha256"][:12]
    )


def test_it_stands_in_the_directory_the_checkpoints_and_the_results(finished):
    workdir, images = finished
    fields = {name.removeprefix("dataset__"): size for name, size in SIZES.items()}
    fingerprint = data.load("folder", data_dir=images, **fields).fingerprint
    assert json.loads((workdir / "dataset.json").read_text()) == fingerprint
    assert json.loads((workdir / "results.json").read_text())["data"] == fingerprint
    checkpoints = [path for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal()]
    assert len(checkpoints) == 2
    for path in checkpoints:
        assert json.loads((path / "dataset.json").read_text()) == fingerprint
        assert "dataset.json" in (path / "SHA256SUMS").read_text()


OTHER_IMAGES = {
    "other pixels": (
        lambda root: folder(root, seed=1),
        ".* 6 test images of 8x8x3, SHA-256 .* there, and 3 classes",
    ),
    "other names of classes": (
        lambda root: folder(root, classes="abd"),
        "3 classes, .* there, and 3 classes",
    ),
    "another class": (lambda root: folder(root, classes="abcd"), "3 classes, .* there, and 4 classes"),
    "another size": (lambda root: folder(root, side=10), ".* of 8x8x3, .* of 10x10x3"),
}


@pytest.mark.parametrize("kind", OTHER_IMAGES)
def test_other_images_are_refused_and_nothing_is_written(kind, finished, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    change, words = OTHER_IMAGES[kind]
    other = config(change(tmp_path / "other"))
    before = contents(workdir)
    for go_on in (train.run, evaluate.run):
        with pytest.raises(UserError, match=f"run belongs to other images: {words}") as caught:
            go_on(other, workdir)
        assert "\n" not in str(caught.value)
    (workdir / "dataset.json").unlink()  # The checkpoints have it too.
    with pytest.raises(UserError, match=words):
        train.run(other, workdir)
    assert contents(workdir) == {path: d for path, d in before.items() if path != workdir / "dataset.json"}


def test_an_unfinished_run_does_not_go_on_with_other_images(finished, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints" / "6")
    with pytest.raises(UserError, match="belongs to other images"):
        train.run(config(folder(tmp_path / "other", seed=1)), workdir)
    train.run(config(finished[1]), workdir)
    assert (workdir / "checkpoints" / "6" / "dataset.json").exists()


def test_moved_images_go_on_and_kept_numbers_stay_where_they_were_measured(finished, tmp_path):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    before = json.loads((workdir / "results.json").read_text())
    moved = config(shutil.copytree(finished[1], tmp_path / "moved"), evaluation__attacks=("clean", "fgsm"))
    train.run(config(moved.dataset.data_dir), workdir)
    after = evaluate.run(moved, workdir)
    assert after["checkpoints"]["last"]["accuracy"]["fgsm"] is not None
    assert after["config"]["dataset"] == before["config"]["dataset"]
    assert after["data"] == before["data"]


def as_old(workdir):
    """The run as a version without fingerprints left it."""
    for path in workdir.rglob("dataset.json"):
        path.unlink()
    for path in (workdir / "checkpoints").glob("*/SHA256SUMS"):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if "dataset.json" not in line))
    results = json.loads((workdir / "results.json").read_text())
    del results["data"]
    (workdir / "results.json").write_text(json.dumps(results))


def test_old_runs_go_on_and_nobody_claims_what_they_saw(finished, tmp_path, capsys):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    as_old(workdir)
    shutil.rmtree(workdir / "checkpoints" / "6")
    train.run(config(finished[1]), workdir)
    results = evaluate.run(config(finished[1]), workdir)
    assert results["data"] is None
    assert not list(workdir.rglob("dataset.json"))
    assert capsys.readouterr().err == ""
    moved = shutil.copytree(finished[1], tmp_path / "moved")
    evaluate.run(config(moved), workdir)
    warned = capsys.readouterr().err
    assert warned.count("\n") == 1
    assert "keeps no fingerprint of its images" in warned
    assert str(moved) in warned


def test_old_numbers_of_another_number_of_images_are_measured_again(finished, tmp_path):
    """Without a fingerprint, the number of images is all that tells them from those that are there now."""
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    as_old(workdir)
    results = json.loads((workdir / "results.json").read_text())
    results["checkpoints"]["last"] |= {"num_examples": 7, "accuracy": {"clean": 99.0}}
    (workdir / "results.json").write_text(json.dumps(results))
    last = evaluate.run(config(finished[1]), workdir, checkpoint="last")["checkpoints"]["last"]
    assert last["num_examples"] == 6
    assert last["accuracy"]["clean"] != 99.0


def test_weights_from_elsewhere_are_evaluated_on_one_set(finished, tmp_path):
    path, _ = export.run(config(finished[1]), finished[0])
    evaluate.run(config(finished[1]), tmp_path / "file", checkpoint=path)
    before = contents(tmp_path / "file")
    with pytest.raises(UserError, match="file belongs to other images"):
        evaluate.run(config(folder(tmp_path / "other", seed=1)), tmp_path / "file", checkpoint=path)
    assert contents(tmp_path / "file") == before


def test_a_warm_up_of_other_images_is_refused(finished, tmp_path):
    _, images = finished
    kept = tmp_path / "kept"
    train.run(config(images, checkpoint__keep_warmup=True), kept)
    other = config(folder(tmp_path / "other", seed=1), method__gamma=5.0)
    with pytest.raises(UserError, match=r"--warmup_from .*kept belongs to other images"):
        train.run(other, tmp_path / "new", warmup_from=kept)
    assert not (tmp_path / "new").exists()
    moved = shutil.copytree(images, tmp_path / "moved")
    train.run(config(moved, method__gamma=5.0), tmp_path / "new", warmup_from=kept)


def test_other_extra_images_are_refused(finished, tmp_path):
    """In a run under way and in one that is to begin with its warm-up; moved ones go on."""
    _, images = finished
    names = ("first", "moved", "other")
    for name, seed in zip(names, (0, 0, 1), strict=True):
        pixels = np.random.RandomState(seed).randint(0, 256, (9, 8, 8, 3), np.uint8)
        np.savez(tmp_path / f"{name}.npz", image=pixels, label=np.arange(9) % 3)
    first, moved, other = (
        config(images, extra__path=str(tmp_path / f"{name}.npz"), extra__share=0.5) for name in names
    )
    kept = tmp_path / "kept"
    first.checkpoint.keep_warmup = True
    train.run(first, kept)
    before = contents(kept)
    for wanted, is_refused in ((other, True), (moved, False)):
        for arguments in ({"workdir": kept}, {"workdir": tmp_path / "new", "warmup_from": kept}):
            if is_refused:
                with pytest.raises(UserError, match="kept belongs to other extra images"):
                    train.run(wanted, **arguments)
                assert not (tmp_path / "new").exists()
            else:
                train.run(wanted, **arguments)
    assert contents(kept) == before
    # Without a fingerprint, nobody knows whether images elsewhere are the same.
    (kept / "extra.json").unlink()
    with pytest.raises(UserError, match=r"extra\.path is "):
        train.run(moved, kept)


def test_a_set_of_tensorflow_datasets_that_was_prepared_anew(tmp_path):
    fields = {
        "name": "tiny",
        "dataset__train_size": 12,
        "dataset__validation_size": 0,
        "dataset__test_size": 3,
    }
    prepare(tmp_path / "first")
    train.run(config(tmp_path / "first", **fields), tmp_path / "run")
    shutil.copytree(tmp_path / "first", tmp_path / "moved")
    train.run(config(tmp_path / "moved", **fields), tmp_path / "run")

    def shifted(split, i):
        return example(split, i) | {"label": (i + 1) % 3}

    prepare(tmp_path / "second", example=shifted)
    with pytest.raises(UserError, match="run belongs to other images"):
        train.run(config(tmp_path / "second", **fields), tmp_path / "run")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"classes": 3, "images": [], "shape": 0, "sha256": 1}'])
def test_a_damaged_fingerprint_is_named(finished, tmp_path, content):
    workdir = shutil.copytree(finished[0], tmp_path / "run")
    (workdir / "dataset.json").write_text(content)
    with pytest.raises(UnusableFileError):
        provenance.read(workdir)
    with pytest.raises(UserError, match=r"run cannot be used: dataset.json"):
        train.run(config(finished[1]), workdir)
    (workdir / "dataset.json").unlink()
    with runs.open_workdir(workdir, config(finished[1])):
        pass
