"""Means and stds that networks are usually trained with, to find the one that a file of weights does not tell."""

import functools

import chex
import jax
import jax.numpy as jnp

from jaxrw.networks.base import Network

# A mean and a std, one number per channel, in units of [0, 1].
Statistics = tuple[tuple[float, ...], tuple[float, ...]]

CIFAR10: Statistics = ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
CIFAR100: Statistics = ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
_IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_MNIST: Statistics = ((0.1307,), (0.3081,))


def usual(channels: int) -> list[Statistics | None]:
    """Returns the usual statistics of images with so many channels; None stands for images in [0, 1] as they are."""
    known = [values for values in (CIFAR10, CIFAR100, _IMAGENET, _MNIST) if len(values[0]) == channels]
    return [None, *known, ((0.5,) * channels, (0.5,) * channels)]


def best(
    model: Network, variables: chex.ArrayTree, images: jax.Array, labels: jax.Array
) -> tuple[Statistics | None, float, float]:
    """Returns the statistics of highest accuracy, its own or usual ones, and the accuracies with them and its own.

    Accuracies are in percent.

    Args:
      model: a network without the collection "normalization" in its variables.
      variables: the network's.
      images: [N, H, W, C] in [0, 1].
      labels: [N] integer.
    """
    own = None if model.mean is None or model.std is None else (tuple(model.mean), tuple(model.std))
    choices = [own, *(values for values in usual(images.shape[-1]) if values != own)]
    accuracies = []
    for values in choices:
        mean, std = values or (None, None)
        accuracies.append(_accuracy(model.clone(mean=mean, std=std), variables, images, labels))
    highest = max(accuracies)
    return choices[accuracies.index(highest)], highest, accuracies[0]


def _accuracy(model: Network, variables: chex.ArrayTree, images: jax.Array, labels: jax.Array) -> float:
    logits = jax.jit(functools.partial(model.apply, train=False))(variables, images)
    return 100 * float((jnp.argmax(logits, -1) == labels).mean())
