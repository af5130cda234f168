"""Random crop and flip of one image, inside the compiled step."""

from typing import TypeVar

import chex
import jax
import jax.numpy as jnp
import numpy as np

_Array = TypeVar("_Array", jax.Array, np.ndarray)


def augment(key: jax.Array, image: jax.Array, *, pad: int, flip: bool) -> jax.Array:
    """Zero-pads an image, crops it back to its size at random and mirrors it at random; pixel values stay.

    The result depends on the key, the image and the settings alone. The key is derived from the step and the
    example's index, so that neither the batch nor the number of devices changes it.

    Args:
      key: PRNG key of this example.
      image: [H, W, C] uint8.
      pad: pixels added on each side before the crop; 0 leaves the image in place.
      flip: whether to mirror left and right with probability 1/2.

    Returns:
      [H, W, C] uint8.
    """
    chex.assert_rank(image, 3)
    chex.assert_type(image, jnp.uint8)
    crop_key, flip_key = jax.random.split(key)
    rows, columns = (jnp.arange(size) for size in image.shape[:2])
    if flip:
        columns = jnp.where(jax.random.bernoulli(flip_key), columns[::-1], columns)
    corner = jax.random.randint(crop_key, (2,), 0, 2 * pad + 1) - pad if pad else (0, 0)
    # Products with zeros and ones, because a TPU turns slices that differ between images into a loop over the
    # batch. Nothing is rounded: bfloat16 holds every integer up to 256. An index outside the image gives zeros.
    rows = jax.nn.one_hot(rows + corner[0], len(rows), dtype=jnp.bfloat16)
    columns = jax.nn.one_hot(columns + corner[1], len(columns), dtype=jnp.bfloat16)
    return jnp.einsum("ih,jw,hwc->ijc", rows, columns, image.astype(jnp.bfloat16)).astype(jnp.uint8)


def to_pixels(images: _Array) -> _Array:
    """Converts uint8 images of any shape to float32 pixels in [0, 1], the unit of eps."""
    return images.astype(jnp.float32) / 255
