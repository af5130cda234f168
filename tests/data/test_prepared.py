import io
import json
import shutil
import subprocess
import sys

import chex
import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers.prepared import SIDE, example, features, picture, png, prepare

from jaxrw import data
from jaxrw.data import images, splits
from jaxrw.system.errors import UserError


def message_of(name, **kwargs):
    with pytest.raises(UserError) as caught:
        data.load(name, **kwargs)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"dataset.name={name!r}: ")
    return str(caught.value)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    prepare(root)
    return root


@pytest.fixture
def own(shared, tmp_path):
    """A copy of the set that a test may damage."""
    shutil.copytree(shared / "tiny", tmp_path / "tiny")
    return tmp_path


def test_a_prepared_set_is_read_in_the_order_of_its_ids(shared):
    loaded = data.load("tiny", data_dir=shared)
    assert (loaded.num_classes, loaded.class_names) == (3, ("ant", "bee", "cat"))
    chex.assert_shape([loaded.train.images, loaded.test.images], [(20, SIDE, SIDE, 3), (5, SIDE, SIDE, 3)])
    stored = [record["id"] for record in tfds.data_source("tiny", data_dir=shared, split="test")]
    assert stored != sorted(stored)  # otherwise the next line would show nothing
    np.testing.assert_array_equal(loaded.test.images, [picture("test", i) for i in range(5)])
    np.testing.assert_array_equal(loaded.test.labels, [0, 1, 2, 0, 1])
    np.testing.assert_array_equal(loaded.train.images, [picture("train", i) for i in splits.order(20)])
    np.testing.assert_array_equal(loaded.train.labels, splits.order(20) % 3)


def test_pixels_and_labels_are_what_tfds_gives(shared):
    records = list(tfds.data_source("tiny", data_dir=shared, split="train"))
    expected = {record["image"].tobytes(): record["label"] for record in records}
    assert len(expected) == 20
    loaded = data.load("tiny", data_dir=shared, validation_size=8)
    for split, count in ((loaded.train, 12), (loaded.validation, 8)):
        assert len(split.labels) == count
        for image, label in zip(split.images, split.labels, strict=True):
            assert expected.pop(image.tobytes()) == label
    assert not expected


def test_only_chosen_images_are_decoded(shared, monkeypatch):
    decoded = []
    original = images.decode
    monkeypatch.setattr(images, "decode", lambda b, **options: decoded.append(b) or original(b, **options))
    data.load("tiny", data_dir=shared, train_size=4, validation_size=2, test_size=3)
    assert len(decoded) == 4 + 2 + 3


def test_the_default_directory_is_that_of_tfds(shared, monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(shared))
    assert len(data.load("tiny").train.labels) == 20
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert f"in {tmp_path / 'tensorflow_datasets'}, which has none" in message_of("tiny")


def test_tensorflow_is_not_imported_even_if_installed(shared, tmp_path):
    code = """
import sys
sys.path.insert(0, sys.argv[2])
from jaxrw import data
assert len(data.load("tiny", data_dir=sys.argv[1]).train.labels) == 20
assert "tensorflow" not in sys.modules
"""
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('TensorFlow was imported')")
    done = subprocess.run([sys.executable, "-c", code, shared, tmp_path], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_highest_version_is_taken(tmp_path):
    for version, count in (("9.0.0", 4), ("10.0.0", 6), ("2.0.0", 5)):
        prepare(tmp_path, version=version, counts=(("train", count), ("test", 2)))
    (tmp_path / "tiny/incomplete.ABCDEF_11.0.0").mkdir()
    shutil.copy(tmp_path / "tiny/2.0.0/dataset_info.json", tmp_path / "tiny/incomplete.ABCDEF_11.0.0")
    assert len(data.load("tiny", data_dir=tmp_path).train.labels) == 6


def test_configs_are_named_unless_there_is_one(shared, tmp_path):
    shutil.copytree(shared / "tiny/1.0.0", tmp_path / "tiny/first/1.0.0")
    assert len(data.load("tiny", data_dir=tmp_path).train.labels) == 20
    shutil.copytree(shared / "tiny/1.0.0", tmp_path / "tiny/second/1.0.0")
    assert len(data.load("tiny/second", data_dir=tmp_path).train.labels) == 20
    assert "choose one of tiny/first, tiny/second" in message_of("tiny", data_dir=tmp_path)


def test_unknown_sets_are_told_with_what_there_is(shared, tmp_path):
    message = message_of("tinny", data_dir=shared)
    assert "did you mean 'tiny'?" in message
    assert "digits, folder, cifar10, cifar100, or a set prepared" in message
    assert f"in {shared}, which has tiny" in message
    assert "did you mean 'cifar10'?" in message_of("cifar-10", data_dir=tmp_path)
    message = message_of("imagenet", data_dir=tmp_path / "nowhere")
    assert f"in {tmp_path / 'nowhere'}, which has none" in message
    assert "did you mean" not in message


def test_without_a_test_split_validation_is_tested_on(tmp_path):
    prepare(tmp_path, counts=(("train", 6), ("validation", 3)))
    loaded = data.load("tiny", data_dir=tmp_path)
    np.testing.assert_array_equal(loaded.test.images, [picture("validation", i) for i in range(3)])
    assert len(loaded.validation.labels) == 0


@pytest.mark.parametrize("name", ["train", "test"])
def test_missing_splits_are_told(tmp_path, name):
    prepare(tmp_path, counts=((name, 6),))
    expected = f"needs the splits train and test (or validation), but has {name}"
    assert expected in message_of("tiny", data_dir=tmp_path)


def test_supervised_keys_choose_among_several_features(tmp_path):
    several = features(
        other=tfds.features.ClassLabel(num_classes=7), mask=tfds.features.Image(shape=(None, None, 1))
    )

    def both(split, i):
        return example(split, i) | {"other": 6, "mask": png(picture(split, i, channels=1))}

    prepare(tmp_path, features=several, supervised=("image", "label"), example=both)
    loaded = data.load("tiny", data_dir=tmp_path)
    np.testing.assert_array_equal(loaded.test.images[0], picture("test", 0))
    assert loaded.num_classes == 3
    prepare(tmp_path, name="vague", features=several, example=both)
    assert "has the features id, image, label, mask, other" in message_of("vague", data_dir=tmp_path)


def test_grey_images_without_ids_keep_the_order_of_the_files(tmp_path):
    def grey(split, i):
        return {"image": png(picture(split, i, channels=1)), "label": i % 3}

    prepare(
        tmp_path, features=features(id=None, image=tfds.features.Image(shape=(SIDE, SIDE, 1))), example=grey
    )
    loaded = data.load("tiny", data_dir=tmp_path)
    chex.assert_shape(loaded.train.images, (20, SIDE, SIDE, 1))
    records = tfds.data_source("tiny", data_dir=tmp_path, split="test")
    np.testing.assert_array_equal(loaded.test.images, [record["image"] for record in records])
    np.testing.assert_array_equal(loaded.test.labels, [record["label"] for record in records])


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"label": None}, "not image classification"),
        ({"image": None}, "not image classification"),
        ({"second": tfds.features.ClassLabel(num_classes=2)}, "not image classification"),
        (
            {"image": tfds.features.Image(shape=(None, None, 3), dtype=np.uint16)},
            "its images are uint16 with 3",
        ),
        ({"image": tfds.features.Image(shape=(None, None, 4))}, "its images are uint8 with 4 channels"),
    ],
)
def test_unsuitable_features_are_told(tmp_path, changed, expected):
    wanted = features(**changed)
    given = {"second": 0}
    prepare(
        tmp_path,
        features=wanted,
        example=lambda split, i: {key: (example(split, i) | given)[key] for key in wanted},
    )
    assert expected in message_of("tiny", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("odd", "expected"),
    [
        ({"label": -1}, "1 training labels are outside 0..2, the first is -1"),
        (
            {"image": png(picture("train", 7, side=12))},
            "train image train_007 is 12x12 but train image train_",
        ),
        ({"image": png(np.full((SIDE, SIDE), 300, np.uint16))}, "train_007 cannot be used: it has 16 bits"),
        ({"image": io.BytesIO(b"no image")}, "train image train_007 cannot be used: cannot identify"),
    ],
)
def test_unsuitable_records_are_told(tmp_path, odd, expected):
    def one_odd(split, i):
        record = example(split, i) | (odd if (split, i) == ("train", 7) else {})
        return {key: io.BytesIO(v.getvalue()) if key == "image" else v for key, v in record.items()}

    prepare(tmp_path, example=one_odd)
    assert expected in message_of("tiny", data_dir=tmp_path)


def test_a_tfrecord_copy_is_told_with_the_cure(own):
    info = own / "tiny/1.0.0/dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    message = message_of("tiny", data_dir=own)
    assert f"the copy in {own / 'tiny/1.0.0'} is stored as tfrecord" in message
    assert "without TensorFlow" in message
    assert 'file_format="array_record"' in message


def test_an_impossible_directory_is_told():
    with pytest.raises(
        UserError, match=r"^dataset.data_dir='xxx.*': cannot be looked into \(.*name too long"
    ):
        data.load("tiny", data_dir="x" * 300)


def shard(root):
    return root / "tiny/1.0.0/tiny-train.array_record-00000-of-00001"


def cut(root, kept):
    shard(root).write_bytes(shard(root).read_bytes()[:kept])


def flip(root):
    content = bytearray(shard(root).read_bytes())
    content[200] ^= 255
    shard(root).write_bytes(content)


def lose_a_record(root):
    """As if a copy had come from two preparations: the file has fewer records than its description says."""
    info = root / "tiny/1.0.0/dataset_info.json"
    description = json.loads(info.read_text())
    description["splits"][0]["shardLengths"] = ["21"]
    info.write_text(json.dumps(description))


def hide_the_features(root):
    """A file that cannot be opened, also by those whom no permission stops."""
    (root / "tiny/1.0.0/features.json").unlink()
    (root / "tiny/1.0.0/features.json").mkdir()


def rename_a_feature(root):
    """As if features.json had come from another set."""
    features = root / "tiny/1.0.0/features.json"
    features.write_text(features.read_text().replace('"label"', '"klass"'))


@pytest.mark.parametrize(
    "damage",
    [
        lambda root: cut(root, 0),
        lambda root: cut(root, 1000),
        lambda root: cut(root, -100),
        lambda root: shard(root).unlink(),
        flip,
        lose_a_record,
        rename_a_feature,
        hide_the_features,
        lambda root: (root / "tiny/1.0.0/features.json").write_text("null"),
        lambda root: (root / "tiny/1.0.0/features.json").unlink(),
        lambda root: (root / "tiny/1.0.0/features.json").write_text("{}"),
        lambda root: (root / "tiny/1.0.0/features.json").write_text("{"),
        lambda root: (root / "tiny/1.0.0/dataset_info.json").write_text("{}"),
        lambda root: (root / "tiny/1.0.0/dataset_info.json").write_text("{"),
    ],
)
def test_damaged_copies_are_told(own, damage):
    damage(own)
    message = message_of("tiny", data_dir=own)
    assert f"the copy in {own / 'tiny/1.0.0'} cannot be read (" in message
    assert "delete that directory and prepare it again" in message
