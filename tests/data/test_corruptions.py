"""Corrupted test images in the layout of CIFAR-10-C."""

import numpy as np
import pytest

from jaxrw import data
from jaxrw.system.errors import UserError

SHAPE = (8, 8, 3)


@pytest.fixture
def files(tmp_path):
    """Two corruptions of 20 images, whose first pixel is the image's number."""
    images = np.zeros((20, *SHAPE), np.uint8)
    images[:, 0, 0, 0] = np.arange(20)
    np.save(tmp_path / "fog.npy", images)
    np.save(tmp_path / "blur.npy", images + 100)
    np.save(tmp_path / "labels.npy", np.arange(20, dtype=np.uint8) % 5)
    return tmp_path


def load(path, **options):
    return dict(data.load_corruptions(path, shape=SHAPE, num_classes=5, **options))


def test_every_file_is_a_corruption(files):
    found = load(files)
    assert list(found) == ["blur", "fog"]
    np.testing.assert_array_equal(found["fog"].images[:, 0, 0, 0], np.arange(20))
    np.testing.assert_array_equal(found["blur"].images[:, 0, 0, 0], 100 + np.arange(20))
    for split in found.values():
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)
        np.testing.assert_array_equal(split.labels, np.arange(20) % 5)


def test_a_part_is_the_same_images_of_each_file(files):
    found = load(files, size=7)
    numbers = found["fog"].images[:, 0, 0, 0]
    assert len(set(numbers)) == 7
    assert max(numbers) > 10  # of all severities
    np.testing.assert_array_equal(found["blur"].images[:, 0, 0, 0], 100 + numbers)
    np.testing.assert_array_equal(found["fog"].labels, numbers % 5)
    assert len(load(files, size=21)["fog"].labels) == 20


def test_images_are_downscaled_as_test_images_are(files):
    large = np.random.RandomState(0).randint(0, 256, (20, 16, 16, 3), np.uint8)
    for name in ("fog", "blur"):
        np.save(files / f"{name}.npy", large)
    mean = large.reshape(20, 8, 2, 8, 2, 3).mean((2, 4))
    assert np.abs(load(files, downscale=2)["fog"].images - mean).max() <= 0.5


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("labels", None, "labels.npy cannot be used"),
        ("labels", np.arange(20) - 1, "labels.npy are -1..18; must be in 0..4"),
        ("labels", np.zeros(20), r"labels.npy has float64 \[20\]; must be one integer"),
        ("fog", np.zeros((19, *SHAPE), np.uint8), r"must be uint8 \[20, H, W, C\]"),
        ("fog", np.zeros((20, *SHAPE)), r"fog.npy has float64 \[20, 8, 8, 3\]"),
        ("fog", np.zeros((20, 9, 8, 3), np.uint8), "fog.npy are 9x8x3; must be 8x8x3"),
        ("fog", np.array([{}] * 20), "fog.npy cannot be used"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_measured(name, array, words, files):
    (files / f"{name}.npy").unlink()
    if array is not None:
        np.save(files / f"{name}.npy", array)
    with pytest.raises(UserError, match=rf"evaluation.corruptions_dir: .*{words}"):
        data.load_corruptions(files, shape=SHAPE, num_classes=5)


def test_a_directory_without_images_is_told(files):
    for name in ("fog", "blur"):
        (files / f"{name}.npy").unlink()
    with pytest.raises(UserError, match=r"evaluation.corruptions_dir is .*; there is no .npy file"):
        load(files)
