"""Checks before and after the attacks, for mistakes that make a robust accuracy wrong without anyone noticing."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import flax
import jax
import jax.numpy as jnp
import numpy as np

from jaxrw.attacks import norms
from jaxrw.attacks.arguments import STATEFUL, check_at_least, check_radius, check_range
from jaxrw.attacks.types import LogitsFn
from jaxrw.methods.margins import is_correct, logit_margin
from jaxrw.methods.objectives import cross_entropy

# Differences of logits below this share of their largest magnitude count as rounding.
ROUNDING = 1e-4

# Rounding of `image + eps`, of eps and of the difference, each at most 2**-25 for pixels in [0, 1].
PIXEL_ROUNDING = 2.0**-23
# Rounding of a sum over all pixels, as a share of it; there is none in the L-infinity norm.
SUM_ROUNDING = 2.0**-20

# A compiled model whose logits differ from its own by more than this share is not the same any more: batches of another
# size, and fused operations of bfloat16, round by less.
_STALE = 0.05

# A surrogate that decides otherwise for more than this share of the images does more than round.
DIFFERENT = 0.1

# Square fooling at least 2 examples, and this share of all, that no other attack fooled is not due to chance.
NOTABLE = 0.01


class RobustnessWarning(UserWarning):
    """The true robust accuracy may be lower than the measured one."""


def check_key(key: object) -> None:
    """Raises ValueError, in one line, unless `key` is a single PRNG key, of the new or of the old kind."""
    if isinstance(key, jax.Array | np.ndarray):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0:
            return
        if key.dtype == np.uint32 and key.ndim == 1:
            return
    raise ValueError(f"key is {' '.join(repr(key).split()):.60}; must be one PRNG key, as jax.random.key(0)")


def check_problem(images: np.ndarray, labels: np.ndarray, *, norm: str, eps: float, batch_size: int) -> None:
    """Raises ValueError, in one line, for arguments of `autoattack` that make no sense."""
    if labels.ndim == 2 and len(images) == len(labels) and labels.shape[1] > 1:
        raise ValueError(f"labels are {labels.shape}, one-hot; must be classes [N]: give labels.argmax(1)")
    if images.ndim != 4 or labels.ndim != 1 or len(images) != len(labels):
        raise ValueError(
            f"images are {images.shape} and labels {labels.shape}; must be [N, H, W, C] and [N] for one N"
        )
    if not len(images):
        raise ValueError("images and labels are empty; there is nothing to evaluate")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels are {labels.dtype}; must be integers in 0..K-1")
    check_range(float(images.min()), float(images.max()))
    check_radius(eps, images.shape[1:], norm=norm)
    check_at_least(1, batch_size=batch_size)


def explain(error: Exception, logits_fn: LogitsFn, shape: tuple[int, int, int]) -> str | None:
    """Returns what to do about an error of a model on a batch of images [H, W, C]; None: nobody knows here."""
    if isinstance(error, flax.errors.TraceContextError):  # Of an NNX model within another function.
        return STATEFUL
    height, width, channels = shape
    for names, one, words in (
        ("[H, W, C]", shape, "jax.vmap(model)"),
        ("[C, H, W]", (channels, height, width), "lambda x: jax.vmap(model)(x.transpose(0, 3, 1, 2))"),
    ):
        with contextlib.suppress(Exception):  # The model can raise anything.
            if jax.eval_shape(logits_fn, jax.ShapeDtypeStruct(one, jnp.float32)).ndim == 1:
                return f"logits_fn takes one image {names}, not a batch [B, H, W, C]: give {words}"
    return None


@contextlib.contextmanager
def naming_arguments(*, is_random: bool) -> Iterator[None]:
    """Turns the error of a model that takes other arguments into a ValueError, in one line."""
    try:
        yield
    except TypeError as error:
        message = str(error).partition("\n")[0]
        if "positional argument" not in message:
            raise
        if is_random:
            wanted = "version is 'rand', so logits_fn must take images and a key"
        else:
            wanted = (
                "logits_fn must take images alone; a random model, of images and a key, needs version='rand'"
            )
        raise ValueError(f"{wanted} ({message})") from error


def check_model(images: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> None:
    """Raises ValueError, in one line, unless a batch of images gets logits [B, K] and all labels are in 0..K-1."""
    if logits.ndim != 2 or len(logits) != len(images):
        raise ValueError(f"logits_fn maps {images.shape} to {logits.shape}; must be [B, H, W, C] to [B, K]")
    num_classes = logits.shape[1]
    if num_classes < 2:
        raise ValueError(f"logits_fn gives {num_classes} class; must be 2 or more")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"labels range from {labels.min()} to {labels.max()}; the model has {num_classes} classes, "
            f"so they must lie in 0..{num_classes - 1}"
        )


def check_surrogate(logits: np.ndarray, others: np.ndarray) -> None:
    """Raises ValueError, in one line, unless the surrogate's logits have the shape of the model's."""
    if others.shape != logits.shape:
        raise ValueError(
            f"surrogate maps images to {others.shape} and logits_fn to {logits.shape}; must be the same model"
        )


def in_ball(adversarial: np.ndarray, images: np.ndarray, *, eps: float, norm: str = "linf") -> np.ndarray:
    """Returns whether each image lies in [0, 1] and, up to rounding, at most eps from its original; [B] bool."""
    steps = (adversarial.astype(np.float64) - images).reshape(len(images), -1)
    distance = np.linalg.norm(steps, norms.get(norm).order, axis=1)
    inside = ((adversarial >= 0) & (adversarial <= 1)).all((1, 2, 3))
    rounding = PIXEL_ROUNDING
    if norm != "linf":  # Only pixels that were changed are rounded.
        rounding = PIXEL_ROUNDING * np.count_nonzero(steps, axis=1) ** (1 / norms.get(norm).order)
        rounding = rounding + SUM_ROUNDING * eps
    return inside & (distance <= eps + rounding)


def output_warnings(
    predict: Callable[[np.ndarray], np.ndarray],
    logits_fn: Callable[..., jax.Array],
    images: np.ndarray,
    *,
    is_random: bool,
) -> Iterator[str]:
    """Warns of outputs that are probabilities, random, or dependent on the other examples of the batch.

    Args:
      predict: compiled model, images [B, H, W, C] -> logits [B, K] on the host, for one B.
      logits_fn: the model, not compiled, because compilation would freeze random numbers drawn in Python.
      images: [B, H, W, C], the first batch.
      is_random: whether the model is known to be random; each image is evaluated alone then.

    Yields:
      One sentence per warning.

    Raises:
      ValueError: the compiled model has other parameters than `logits_fn` has now.
    """
    logits = predict(images)
    if (logits >= 0).all() and np.abs(logits.sum(1) - 1).max() < 1e-4:
        yield (
            "the outputs look like probabilities (non-negative rows that sum to 1); the attacks need logits: "
            "remove the softmax"
        )
    if is_random:
        return
    twice = [np.asarray(logits_fn(jnp.asarray(images[:1])), np.float32) for _ in range(2)]
    alone = predict(np.repeat(images[:1], len(images), 0))[:1]
    # The whole batch only where one image differs: what depends on the batch is not stale.
    if (
        not _differ(*twice)
        and _differ(alone, twice[0], tolerance=_STALE)
        and _differ(logits, np.asarray(logits_fn(jnp.asarray(images)), np.float32), tolerance=_STALE)
    ):
        raise ValueError(
            "logits_fn has other parameters than when it was compiled: it holds arrays that somebody has replaced "
            "since; give jax.tree_util.Partial(function, parameters), whose parameters may change"
        )
    if _differ(predict(images), logits) or _differ(*twice):
        yield (
            "the outputs are random (two calls on the same images differ), and the attacks overestimate the "
            "robustness of random models; version='rand' is for them, with a function of images and a key"
        )
        return
    # Every second image becomes a copy of its neighbor, which must not change the outputs of the others.
    mixed = images.copy()
    mixed[1::2] = images[: len(images) - 1 : 2]
    if _differ(predict(mixed)[::2], logits[::2]) or _differ(predict(images[::-1].copy())[::-1], logits):
        yield (
            "an example's outputs depend on the other examples of its batch; is BatchNorm in training mode? "
            "No number measured this way is the model's: use evaluation mode, or, if random numbers are drawn for "
            "the whole batch, version='rand' with a function of images and a key"
        )


def surrogate_warnings(logits: np.ndarray, others: np.ndarray) -> Iterator[str]:
    """Warns of a surrogate that decides otherwise than the model for many of a batch; yields one sentence."""
    number = int((logits.argmax(1) != others.argmax(1)).sum())
    if number > DIFFERENT * len(logits):
        yield (
            f"the surrogate predicts another class than logits_fn for {number} of {len(logits)} images; if it is "
            "another model, attacks on it find too little"
        )


def gradient_warnings(logits_fn: LogitsFn, images: jax.Array, labels: jax.Array) -> Iterator[str]:
    """Warns of correct examples whose input gradient is 0; yields one sentence per loss."""
    correct, *zeros = map(np.asarray, _gradients(logits_fn, images, labels))
    for name, zero in zip(("logit margin", "cross-entropy"), zeros, strict=True):
        number = int((zero & correct).sum())
        if number:
            yield (
                f"the {name} has no input gradient at all for {number} of {correct.sum()} correct examples of the "
                "first batch; gradients may be masked"
            )


def square_warnings(num_fooled: int, size: int, others: Sequence[str]) -> Iterator[str]:
    """Warns if Square fooled many of `size` examples that other attacks had not; yields one sentence."""
    if others and num_fooled >= max(2, NOTABLE * size):
        yield (
            f"square fooled {num_fooled} examples that {', '.join(others)} had not; gradients may be masked, "
            "and an attack made for this model may well do better"
        )


@jax.jit
def _gradients(
    logits_fn: LogitsFn, images: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns [B] bool: correct; gradient of the margin is 0; gradient of the cross-entropy is 0."""

    def gradient_is_zero(objective: Callable[[jax.Array, jax.Array], jax.Array]) -> jax.Array:
        def total(images: jax.Array) -> jax.Array:
            return jax.vmap(objective)(logits_fn(images), labels).sum()

        return (jax.grad(total)(images) == 0).all((1, 2, 3))

    correct = jax.vmap(is_correct)(logits_fn(images), labels)
    return correct, gradient_is_zero(logit_margin), gradient_is_zero(cross_entropy)


def _differ(first: np.ndarray, second: np.ndarray, *, tolerance: float = ROUNDING) -> bool:
    """Returns whether logits differ by more than a share of the largest; NaN in both is not a difference."""
    first, second = np.nan_to_num(first), np.nan_to_num(second)
    return bool(np.abs(first - second).max(initial=0) > tolerance * np.abs(second).max(initial=0))
