"""What `autoattack` says: one sentence for a call that cannot work, a bar while it runs, a table at the end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers.linear import linear_problem

from jaxrw.attacks import AutoAttackResult, autoattack

KEY = jax.random.key(0)
SHORT = {"eps": 0.1, "batch_size": 8, "num_steps": 2, "num_queries": 2}
IMAGES = np.random.RandomState(0).rand(8, 6, 5, 3).astype(np.float32)
LABELS = np.arange(8) % 4


class Nnx(nnx.Module):
    """A network whose BatchNorm or dropout changes its own state in training mode."""

    def __init__(self, layer):
        rngs = nnx.Rngs(0)
        self.layer = nnx.BatchNorm(3, rngs=rngs) if layer == "BatchNorm" else nnx.Dropout(0.5, rngs=rngs)
        self.dense = nnx.Linear(3, 4, rngs=rngs)

    def __call__(self, x):
        return self.dense(self.layer(x).mean((1, 2)))


def of_one(axes):
    """A model of one image alone, as one of Equinox that was not vmapped."""
    kernel = jnp.asarray(np.random.RandomState(1).randn(3, 4), jnp.float32)

    def model(image):
        if image.ndim != 3:
            raise ValueError(("Input to `Conv` needs to have rank 3,", " but input has another shape."))
        assert image.shape[axes.index("C")] == 3
        return image.mean(tuple(axes.index(axis) for axis in "HW")) @ kernel

    return model


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Nnx("BatchNorm"), r"training mode does.* call model.eval\(\) first"),
        (Nnx("Dropout"), r"training mode does.* call model.eval\(\) first"),
        (of_one("HWC"), r"takes one image \[H, W, C\], .*: give jax.vmap\(model\)"),
        (of_one("CHW"), r"takes one image \[C, H, W\], .*: give lambda x: jax.vmap\(model\)\(x.transpose"),
    ],
    ids=["BatchNorm", "Dropout", "HWC", "CHW"],
)
def test_models_that_take_no_batch_or_are_in_training_mode(model, words):
    with pytest.raises(ValueError, match=words) as caught:
        autoattack(KEY, model, IMAGES, LABELS, **SHORT)
    assert "\n" not in str(caught.value)


def test_what_it_says_works():
    for model in (lambda x: jax.vmap(of_one("CHW"))(x.transpose(0, 3, 1, 2)), jax.vmap(of_one("HWC"))):
        assert isinstance(autoattack(KEY, model, IMAGES, LABELS, **SHORT, progress=False), AutoAttackResult)
    network = Nnx("BatchNorm")
    network.eval()
    autoattack(KEY, network, IMAGES, LABELS, **SHORT, progress=False)


def test_an_output_that_is_no_array_is_told():
    with pytest.raises(ValueError, match="logits_fn returns a tuple; must be one array of logits"):
        autoattack(KEY, lambda x: (x.reshape(len(x), -1)[:, :4], x), IMAGES, LABELS, **SHORT)


def test_an_error_of_a_models_own_stays_what_it_is():
    with pytest.raises(ZeroDivisionError):
        autoattack(KEY, lambda x: 1 / 0, IMAGES, LABELS, **SHORT)


@pytest.mark.parametrize("key", [0, None, np.float32(1), jax.random.split(KEY), "0"])
def test_keys_that_are_none(key):
    with pytest.raises(ValueError, match=r"^key is .*; must be one PRNG key, as jax.random.key\(0\)$"):
        autoattack(key, jax.vmap(of_one("HWC")), IMAGES, LABELS, **SHORT)


def test_keys_of_both_kinds():
    """An old key of the same seed draws the same numbers."""
    results = [
        autoattack(key, jax.vmap(of_one("HWC")), IMAGES, LABELS, **SHORT, progress=False).adversarial
        for key in (KEY, jax.random.PRNGKey(0))
    ]
    np.testing.assert_array_equal(*results)


def test_one_hot_labels():
    with pytest.raises(ValueError, match=r"labels are \(8, 4\), one-hot; .* give labels.argmax\(1\)"):
        autoattack(KEY, jax.vmap(of_one("HWC")), IMAGES, np.eye(4)[LABELS], **SHORT)


@pytest.fixture(scope="module")
def problem():
    logits_fn, images, labels, distance = linear_problem(4, size=12)
    return logits_fn, images, labels, {**SHORT, "eps": float(np.median(distance))}


def test_it_says_where_it_stands_unless_it_is_told_not_to(problem, capsys):
    *arguments, settings = problem
    autoattack(KEY, *arguments, **settings)
    out, err = capsys.readouterr()
    assert out == ""
    said = [line.split(" leaves ")[0] for line in err.splitlines()]
    assert said[0] == "apgd-ce"
    for silent in (False, None, lambda report: None):
        autoattack(KEY, *arguments, **settings, progress=silent)
        assert capsys.readouterr() == ("", "")


def test_a_result_prints_as_a_table():
    result = AutoAttackResult(
        adversarial=np.zeros((1000, 8, 8, 3), np.float32),
        robust=np.arange(1000) < 437,
        fooled_by=np.zeros(1000, np.int8),
        clean_accuracy=84.0,
        accuracy={"apgd-ce": 50.04, "square": 43.7},
        robust_under={},
        attacked={"apgd-ce": 840, "square": 500},
        fooled={"apgd-ce": 340, "square": 63},
        seconds={"apgd-ce": 61.25, "square": 1000.0},
        num_targets=9,
        labels=np.zeros(1000, np.int32),
        norm="linf",
        eps=0.03,
        version="standard",
        individual=False,
        surrogate=False,
        unconfirmed=np.zeros(0, int),
        warnings=("gradients may be masked",),
    )
    assert repr(result).splitlines() == [
        "AutoAttack leaves 437 of 1,000 examples robust; accuracy in percent",
        "            attacked    fooled  accuracy   seconds",
        "clean                              84.00",
        "apgd-ce          840       340     50.04      61.2",
        "square           500        63     43.70    1000.0",
        "warning: gradients may be masked",
    ]
