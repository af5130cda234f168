"""`configs/mini_c10.py` with weightings that are tried against AutoAttack; their mean is near 0.04, as MAIL's.

    python launch.py --config configs/mini_own.py --config.method.name=half_mail

Here MAIL is followed half the way. `configs/sweeps/mini_own.py` has the other two, which are shipped methods: MAIL on
the margin of the logits with a gentler slope, and `far`, which turns it round: the hardest examples are those that an
overfitted network has memorized.
"""

import jax
from ml_collections import ConfigDict

from configs import mini_c10
from jaxrw import methods
from jaxrw.methods import margins, weightings


def half_mail(
    logits: jax.Array,
    label: jax.Array,
    kappa: jax.Array,
    *,
    constant: float,
    beta: float,
    gamma: float,
    multiplier: float,
) -> jax.Array:
    """Computes the weight (c + M sigmoid(-gamma (m + beta))) / 2, positive, decreasing in the margin."""
    margin = margins.probability_margin(logits, label)
    return (constant + multiplier * weightings.mail(margin, beta=beta, gamma=gamma)) / 2


methods.add(methods.Method("half_mail", "Half MAIL", "(c + M sigmoid(-gamma (m + beta))) / 2", half_mail))


def get_config() -> ConfigDict:
    """Returns the laptop's scale with the constant weight 0.04; method.name chooses what is tried."""
    config = mini_c10.get_config()
    config.method.name = "constant"
    config.method.constant = 0.04
    return config
