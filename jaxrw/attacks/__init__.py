"""Attacks as pure functions of `logits_fn`: images [B, H, W, C] in [0, 1] -> logits [B, K]."""

from jaxrw.attacks.pgd import fgsm, pgd, pgd_and_kappa

__all__ = ["fgsm", "pgd", "pgd_and_kappa"]
