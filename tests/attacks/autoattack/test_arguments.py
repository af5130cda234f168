"""A call that cannot work is refused in one line."""

import numpy as np
import pytest
from helpers.autoattack import KEY, evaluate, noisy
from helpers.linear import SHAPE, linear_problem

from jaxrw.attacks import autoattack

MISTAKES = {
    "bytes": ({"images": np.full((2, *SHAPE), 255, np.uint8)}, "images range from 255 to 255; must lie in"),
    "nan": ({"images": np.full((2, *SHAPE), np.nan, np.float32)}, "images range from nan"),
    "flat": ({"images": np.zeros((2, 32))}, r"images are \(2, 32\)"),
    "lengths": ({"labels": np.zeros(3, int)}, r"labels \(3,\)"),
    "empty": ({"images": np.zeros((0, *SHAPE)), "labels": np.zeros(0, int)}, "empty"),
    "float labels": ({"labels": np.zeros(2)}, "labels are float64"),
    "label 5": ({"labels": np.array([0, 5])}, "labels range from 0 to 5; the model has 5 classes"),
    "label -1": ({"labels": np.array([0, -1])}, "labels range from -1 to 0"),
    "eps 8": ({"eps": 8}, "eps is 8; .* 8 / 255"),
    "eps 0": ({"eps": 0.0}, "eps is 0;"),
    "batch": ({"batch_size": 0}, "batch_size is 0"),
    "attack": ({"attacks": ("apgd", "square")}, "attack is 'apgd'; choose of apgd-ce, apgd-t"),
    "twice": ({"attacks": ("square", "square")}, "each once"),
    "none": ({"attacks": ()}, "at least one"),
    "queries": ({"num_queries": 0}, "num_queries is 0"),
    "restarts": ({"num_restarts": 0}, "num_restarts is 0"),
    "targets": ({"num_targets": 0}, "num_targets is 0"),
    "samples": ({"version": "rand", "num_samples": 0}, "num_samples is 0"),
    "votes": ({"version": "rand", "num_votes": 0}, "num_votes is 0"),
    "norm": ({"norm": "L2"}, "norm is 'L2'; choose one of linf, l2, l1"),
    "version": ({"version": "fast"}, "version is 'fast'; choose one of standard, plus, rand"),
    "not for random": (
        {"version": "rand", "attacks": ("square",)},
        "attack is 'square'; choose of apgd-ce, apgd-t, apgd-dlr for random models",
    ),
    "eps in l2": ({"norm": "l2", "eps": 6}, r"eps is 6; must be in \(0, 5.657\]"),
    "state": ({"state_path": "no/such/directory/state.npz"}, "its directory does not exist"),
    "outputs": ({"logits_fn": lambda images: images.sum((1, 2, 3))}, "must be .* to"),
    "one class": ({"logits_fn": lambda images: images.sum((2, 3))[:, :1]}, "1 class; must be 2"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named_in_one_line(problem, name):
    changed, message = MISTAKES[name]
    call = {
        "logits_fn": problem[0],
        "images": np.full((2, *SHAPE), 0.5),
        "labels": np.zeros(2, int),
        "eps": 0.1,
        "batch_size": 2,
    } | changed
    with pytest.raises(ValueError, match=message) as caught:
        autoattack(KEY, call.pop("logits_fn"), call.pop("images"), call.pop("labels"), **call)
    assert "\n" not in str(caught.value)


def test_untargeted_dlr_needs_three_classes():
    logits_fn, images, labels, _ = linear_problem(2)
    with pytest.raises(ValueError, match="'apgd-dlr' needs at least 3 classes"):
        evaluate(logits_fn, images, labels, eps=0.1, attacks=("apgd-dlr",))


def test_models_of_other_arguments_are_told(problem):
    logits_fn, images, labels, eps, _ = problem
    with pytest.raises(
        ValueError, match="version is 'rand', so logits_fn must take images and a key"
    ) as caught:
        evaluate(logits_fn, images, labels, eps=eps, version="rand")
    assert "\n" not in str(caught.value)
    with pytest.raises(
        ValueError, match="a random model, of images and a key, needs version='rand'"
    ) as caught:
        evaluate(noisy, images, labels, eps=eps)
    assert "\n" not in str(caught.value)
