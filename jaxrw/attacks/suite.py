"""The evaluation attacks by the names they have in tables (methods of the paper's Section 4)."""

import functools

from jaxrw.attacks.pgd import fgsm, pgd

# Columns of every table, in the paper's order.
ATTACKS = ("clean", "fgsm", "pgd20", "pgd100", "cw_pgd", "apgd_ce", "aa")

# Columns that read "not run" until the attack exists.
MISSING = ("apgd_ce", "aa")


def create(name, *, eps, step_size):
    """Attack of one column: (key, logits_fn, images, labels, index) -> adversarial images, pixels in [0, 1].

    Args:
      name: one of `ATTACKS`; "pgdN" with any other N is PGD with N steps.
      eps: radius in pixel units of [0, 1].
      step_size: PGD's, in pixel units of [0, 1].

    Raises:
      ValueError: unknown or missing attack.
    """
    if name == "clean":
        return lambda key, logits_fn, images, labels, index: images
    if name == "fgsm":
        return lambda key, logits_fn, images, labels, index: fgsm(logits_fn, images, labels, eps=eps)
    if name == "cw_pgd":
        return _pgd(eps=eps, step_size=step_size, num_steps=100, loss="cw")
    if name.startswith("pgd") and name[3:].isdecimal():
        return _pgd(eps=eps, step_size=step_size, num_steps=int(name[3:]), loss="ce")
    if name in MISSING:
        raise ValueError(f"attack {name!r} is not there yet; choose of {', '.join(available())}")
    raise ValueError(f"attack is {name!r}; choose of {', '.join(available())}")


def available():
    """Names that `create` takes, in the order of the columns."""
    return tuple(name for name in ATTACKS if name not in MISSING)


def _pgd(**settings):
    """PGD with one uniform start and its last iterate."""
    attack = functools.partial(pgd, start="uniform", **settings)
    return lambda key, logits_fn, images, labels, index: attack(key, logits_fn, images, labels, index=index)
