"""Linear models, whose robust examples are known in closed form: the distance is |margin| / |weights|_1."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrw.methods.margins import is_correct

SHAPE = (4, 4, 2)


def linear(weights, images):
    return (images.reshape(len(images), -1) - 0.5) @ weights


def linear_problem(num_classes, size=64):
    """A linear model, images far from the box's walls, labels it gets right, each one's distance from being wrong."""
    rng = np.random.default_rng(num_classes)
    weights = rng.normal(size=(np.prod(SHAPE), num_classes)).astype(np.float32)
    images = rng.uniform(0.3, 0.7, (size, *SHAPE)).astype(np.float32)
    logits = np.asarray(linear(weights, images), np.float64)
    labels = logits.argmax(1)
    gaps = np.take_along_axis(logits, labels[:, None], 1) - logits
    norms = np.abs(weights[:, labels].T[:, :, None] - weights[None]).sum(1)
    distances = np.where(np.arange(num_classes) == labels[:, None], np.inf, gaps / np.maximum(norms, 1e-9))
    return jax.tree_util.Partial(linear, weights), images, labels, distances.min(1)


def right(logits_fn, images, labels):
    return np.asarray(jax.vmap(is_correct)(logits_fn(images), jnp.asarray(labels)))
