"""Linear models, whose robust examples are known in closed form.

The distance is |margin| / |weights| in the dual norm, as far as the box lets one go in that direction.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrw.methods.margins import is_correct

SHAPE = (4, 4, 2)


def linear(weights, images):
    return (images.reshape(len(images), -1) - 0.5) @ weights


def distance_to_plane(point, normal, offset, norm):
    """Length of the shortest step d with <normal, d> = offset within the box [0, 1]; inf if none leads there.

    `point` and `normal` are flat. Bisection in float64, or for L1 the heaviest pixels one after the other.
    """
    signs = np.sign(normal) * (1 if offset >= 0 else -1)
    room = np.where(signs > 0, 1 - point, np.where(signs < 0, point, 0)).astype(np.float64)
    weights, offset = np.abs(normal).astype(np.float64), abs(float(offset))
    if (weights * room).sum() < offset:
        return np.inf
    if norm == "l1":
        length = 0.0
        for i in np.argsort(-weights):
            if weights[i] * room[i] >= offset:
                return length + offset / weights[i] if offset else length
            offset -= weights[i] * room[i]
            length += room[i]
        return length
    speeds = np.ones_like(weights) if norm == "linf" else weights
    low, high = 0.0, 1 / speeds[speeds > 0].min()
    for _ in range(200):
        middle = (low + high) / 2
        short = (weights * np.minimum(middle * speeds, room)).sum() < offset
        low, high = (middle, high) if short else (low, middle)
    return np.linalg.norm(np.minimum(high * speeds, room), np.inf if norm == "linf" else 2)


def linear_problem(num_classes, size=64, norm="linf", num_targets=None):
    """A linear model, images far from the box's walls, labels it gets right, each one's distance from being wrong.

    With `num_targets`, it is the distance from being one of that many likeliest wrong classes.
    """
    rng = np.random.default_rng(num_classes)
    weights = rng.normal(size=(np.prod(SHAPE), num_classes)).astype(np.float32)
    images = rng.uniform(0.3, 0.7, (size, *SHAPE)).astype(np.float32)
    logits = np.asarray(linear(weights, images), np.float64)
    labels = logits.argmax(1)
    gaps = np.take_along_axis(logits, labels[:, None], 1) - logits
    distances = [
        min(
            distance_to_plane(image, weights[:, j] - weights[:, label], gap[j], norm)
            for j in np.argsort(gap)[1:][:num_targets]  # The first is the label itself.
        )
        for image, label, gap in zip(images.reshape(size, -1), labels, gaps, strict=True)
    ]
    return jax.tree_util.Partial(linear, weights), images, labels, np.array(distances)


def right(logits_fn, images, labels):
    return np.asarray(jax.vmap(is_correct)(logits_fn(images), jnp.asarray(labels)))
