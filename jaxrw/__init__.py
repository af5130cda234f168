"""Instance-reweighted adversarial training and robustness evaluation in JAX and Flax.

It implements [Revisiting Instance-Reweighted Adversarial Training](https://openreview.net/forum?id=ALbEpTC4hBp). To
train and evaluate from the command line, run `jaxrw --config digits`, which needs the extra `jaxrw[train]`.

To evaluate any model that maps images in [0, 1] to logits:

    jaxrw.attacks        FGSM, PGD, APGD, FAB, Square and AutoAttack

The paper's methods, written for one example and batched by `jax.vmap`:

    jaxrw.margins        probability margin, top-2 ratio, similarity, reweighted margin
    jaxrw.weightings     weights of MAIL, WMMR, GAIRAT, EWAT, DONE and Far
    jaxrw.objectives     weighted losses
    jaxrw.methods        all methods by name; contains the three modules above

Networks, data and results of runs:

    jaxrw.networks       ResNets, WideResNets and PreActResNets
    jaxrw.torch_weights  weights of public PyTorch models, read and written; part of jaxrw.networks
    jaxrw.data           CIFAR, digits, prepared TFDS sets and folders of images
    jaxrw.figures        the figures of a run
    jaxrw.report         tables of many runs

For example, the weight that MAIL gives to an example which is classified correctly by a margin of 0.3:

>>> import jax.numpy as jnp
>>> from jaxrw import weightings
>>> round(float(3 * weightings.mail(jnp.array(0.3), beta=0.5, gamma=10.0)), 4)
0.001
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxrw import attacks, data, figures, methods, networks, report
    from jaxrw.methods import margins as margins
    from jaxrw.methods import objectives as objectives
    from jaxrw.methods import weightings as weightings
    from jaxrw.networks import torch_weights as torch_weights

__version__ = importlib.metadata.version("jaxrw")

__all__ = ["attacks", "data", "figures", "methods", "networks", "report"]

# Modules that are public under a shorter name than their own.
_PACKAGES = {
    "margins": "jaxrw.methods",
    "objectives": "jaxrw.methods",
    "weightings": "jaxrw.methods",
    "torch_weights": "jaxrw.networks",
}


def __getattr__(name: str) -> Any:
    """Imports a public module when it is first used, because importing JAX takes a second."""
    if name in __all__ or name in _PACKAGES:
        try:
            return importlib.import_module(f"{_PACKAGES.get(name, 'jaxrw')}.{name}")
        except ModuleNotFoundError as error:
            if (error.name or "jaxrw").startswith("jaxrw"):
                raise
            raise ImportError(
                f"jaxrw.{name} needs {error.name}; install it with pip install -e '.[train]' in the repository"
            ) from error
    raise AttributeError(f"module 'jaxrw' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_PACKAGES, "__version__"])
