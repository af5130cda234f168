"""Crops and flips of single images."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxrw.training.augment import augment, to_pixels

IMAGE = jnp.arange(1, 6 * 6 * 3 + 1, dtype=jnp.uint8).reshape(6, 6, 3)


def candidates(image, pad, flip):
    """Every image that the augmentation may return, by slicing."""
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    height, width = image.shape[:2]
    for top in range(2 * pad + 1):
        for left in range(2 * pad + 1):
            crop = padded[top : top + height, left : left + width]
            yield crop.tobytes()
            if flip:
                yield crop[:, ::-1].tobytes()


def draw(pad, flip, number=600):
    keys = jax.random.split(jax.random.key(0), number)
    images = jax.vmap(lambda key: augment(key, IMAGE, pad=pad, flip=flip))(keys)
    chex.assert_shape(images, (number, *IMAGE.shape))
    assert images.dtype == jnp.uint8
    return [np.asarray(image).tobytes() for image in images]


def test_every_crop_and_mirror_occurs_and_nothing_else():
    for pad, flip in ((0, False), (0, True), (1, False), (2, True)):
        assert set(draw(pad, flip)) == set(candidates(np.asarray(IMAGE), pad, flip))


def test_crops_are_uniform():
    """600 draws of 9 crops: a count has mean 66.7 and deviation 7.7; 5 deviations."""
    _, counts = np.unique(draw(1, False), return_counts=True)
    assert np.abs(counts - 600 / 9).max() < 5 * 7.7


def test_pixels_are_in_the_unit_interval():
    pixels = to_pixels(jnp.array([0, 51, 255], jnp.uint8))
    np.testing.assert_allclose(pixels, [0, 0.2, 1], rtol=1e-7)
