"""What AutoPGD ascends: losses of one example, and their gradients by the images of a batch."""

from collections.abc import Callable

import jax

from jaxrw.attacks.batch import Batch
from jaxrw.attacks.losses import logit_ratio, targeted_logit_ratio
from jaxrw.attacks.types import LogitsFn
from jaxrw.methods.objectives import cross_entropy

# (logits, label, target) -> loss of one example.
LOSSES: dict[str, Callable[[jax.Array, jax.Array, jax.Array], jax.Array]] = {
    "ce": lambda logits, label, target: cross_entropy(logits, label),
    "dlr": lambda logits, label, target: logit_ratio(logits, label),
    "dlr-targeted": targeted_logit_ratio,
}


def differentiate(
    logits_fn: LogitsFn, images: jax.Array, batch: Batch, *, loss: str
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the gradient [B, H, W, C] of a loss by the images, the losses [B] and the logits [B, K]."""

    def objective(images: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        logits = logits_fn(images)
        losses = jax.vmap(LOSSES[loss])(logits, batch.labels, batch.targets)
        return losses.sum(), (losses, logits)

    gradient, (losses, logits) = jax.grad(objective, has_aux=True)(images)
    return gradient, losses, logits
