"""Random crop and flip of one image, inside the compiled step."""

import chex
import jax
import jax.numpy as jnp


def augment(key, image, *, pad, flip):
    """Zero-pad, crop back to size at random, mirror at random; same pixel values and dtype.

    A pure function of the key: the caller derives it from the step and the example's index, so that neither
    the batch nor the number of devices changes what an example looks like.

    Args:
      key: PRNG key of this example.
      image: [H, W, C], uint8 or float.
      pad: pixels added on each side before the crop; 0 leaves the image in place.
      flip: whether to mirror left and right with probability 1/2.

    Returns:
      [H, W, C] of the image's dtype.
    """
    chex.assert_rank(image, 3)
    crop_key, flip_key = jax.random.split(key)
    if pad:
        corner = jax.random.randint(crop_key, (2,), 0, 2 * pad + 1)
        padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
        image = jax.lax.dynamic_slice(padded, (corner[0], corner[1], 0), image.shape)
    if flip:
        image = jnp.where(jax.random.bernoulli(flip_key), image[:, ::-1], image)
    return image


def to_pixels(images):
    """Turn uint8 images into float32 pixels in [0, 1], the unit of eps; any shape."""
    return images.astype(jnp.float32) / 255
