"""The evaluation attacks by the names they have in tables (methods of the paper's Section 4)."""

import functools

from jaxrw.attacks.apgd import apgd
from jaxrw.attacks.pgd import fgsm, pgd

# Columns of every table, in the paper's order. The last, AutoAttack, is a loop on the host and no function that
# a compiled step could hold: `jaxrw.attacks.autoattack`.
ATTACKS = ("clean", "fgsm", "pgd20", "pgd100", "cw_pgd", "apgd_ce", "aa")
AUTOATTACK = ATTACKS[-1]

# Fields of a config's `evaluation` that each column's accuracy depends on.
SETTINGS = dict.fromkeys(ATTACKS, ("eps", "step_size")) | {
    "clean": (),
    "fgsm": ("eps",),
    "apgd_ce": ("eps",),
    "aa": ("eps",),
}


def create(name, *, eps, step_size):
    """Attack of one column: (key, logits_fn, images, labels, index) -> adversarial images, pixels in [0, 1].

    Args:
      name: one of `ATTACKS` but the last; "pgdN" with any other N is PGD with N steps.
      eps: radius in pixel units of [0, 1].
      step_size: PGD's, in pixel units of [0, 1].

    Raises:
      ValueError: unknown attack, or AutoAttack.
    """
    if name == "clean":
        return lambda key, logits_fn, images, labels, index: images
    if name == "fgsm":
        return lambda key, logits_fn, images, labels, index: fgsm(logits_fn, images, labels, eps=eps)
    if name == "cw_pgd":
        return _pgd(eps=eps, step_size=step_size, num_steps=100, loss="cw")
    if name.startswith("pgd") and name[3:].isdecimal():
        return _pgd(eps=eps, step_size=step_size, num_steps=int(name[3:]), loss="ce")
    if name == "apgd_ce":
        attack = functools.partial(apgd, eps=eps, num_steps=100, loss="ce")
        return lambda key, logits_fn, images, labels, index: attack(
            key, logits_fn, images, labels, index=index
        )
    raise ValueError(f"attack is {name!r}; choose of {', '.join(ATTACKS[:-1])}")


def _pgd(**settings):
    """PGD with one uniform start and its last iterate."""
    attack = functools.partial(pgd, start="uniform", **settings)
    return lambda key, logits_fn, images, labels, index: attack(key, logits_fn, images, labels, index=index)
