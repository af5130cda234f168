import io
import struct
import zlib

import chex
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from jaxrw import data
from jaxrw.data import dataset, images, splits
from jaxrw.system.errors import UserError


def message_of(function, *args, **kwargs):
    with pytest.raises(UserError) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_order_is_frozen():
    # If this fails, validation images have changed: runs before and after cannot be compared.
    np.testing.assert_array_equal(splits.order(10), [2, 8, 4, 9, 1, 6, 7, 3, 0, 5])
    np.testing.assert_array_equal(splits.order(50_000)[:5], [11841, 19602, 45519, 25747, 42642])


@given(st.data())
def test_train_and_validation_are_disjoint_and_growing_adds(given_data):
    available = given_data.draw(st.integers(2, 300))
    validation_size = given_data.draw(st.integers(0, available - 1))
    large = given_data.draw(st.integers(1, available - validation_size))
    small = given_data.draw(st.integers(1, large))
    chosen = {
        size: splits.train_and_validation(available, train_size=size, validation_size=validation_size)
        for size in (small, large, None)
    }
    everything, held_out = chosen[None]
    np.testing.assert_array_equal(np.sort(np.concatenate([everything, held_out])), np.arange(available))
    for size in (small, large):
        train, same = chosen[size]
        np.testing.assert_array_equal(same, held_out)
        np.testing.assert_array_equal(train, everything[:size])


def test_held_out_come_first_then_those_trained_on():
    train, held_out = splits.train_and_validation(10, train_size=3, validation_size=2)
    np.testing.assert_array_equal(held_out, splits.order(10)[:2])
    np.testing.assert_array_equal(train, splits.order(10)[2:5])


def test_downscaled_pixels_are_means():
    """Against float64 means, halves rounded up; a side that is no multiple is refused, 1 changes nothing."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 12, 18, 3), np.uint8)
    for factor in (1, 2, 3, 6):
        blocks = np.stack(
            [pixels[:, row::factor, column::factor] for row in range(factor) for column in range(factor)]
        )
        expected = np.floor(blocks.mean(0, dtype=np.float64) + 0.5)
        np.testing.assert_array_equal(images.downscale(pixels, factor), expected)
        assert images.downscale(pixels, factor).dtype == np.uint8
    words = message_of(data.load, "digits", downscale=3)
    assert "dataset.downscale=3" in words
    assert "8x8" in words
    assert "4x4" in message_of(data.load, "digits", downscale=2)


def test_test_images_are_all_in_order_or_a_growing_choice():
    np.testing.assert_array_equal(splits.test(7, test_size=None), np.arange(7))
    np.testing.assert_array_equal(splits.test(7, test_size=3), splits.test(7, test_size=7)[:3])
    assert sorted(splits.test(7, test_size=7)) == list(range(7))


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"train_size": 0}, "dataset.train_size=0: must be at least 1"),
        ({"train_size": -3}, "dataset.train_size=-3: must be at least 1"),
        ({"test_size": 0}, "dataset.test_size=0: must be at least 1"),
        ({"validation_size": -1}, "dataset.validation_size=-1: must be at least 0"),
        (
            {"train_size": 1438},
            "dataset.train_size=1438: only 1437 training images are available; choose at most",
        ),
        (
            {"train_size": 1437, "validation_size": 1},
            "dataset.train_size=1437: only 1436 training images are available beside dataset.validation",
        ),
        ({"validation_size": 1437}, "dataset.validation_size=1437: leaves nothing to train on"),
        ({"validation_size": 9999}, "dataset.validation_size=9999: leaves nothing to train on"),
        ({"test_size": 361}, "dataset.test_size=361: only 360 test images are available"),
    ],
)
def test_wrong_sizes_are_told(sizes, expected):
    assert message_of(data.load, "digits", **sizes).startswith(expected)


def test_impossible_sizes_are_told_before_the_set_is_looked_for():
    assert "train_size" in message_of(data.load, "no such set", train_size=0)


def test_digits_are_sklearns():
    loaded = data.load("digits")
    chex.assert_shape([loaded.train.images, loaded.test.images], [(1437, 8, 8, 1), (360, 8, 8, 1)])
    chex.assert_shape([loaded.train.labels, loaded.test.labels], [(1437,), (360,)])
    chex.assert_shape([loaded.validation.images, loaded.validation.labels], [(0, 8, 8, 1), (0,)])
    assert (loaded.num_classes, loaded.class_names) == (10, tuple("0123456789"))
    assert loaded.train.images.max() == 255
    raw = load_digits()
    original = {(image * 16).tobytes(): label for image, label in zip(raw.images, raw.target, strict=True)}
    assert len(original) == 1797  # so that a picture tells which digit it is
    for split in (loaded.train, loaded.test):
        for image, label in zip(split.images[..., 0], split.labels, strict=True):
            counts = np.round(image * (16 / 255))
            np.testing.assert_allclose(counts * (255 / 16), image, atol=0.5)
            assert original.pop((counts * 16).tobytes()) == label  # popped: none in both parts
    assert not original


def test_a_share_is_held_out_as_that_many_images_are():
    """1,437 training images: 0.1 of them are 143.7."""
    share, number = (
        data.load("digits", train_size=100, **f)
        for f in ({"validation_share": 0.1}, {"validation_size": 144})
    )
    assert share.fingerprint == number.fingerprint
    assert len(share.validation.labels) == 144


def test_errors_name_the_share_that_holds_images_out():
    assert message_of(data.load, "digits", validation_share=0.2, train_size=1400) == (
        "dataset.train_size=1400: only 1150 training images are available beside dataset.validation_share=0.2; "
        "choose at most 1150, or None for all"
    )


def test_digits_held_out_do_not_depend_on_the_number_trained_on():
    few, many = (data.load("digits", train_size=n, validation_size=100, test_size=50) for n in (10, 1000))
    np.testing.assert_array_equal(few.validation.images, many.validation.images)
    np.testing.assert_array_equal(few.train.images, many.train.images[:10])
    np.testing.assert_array_equal(few.train.labels, many.train.labels[:10])
    np.testing.assert_array_equal(few.test.labels, many.test.labels)
    assert len(few.test.labels) == 50


def test_validation_images_stand_in_for_the_test_images():
    """All of them, or the first; the images trained on stay the same, and no test image is among them."""
    sizes = {"train_size": 100, "validation_size": 30}
    usual, chosen, some = (
        data.load("digits", **sizes, **f)
        for f in ({}, {"test_split": "validation"}, {"test_split": "validation", "test_size": 20})
    )
    np.testing.assert_array_equal(chosen.train.images, usual.train.images)
    for split in (chosen.validation, chosen.test):
        np.testing.assert_array_equal(split.images, usual.validation.images)
        np.testing.assert_array_equal(split.labels, usual.validation.labels)
    np.testing.assert_array_equal(some.test.images, usual.validation.images[:20])
    np.testing.assert_array_equal(some.test.labels, usual.validation.labels[:20])
    assert chosen.fingerprint["sha256"] != usual.fingerprint["sha256"]


def test_there_must_be_as_many_validation_images_as_are_tested_on():
    none = message_of(data.load, "digits", test_split="validation")
    assert none == "dataset.test_split='validation': there are no validation images"
    many = message_of(data.load, "digits", validation_size=30, test_split="validation", test_size=31)
    assert many == (
        "dataset.test_size=31: only 30 validation images are available; choose at most 30, or None for all"
    )


def make(*, shape=(8, 8, 1), test_shape=None, label=0, num_classes=2):
    def split(shape, n):
        return dataset.Split(np.zeros((n, *shape), np.uint8), np.full(n, label, np.int32))

    parts = split(shape, 3), split(shape, 0), split(test_shape or shape, 2)
    return dataset.Dataset(*parts, num_classes=num_classes, class_names=("a",) * num_classes)


def test_check_lets_the_least_pass():
    least = make()
    assert dataset.check("x", least) is least


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"label": -1}, "3 training labels are outside 0..1, the first is -1"),
        ({"label": 2}, "3 training labels are outside 0..1, the first is 2"),
        ({"num_classes": 1}, "1 class, but at least 2"),
        ({"shape": (7, 8, 3)}, "images are 7x8x3, but at least 8x8"),
        ({"shape": (8, 7, 3)}, "images are 8x7x3, but at least 8x8"),
        ({"test_shape": (9, 8, 1)}, "test images are 9x8x1 and training images 8x8x1"),
        ({"test_shape": (8, 8, 3)}, "test images are 8x8x3 and training images 8x8x1"),
    ],
)
def test_check_tells_what_no_run_can_use(wrong, expected):
    assert message_of(dataset.check, "x", make(**wrong)).startswith(f"dataset.name='x': {expected}")


def test_check_stops_a_source_that_breaks_its_word():
    good = make()
    for name, broken in (
        ("images", good.train.images.astype(np.float32)),
        ("images", good.train.images[..., 0]),
        ("labels", good.train.labels.astype(np.int64)),
        ("labels", good.train.labels[:2]),
    ):
        split = dataset.Split(**{"images": good.train.images, "labels": good.train.labels, name: broken})
        with pytest.raises(AssertionError):
            dataset.check("x", dataset.Dataset(split, good.validation, good.test, 2, ("a", "b")))


def encode(image, form="PNG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


COLOUR = Image.fromarray(np.random.RandomState(0).randint(0, 256, (9, 10, 3), np.uint8))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_decoding_gives_what_was_stored(mode):
    image = COLOUR.convert(mode)
    for channels, same in ((1, "L"), (3, "RGB")):
        pixels = images.decode(encode(image), channels=channels)
        chex.assert_shape(pixels, (9, 10, channels))
        chex.assert_type(pixels, np.uint8)
        np.testing.assert_array_equal(pixels, np.asarray(image.convert(same)).reshape(9, 10, channels))
    assert images.probe(io.BytesIO(encode(image))) == (9, 10, 1 if mode in ("1", "L") else 3)


def raw_png(side, bits, pixels):
    """An RGB PNG that Pillow reads but would not write."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header, body = struct.pack(">IIBBBBB", side, side, bits, 2, 0, 0, 0), zlib.compress(pixels)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_sixteen_bits_are_refused_not_cut():
    sixteen_bit_colour = raw_png(1, 16, b"\0" + struct.pack(">HHH", 1000, 2000, 3000))
    assert Image.open(io.BytesIO(sixteen_bit_colour)).mode == "RGB"  # Pillow cuts them silently
    grey = encode(Image.fromarray(np.full((9, 9), 1000, np.uint16)))
    floats = encode(Image.fromarray(np.zeros((9, 9), np.float32)), "TIFF")
    for data_of, expected in ((sixteen_bit_colour, "16 bits"), (grey, "16 bits"), (floats, "mode is F")):
        for read in (lambda b: images.decode(b, channels=3), lambda b: images.probe(io.BytesIO(b))):
            with pytest.raises(ValueError, match=expected):
                read(data_of)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_damaged_images_raise_one_kind_of_error_wherever_they_are_cut(form):
    whole = encode(COLOUR, form)
    for end in range(0, len(whole) - 20, 7):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - that it is one line is what matters
            images.decode(whole[:end], channels=3)
        assert "\n" not in str(caught.value)


def test_damage_that_pillow_tells_in_its_own_ways():
    swallowed = bytearray(encode(COLOUR))
    swallowed[35] = 0  # the pixels' length: their rest is taken for the next chunk, a SyntaxError
    for damaged, expected in (
        (bytes(swallowed), "broken PNG"),
        (raw_png(100_000, 8, b""), "decompression bomb"),
    ):
        with pytest.raises(ValueError, match=expected):
            images.decode(damaged, channels=3)


def test_decode_all_names_the_first_odd_image():
    small = COLOUR.resize((9, 8))
    pairs = [("a", encode(COLOUR)), ("b", encode(small)), ("c", encode(small))]
    assert message_of(images.decode_all, pairs, count=3, channels=3, field="F").startswith(
        "F: b is 8x9 but a is 9x10 (height x width)"
    )
    pairs[1] = ("b", b"no image")
    assert message_of(images.decode_all, pairs, count=3, channels=3, field="F").startswith(
        "F: b cannot be used"
    )


def test_a_test_split_that_is_none_is_named():
    """Not taken for the test images, which nobody wants to choose constants by."""
    with pytest.raises(ValueError, match="test_split is 'val'; choose one of test, validation"):
        data.load("digits", validation_size=100, test_split="val")
