"""What is timed: the shipped step of ResNet-18 in float32 on random images, and a peer that computes the same."""

import jax
import jax.numpy as jnp
import numpy as np

from configs import resnet18_c10
from jaxrw import train
from jaxrw.attacks.pgd import pgd
from jaxrw.data import Dataset, Split
from jaxrw.training import accuracy, experiment, step
from jaxrw.training.augment import to_pixels

ATTACK = {"eps": 8 / 255, "step_size": 2 / 255, "num_steps": 10}
LAYOUTS = {"channels first": False, "channels last": True}


def config_of(width, batch, **attack):
    """Config of standard adversarial training; `attack`: fields of that section."""
    config = resnet18_c10.get_config()
    config.model.width, config.optim.batch_size, config.method.name = width, batch, "standard"
    config.attack.update(attack)
    return config


def stand_in(size, num_classes=10):
    """A data set of so many random images in each split, in CIFAR's shape."""
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (size, 32, 32, 3), np.uint8)
    split = Split(images, random.randint(0, num_classes, size).astype(np.int32))
    return Dataset(split, Split(images[:0], split.labels[:0]), split, num_classes, ())


def create(config):
    """Experiment on a stand-in of two batches, its first variables, and a batch of images in [0, 1] and labels."""
    batch = config.optim.batch_size
    parts = experiment.assemble(config, stand_in(2 * batch))
    variables = parts.create_state().variables
    split = parts.dataset.train
    return parts, variables, to_pixels(jnp.array(split.images[:batch])), jnp.array(split.labels[:batch])


def training_step(config, parts):
    """Function that takes one training step from where the last one ended, and waits for it."""
    train_step, carry, *rest = _step_and_arguments(config, parts)

    def run():
        nonlocal carry
        carry, sums = train_step(carry, *rest)
        jax.block_until_ready((carry, sums))

    return run


def compiled_step(config, parts):
    """The same step as a compiled program that is not run."""
    train_step, *arguments = _step_and_arguments(config, parts)
    return train_step.lower(*arguments).compile()


def _step_and_arguments(config, parts):
    """The shipped step, and a state, key, images, labels and indices for it."""
    images, labels = accuracy.replicated(parts.dataset.train)
    index = step.shard(np.arange(config.optim.batch_size, dtype=np.int32))
    state, key = step.replicate((parts.create_state(), parts.step_key))
    return train.create_step(config, parts), state, key, images, labels, index


def networks(parts, variables, images, labels, *, width):
    """{layout: (network, images, labels)} in PyTorch, after a check that they compute what jaxrw computes."""
    import torch

    from benchmarks import pytorch

    target = torch.from_numpy(np.array(labels)).long()
    found = {}
    for name, channels_last in LAYOUTS.items():
        network = pytorch.load(jax.device_get(variables), width, channels_last=channels_last)
        pixels = pytorch.to_torch(images, channels_last=channels_last)
        found[name] = network, pixels, target
        check_same(*found[name], step.logits_function(parts.model, variables), images, labels)
    return found


def check_same(network, pixels, target, logits_fn, images, labels):
    """Raise AssertionError where PyTorch's logits, or its attack of two steps, are not jaxrw's."""
    from benchmarks import pytorch

    network.eval()
    np.testing.assert_allclose(
        network(pixels).detach().numpy(), jax.jit(lambda f, x: f(x))(logits_fn, images), atol=1e-4
    )
    attack = ATTACK | {"num_steps": 2}
    theirs = pytorch.pgd(network, pixels, target, **attack, start=False)
    ours = pgd(jax.random.key(0), logits_fn, images, labels, **attack, start="none")
    differing = np.abs(theirs.permute(0, 2, 3, 1).numpy() - ours) > 1e-6
    # The sign of a gradient near 0 is decided by rounding.
    assert differing.mean() < 0.01, f"the attacks differ in {differing.mean():.1%} of the pixels"
