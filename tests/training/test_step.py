"""The training step: the same numbers on any number of devices, one compilation."""

import os
import pathlib
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny

from jaxrw import methods, networks, train
from jaxrw.attacks import suite
from jaxrw.training import accuracy, step
from jaxrw.training.experiment import create_experiment

ROOT = pathlib.Path(__file__).parents[2]
HELPERS = ROOT / "tests" / "helpers"


def test_checkpoints_of_a_model_share_one_program():
    """What a caller jits over the logits function is traced once for two sets of variables."""
    model = networks.create("resnet18", 3, depth=10, width=1)
    images = jnp.zeros((1, 8, 8, 1))
    init, traced = jax.jit(lambda key: model.init(key, images, train=False)), []
    predict = jax.jit(lambda logits_fn: traced.append(1) or logits_fn(images))
    logits = [predict(step.logits_function(model, init(jax.random.key(seed)))) for seed in (0, 1)]
    assert len(traced) == 1
    assert not np.allclose(*logits)


def run_on(devices, path):
    """Run the program of several_devices.py on so many CPU devices."""
    # Without the other flags of tests: with the older emitters the gradient through EWAT's weights differs by 3e-5.
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": f"{ROOT / 'tests'}:{ROOT}"}
    subprocess.run([sys.executable, HELPERS / "several_devices.py", path], check=True, env=environment)
    with np.load(path) as arrays:
        return dict(arrays)


def test_four_devices_equal_one(tmp_path):
    """Three steps of the paper's methods and of some recipes, each step traced once.

    Sums of 32 examples in another order differ by about 32 * 2^-24 = 2e-6 relative, and three steps of SGD
    with momentum at learning rate 0.02 and BatchNorm pass that on enlarged: 1e-5 leaves room for it. What the
    test is for lies far above: a normaliser or BatchNorm over the local batch, a gradient summed where it
    should be averaged, or keys that know their device move parameters by 1e-3 and more.
    """
    one, four = run_on(1, tmp_path / "one.npz"), run_on(4, tmp_path / "four.npz")
    assert (one.pop("devices"), four.pop("devices")) == (1, 4)
    papers = {name for name, method in methods.METHODS.items() if not method.beyond_paper}
    assert {*papers, "gairat-trades-awp", "mail-extra-ema"} < set(one)
    for method in one:
        np.testing.assert_allclose(four[method], one[method], atol=1e-5, err_msg=method)
    for method in papers - {"standard"}:
        assert np.abs(one[method] - one["standard"]).max() > 1e-4, f"{method} does what standard does"


@pytest.fixture(scope="module")
def experiment():
    return create_experiment(tiny.config())


def test_sums_are_of_the_epoch_so_far(experiment):
    """Two epochs of 4 steps of 16: the state's sums restart with the fifth step."""
    train_step = train.create_step(tiny.config(), experiment)
    state = step.replicate(experiment.create_state())
    images, labels = accuracy.replicated(experiment.dataset.train)
    key, index = step.replicate(experiment.step_key), step.shard(np.arange(16, dtype=np.int32))
    examples, losses = [], []
    for _ in range(5):
        state, sums = train_step(state, key, images, labels, index)
        examples.append(float(state.sums["examples"]))
        losses.append((float(sums["loss"]), float(state.sums["loss"])))
    assert examples == [16, 32, 48, 64, 16]
    np.testing.assert_allclose(losses[3][1], sum(loss for loss, _ in losses[:4]), rtol=1e-6)
    assert losses[4][0] == losses[4][1]
    chex.assert_tree_all_finite(state.params)
    # The warm-up is the first epoch: 4 steps with all weights 1.
    assert float(sums["weight"]) != 16


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "preact_resnet18", "depth": 10, "width": 2, "shortcut": "raw", "last_norm": False},
        {"name": "dm_wrn", "depth": 10, "width": 1},
        {"name": "dm_preact_resnet18", "depth": 10, "width": 2, "activation": "relu"},
        {"name": "resnet50", "depth": 14, "width": 2},
        {"name": "imagenet_resnet50", "depth": 14, "width": 2},
    ],
    ids=lambda fields: fields["name"],
)
def test_every_family_learns(fields):
    """Steps on the same batch lower its loss, and every parameter and statistic moves."""
    config = tiny.config("standard", **{f"model__{name}": value for name, value in fields.items()})
    experiment = create_experiment(config)
    train_step = train.create_step(config, experiment)
    state = first = step.replicate(experiment.create_state())
    before = jax.device_get(first.variables)
    images, labels = accuracy.replicated(experiment.dataset.train)
    key, index = step.replicate(experiment.step_key), step.shard(np.arange(16, dtype=np.int32))
    losses = []
    for _ in range(6):
        state, sums = train_step(state, key, images, labels, index)
        losses.append(float(sums["loss"]))
    assert losses[-1] < losses[0]
    for leaf, moved in zip(jax.tree.leaves(before), jax.tree.leaves(state.variables), strict=True):
        assert not np.array_equal(leaf, moved)


def test_no_example_is_dropped_from_an_accuracy(experiment):
    """30 test images in batches of 16: counted one by one with NumPy."""
    split = experiment.dataset.test
    state = step.replicate(experiment.create_state())
    attacks = {name: suite.create(name, eps=0.1, step_size=0.1) for name in ("clean", "fgsm")}

    def measure(attack, batch_size):
        done = []
        evaluator = accuracy.Evaluator(
            experiment.model, split, jax.random.key(0), attacks, batch_size=batch_size
        )
        measured = evaluator.measure(attack, state.variables, done.append)
        assert sum(done) == len(split.labels)
        return measured

    logits = experiment.model.apply(state.variables, split.images / np.float32(255), train=False)
    expected = np.argmax(logits, 1) == split.labels
    assert 0 < expected.sum() < 30
    clean = measure("clean", 16)
    np.testing.assert_array_equal(clean.correct, expected)
    assert clean.accuracy == pytest.approx(100 * expected.mean())
    fgsm = measure("fgsm", 16)
    for batch_size in (7, 500):
        np.testing.assert_array_equal(measure("fgsm", batch_size).correct, fgsm.correct)


def test_images_are_taken_as_from_an_array():
    images = np.random.RandomState(0).randint(0, 256, (5, 8, 9, 3), np.uint8)
    index = jnp.array([4, 0, 4])
    np.testing.assert_array_equal(
        jax.jit(lambda images: images[index])(step.Images.of(images)), images[index]
    )
