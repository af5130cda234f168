"""Instance reweighting: margins, weights and losses of one example, and the methods made of them.

`margins`, `weightings` and `objectives` hold pure functions of one example, batched with `jax.vmap`. `METHODS` lists
every method by name, `OBJECTIVES` every loss that they weigh; the config check, the training step, tables, figures and
sweeps read them.
"""

from jaxrw.methods import margins, objectives, weightings
from jaxrw.methods.objectives import OBJECTIVES, Objective
from jaxrw.methods.records import METHODS, Method, add, get, title
from jaxrw.methods.weightings import Weighting

__all__ = [
    "METHODS",
    "OBJECTIVES",
    "Method",
    "Objective",
    "Weighting",
    "add",
    "get",
    "margins",
    "objectives",
    "title",
    "weightings",
]
