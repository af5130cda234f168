"""Runs that tests of the report share."""

import pytest
from helpers.made_up_runs import put


@pytest.fixture
def three_seeds(tmp_path):
    """MAIL and Ours+MAIL with three and two seeds; AutoAttack on some; Standard once, without AutoAttack."""
    mail = ({"pgd100": 50.0, "aa": 40.0}, {"pgd100": 52.0, "aa": 41.0}, {"pgd100": 54.0})
    ours = ({"pgd100": 53.0, "aa": 39.0}, {"pgd100": 53.5, "aa": 39.5})
    for seed, accuracy in enumerate(mail):
        put(tmp_path, f"mail-{seed}", seed=seed, last=accuracy)
    for seed, accuracy in enumerate(ours):
        put(tmp_path, f"ours-{seed}", seed=seed, method="ours_mail", last=accuracy)
    put(tmp_path, "standard-0", method="standard", last={"pgd100": 48.0, "clean": 85.0})
    return tmp_path
