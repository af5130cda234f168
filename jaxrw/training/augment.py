"""Random crop and flip of one image, inside the compiled step."""

import chex
import jax
import jax.numpy as jnp


def augment(key, image, *, pad, flip):
    """Zero-pad, crop back to size at random, mirror at random; the same pixel values.

    A pure function of the key: the caller derives it from the step and the example's index, so that neither
    the batch nor the number of devices changes what an example looks like.

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
    # As products with zeros and ones: on a TPU, slices that differ from image to image become a loop over the
    # batch. Nothing is rounded, as bfloat16 holds every integer up to 256; an index outside gives zeros.
    rows = jax.nn.one_hot(rows + corner[0], len(rows), dtype=jnp.bfloat16)
    columns = jax.nn.one_hot(columns + corner[1], len(columns), dtype=jnp.bfloat16)
    return jnp.einsum("ih,jw,hwc->ijc", rows, columns, image.astype(jnp.bfloat16)).astype(jnp.uint8)


def to_pixels(images):
    """Turn uint8 images into float32 pixels in [0, 1], the unit of eps; any shape."""
    return images.astype(jnp.float32) / 255
