"""Distributions with margins worked out by hand, and the constants of the paper."""

import jax.numpy as jnp

# p_y, p_2 -> m, o, c, m~ at tau 2, m~ at tau 3; K = 10, the rest of the mass uniform over the other 8 classes.
# Worked out by hand from Eq. 4 (sign mended), 7, 11 and 14; change them only if those equations change.
GOLDEN = [
    ((0.990, 0.0050), (+0.9850, 0.50000, 0.00536, +0.00791, +0.01319)),
    ((0.600, 0.3000), (+0.3000, 0.75000, 0.44968, +0.16863, +0.30354)),
    ((0.600, 0.4 / 9), (+0.5556, 0.11111, 0.21693, +0.22764, +0.34816)),
    ((0.495, 0.495), (0.0, 0.98020, 0.70712, 0.0, 0.0)),
    ((0.300, 0.300), (0.0, 0.42857, 0.74162, 0.0, 0.0)),
    ((0.050, 0.300), (-0.2500, 0.31579, 0.99136, -0.41741, -0.66526)),
    ((0.200, 0.750), (-0.5500, 0.93750, 0.96625, -0.56465, -1.09609)),
    ((0.010, 0.980), (-0.9700, 0.98990, 0.99995, -0.97975, -1.94970)),
]


DEFAULTS = {
    "tau": 2.0,
    "similarity": True,
    "beta": 0.5,
    "gamma": 10.0,
    "alpha": 2.0,
    "multiplier": 3.0,
    "lam": -1.0,
    "constant": 0.5,
    "temperature": 2.0,
}


def golden_logits(p_y, p_2, num_classes=10):
    """Logits of a distribution whose true class is 0."""
    rest = (1 - p_y - p_2) / (num_classes - 2)
    return jnp.log(jnp.array([p_y, p_2] + [rest] * (num_classes - 2), jnp.float32))
