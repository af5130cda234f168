"""Attacks in the L-infinity, L2 and L1 ball, as pure functions of a model's logits.

`fgsm`, `pgd`, `apgd`, `fab` and `square` return adversarial images [B, H, W, C] in [0, 1], at most eps from the
originals. An example's result depends on `key`, its index, its image and its label, never on the other examples. They
share these arguments:

- `key`: PRNG key. `fab` draws nothing without restarts and ignores it; `fgsm` takes none.
- `logits_fn`: maps images [B, H, W, C] in [0, 1] to logits [B, K]; each row depends on its own image alone. Passing the
  same function object again compiles nothing again, nor does a `jax.tree_util.Partial` of the same function with
  other arrays. Arrays that a plain function or a method holds are compiled in: if they change, as in training, give a
  `Partial` that takes them as arguments. A Flax NNX model may be given as it is.
- `images`: [B, H, W, C] float in [0, 1].
- `labels`: [B] integer in 0..K-1.
- `eps`: radius in pixel units of [0, 1]: 8 / 255, not 8.
- `norm`: of eps; "linf", "l2" or "l1".
- `index`: [B] integer; identifies each example in the random numbers. None: its place in the batch.

`autoattack` runs the strongest of them one after the other, in a loop on the host.
"""

from jaxrw.attacks.apgd import apgd
from jaxrw.attacks.autoattack import AutoAttackResult, Progress, RobustnessWarning, autoattack
from jaxrw.attacks.fab import fab
from jaxrw.attacks.pgd import fgsm, pgd, pgd_and_kappa
from jaxrw.attacks.square import square
from jaxrw.attacks.types import Attack, LogitsFn

__all__ = [
    "Attack",
    "AutoAttackResult",
    "LogitsFn",
    "Progress",
    "RobustnessWarning",
    "apgd",
    "autoattack",
    "fab",
    "fgsm",
    "pgd",
    "pgd_and_kappa",
    "square",
]
