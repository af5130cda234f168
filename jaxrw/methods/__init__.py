"""Instance reweighting: margins, weights and losses of one example, and the methods made of them.

`margins`, `weightings` and `objectives` hold pure functions of one example, batched with `jax.vmap`. `METHODS` lists
every method by name; the config check, the training step, tables, figures and sweeps read it.
"""

from jaxrw.methods import margins, objectives, weightings
from jaxrw.methods.records import CONSTANTS, METHODS, Method, get
from jaxrw.methods.weightings import Weighting

__all__ = ["CONSTANTS", "METHODS", "Method", "Weighting", "get", "margins", "objectives", "weightings"]
