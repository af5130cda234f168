"""What makes a robustness number wrong without anyone noticing: found before and after the attacks, and said."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxrw.methods.margins import is_correct, logit_margin
from jaxrw.methods.objectives import cross_entropy

# Differences of logits below this share of their largest magnitude are rounding.
ROUNDING = 1e-4

# Rounding of `image + eps`, of eps itself and of the difference, each at most 2**-25 where pixels are in [0, 1].
PIXEL_ROUNDING = 2.0**-23

# Square alone fooling this share of all examples, and at least two, is more than chance leaves to it.
NOTABLE = 0.01


class RobustnessWarning(UserWarning):
    """The robust accuracy may be worth less than it seems."""


def check_problem(images, labels, *, eps, batch_size):
    """Raise ValueError, in one line, unless these can be attacked; images and labels are host arrays."""
    if images.ndim != 4 or labels.ndim != 1 or len(images) != len(labels):
        raise ValueError(
            f"images are {images.shape} and labels {labels.shape}; must be [N, H, W, C] and [N] for one N"
        )
    if not len(images):
        raise ValueError("images and labels are empty; there is nothing to evaluate")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels are {labels.dtype}; must be integers in 0..K-1")
    low, high = images.min(), images.max()
    if not (low >= 0 and high <= 1):
        raise ValueError(f"images range from {low} to {high}; must lie in [0, 1]: divide bytes by 255")
    if not 0 < eps <= 1:
        raise ValueError(f"eps is {eps}; pixels lie in [0, 1], so it must too and not be 0: 8 / 255, not 8")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; must be 1 or more")


def check_labels(labels, num_classes):
    """Raise ValueError, in one line, unless all labels are in 0..K-1."""
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"labels range from {labels.min()} to {labels.max()}; the model has {num_classes} classes, "
            f"so they must lie in 0..{num_classes - 1}"
        )


def in_ball(adversarial, images, *, eps):
    """Whether each image lies in [0, 1] and at most eps, up to rounding, from its original; [B] bool."""
    distance = np.abs(adversarial.astype(np.float64) - images).max((1, 2, 3))
    inside = ((adversarial >= 0) & (adversarial <= 1)).all((1, 2, 3))
    return inside & (distance <= eps + PIXEL_ROUNDING)


def complaints_about_outputs(predict, logits_fn, images, logits):
    """Sentences about outputs that are probabilities, random, or dependent on the rest of the batch.

    Args:
      predict: compiled, images [B, H, W, C] -> logits [B, K] as a host array; always called with the same B.
      logits_fn: the model itself, uncompiled: a draw at Python level is frozen by compiling.
      images: [B, H, W, C], the first batch.
      logits: [B, K], what `predict` gave for it.
    """
    if (logits >= 0).all() and np.abs(logits.sum(1) - 1).max() < 1e-4:
        yield (
            "the outputs look like probabilities (non-negative rows that sum to 1); the attacks need logits: "
            "remove the softmax"
        )
    twice = [np.asarray(logits_fn(jnp.asarray(images[:1])), np.float32) for _ in range(2)]
    if _differ(predict(images), logits) or _differ(*twice):
        yield (
            "the outputs are random (two calls on the same images differ); the standard attacks overestimate "
            "the robustness of random models"
        )
        return
    # Every second image gives way to a copy of its neighbour: the others should not notice.
    mixed = images.copy()
    mixed[1::2] = images[: len(images) - 1 : 2]
    if _differ(predict(mixed)[::2], logits[::2]) or _differ(predict(images[::-1].copy())[::-1], logits):
        yield (
            "an example's outputs depend on the other examples of its batch; is BatchNorm in training mode? "
            "No number measured this way is the model's"
        )


def complaints_about_gradients(logits_fn, images, labels):
    """Sentences about correct examples without any gradient; images are placed on the devices."""
    correct, *gradients = map(np.asarray, _gradients(logits_fn, images, labels))
    for name, gradient in zip(("logit margin", "cross-entropy"), gradients, strict=True):
        number = int((gradient & correct).sum())
        if number:
            yield (
                f"the {name} has no input gradient at all for {number} of {correct.sum()} correct examples of the "
                "first batch; gradients may be masked"
            )


def complaints_about_square(fooled_by_square, size, others):
    """Sentence about Square fooling what the attacks with gradients did not."""
    if others and fooled_by_square >= max(2, NOTABLE * size):
        yield (
            f"square fooled {fooled_by_square} examples that {', '.join(others)} had not; gradients may be masked, "
            "and an attack made for this model may well do better"
        )


@jax.jit
def _gradients(logits_fn, images, labels):
    """Correctness, and for the margin and the cross-entropy whether an example's input gradient is 0; [B] bool."""

    def gradient_is_zero(objective):
        def total(images):
            return jax.vmap(objective)(logits_fn(images), labels).sum()

        return (jax.grad(total)(images) == 0).all((1, 2, 3))

    correct = jax.vmap(is_correct)(logits_fn(images), labels)
    return correct, gradient_is_zero(logit_margin), gradient_is_zero(cross_entropy)


def _differ(first, second):
    """Whether logits differ by more than rounding; NaN in both places is no difference."""
    first, second = np.nan_to_num(first), np.nan_to_num(second)
    return np.abs(first - second).max(initial=0) > ROUNDING * np.abs(second).max(initial=0)
