"""Instance-reweighted adversarial training and robustness evaluation in JAX and Flax.

To evaluate any model that maps images in [0, 1] to logits:

    jaxrw.attacks        FGSM, PGD, APGD, FAB, Square and AutoAttack

The method of "Revisiting Instance-Reweighted Adversarial Training", one example at a time, batched by `jax.vmap`:

    jaxrw.margins        probability margin, top-2 ratio, similarity, reweighted margin
    jaxrw.weightings     weights of MAIL, WMMR, GAIRAT and EWAT
    jaxrw.objectives     weighted losses
    jaxrw.methods        all methods by name

Networks, data and results of runs:

    jaxrw.networks       ResNet and WideResNet for small images
    jaxrw.torch_weights  weights of public PyTorch models, read and written
    jaxrw.data           CIFAR, digits, prepared TFDS sets and folders of images
    jaxrw.figures        the figures of a run
    jaxrw.report         tables of many runs

To train and evaluate from the command line: `python launch.py --config configs/digits.py`.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxrw import attacks, data, figures, methods, networks, report
    from jaxrw.methods import margins, objectives, weightings
    from jaxrw.networks import torch_weights

__version__ = importlib.metadata.version("jaxrw")

__all__ = [
    "attacks",
    "data",
    "figures",
    "margins",
    "methods",
    "networks",
    "objectives",
    "report",
    "torch_weights",
    "weightings",
]

_PACKAGES = {
    "margins": "jaxrw.methods",
    "objectives": "jaxrw.methods",
    "weightings": "jaxrw.methods",
    "torch_weights": "jaxrw.networks",
}


def __getattr__(name: str) -> Any:
    """Imports a public module when it is first used: JAX's own import takes a second."""
    if name not in __all__:
        raise AttributeError(f"module 'jaxrw' has no attribute {name!r}")
    return importlib.import_module(f"{_PACKAGES.get(name, 'jaxrw')}.{name}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
