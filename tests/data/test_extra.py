"""Extra training images: read from the disk a few at a time, in the order asked for, and every mistake told."""

import numpy as np
import pytest

from jaxrw.data import load_extra
from jaxrw.system.errors import UserError

RNG = np.random.RandomState(0)
IMAGES = RNG.randint(0, 256, (7, 16, 16, 3), np.uint8)
LABELS = RNG.randint(0, 10, 7)
OPTIONS = {"shape": (16, 16, 3), "num_classes": 10}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_images_are_those_of_the_files(save, tmp_path):
    """Two shards in the order of their names, with indices that repeat and cross them."""
    save(tmp_path / "b.npz", image=IMAGES[3:], label=LABELS[3:])
    save(tmp_path / "a.npz", image=IMAGES[:3], label=LABELS[:3].astype(np.uint8))
    extra = load_extra(tmp_path, **OPTIONS)
    assert extra.size == 7
    chosen = np.array([6, 2, 2, 3, 0])
    split = extra.read(chosen)
    np.testing.assert_array_equal(split.images, IMAGES[chosen])
    np.testing.assert_array_equal(split.labels, LABELS[chosen])
    assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)


def test_what_is_not_compressed_stays_on_the_disk(tmp_path):
    np.savez(tmp_path / "a.npz", image=np.asfortranarray(IMAGES), label=LABELS)
    extra = load_extra(tmp_path / "a.npz", **OPTIONS)
    assert isinstance(extra._parts[0][0], np.memmap)
    np.testing.assert_array_equal(extra.read(np.arange(7)).images, IMAGES)


def test_downscaled_as_the_training_images(tmp_path):
    np.savez(tmp_path / "a.npz", image=IMAGES, label=LABELS)
    extra = load_extra(tmp_path / "a.npz", shape=(8, 8, 3), num_classes=10, downscale=2)
    means = IMAGES.astype(float).reshape(7, 8, 2, 8, 2, 3).mean((2, 4))
    np.testing.assert_allclose(extra.read(np.arange(7)).images, means, atol=0.5)


MISTAKES = {
    "floats": ({"image": IMAGES / 255, "label": LABELS}, "image in {file} is float64"),
    "another size": ({"image": IMAGES[:, :8], "label": LABELS}, "are 8x16x3; must be 16x16x3"),
    "too few labels": ({"image": IMAGES, "label": LABELS[:6]}, "one integer for each of 7 images"),
    "labels that are text": ({"image": IMAGES, "label": LABELS.astype(str)}, "one integer for each"),
    "a class too many": ({"image": IMAGES, "label": LABELS + 10}, "must be in 0..9"),
    "no labels": ({"image": IMAGES}, "cannot be used"),
    "objects": ({"image": IMAGES.astype(object), "label": LABELS}, "cannot be used"),
    "nothing": ({"image": IMAGES[:0], "label": LABELS[:0]}, "one integer for each of 0 images"),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_file_that_cannot_be_used_is_named(mistake, save, tmp_path):
    arrays, words = MISTAKES[mistake]
    file = tmp_path / "a.npz"
    save(file, **arrays)
    with pytest.raises(UserError) as error:
        load_extra(file, **OPTIONS)
    assert words.format(file=file) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04"])
def test_what_is_no_archive_is_told(content, tmp_path):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"extra\.path: .*a\.npz cannot be used"):
        load_extra(tmp_path / "a.npz", **OPTIONS)


def test_an_empty_directory_is_told(tmp_path):
    with pytest.raises(UserError, match=r"there is no \.npz file in it"):
        load_extra(tmp_path, **OPTIONS)
