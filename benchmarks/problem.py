"""What is measured: the training step of a shipped config, on random images in place of CIFAR's."""

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxrw import methods, train
from jaxrw.attacks.pgd import KL
from jaxrw.attacks.types import LogitsFn
from jaxrw.data import Dataset, Split
from jaxrw.training import accuracy, step
from jaxrw.training.augment import to_pixels
from jaxrw.training.experiment import Experiment, assemble

NUM_CLASSES = {"cifar10": 10, "cifar100": 100}


def load(name: str, fields: Mapping[str, Any]) -> ConfigDict:
    """Returns the config of `configs/<name>.py` with some fields changed, as in {"model.width": 16}."""
    config = importlib.import_module(f"configs.{name}").get_config()
    config.update_from_flattened_dict(fields)
    return config


def standard_training(width: int, batch: int) -> ConfigDict:
    """Returns the config of standard adversarial training of a ResNet-18 with another width and batch size."""
    fields = {"model.width": width, "optim.batch_size": batch, "method.name": "standard"}
    return load("resnet18_c10", fields)


def create_experiment(config: ConfigDict, *, size: int) -> Experiment:
    """Returns the experiment of a config for CIFAR on `size` random images, for training and for testing."""
    random, num_classes = np.random.RandomState(0), NUM_CLASSES[config.dataset.name]
    images = random.randint(0, 256, (size, 32, 32, 3), np.uint8)
    split = Split(images, random.randint(0, num_classes, size).astype(np.int32))
    return assemble(config, Dataset(split, Split(images[:0], split.labels[:0]), split, num_classes, ()))


def training_step(config: ConfigDict, experiment: Experiment) -> Callable[[], None]:
    """Returns a function that takes the next step of the run and waits for it."""
    train_step = train.create_step(config, experiment)
    images, labels = accuracy.replicated(experiment.dataset.train)
    state, key = step.replicate((experiment.create_state(), experiment.step_key))
    index = step.shard(np.arange(config.optim.batch_size, dtype=np.int32))

    def run() -> None:
        nonlocal state
        state, sums = train_step(state, key, images, labels, index)
        jax.block_until_ready((state, sums))

    return run


def lower_step(
    config: ConfigDict, experiment: Experiment, *, devices: Sequence[jax.Device] | None = None
) -> jax.stages.Lowered:
    """Returns the same step as it goes to the compiler, for the local devices or for `devices`."""
    split, num_devices = experiment.dataset.train, len(devices or jax.local_devices())
    return train.create_step(config, experiment, devices=devices).lower(
        experiment.state_shapes(),
        jax.eval_shape(lambda: experiment.step_key),
        step.Images.of(split.images),
        split.labels,
        jax.ShapeDtypeStruct((num_devices, config.optim.batch_size // num_devices), jnp.int32),
    )


def forward_passes(config: ConfigDict) -> int:
    """Returns what a step costs by theory, in forward passes of the batch.

    A gradient by images or by parameters costs as much as a forward pass. An attack step needs one pass and one
    gradient, and the attack of TRADES one pass of the clean images besides. The loss and its gradients cost three
    passes for the adversarial images and three for the clean ones if it needs them, and AWP computes them twice.
    """
    objective = methods.OBJECTIVES[config.objective.name]
    losses = (3 + 3 * objective.needs_clean_logits) * (1 if config.awp.gamma is None else 2)
    return 2 * config.attack.num_steps + (objective.attack_loss == KL) + losses


@dataclasses.dataclass(frozen=True)
class Problem:
    """Standard adversarial training of a ResNet-18, and one batch for it.

    Attributes:
      config: `configs/resnet18_c10.py` with another width, batch and method.
      experiment: on two batches of random images.
      variables: the model's initial ones.
      images: [B, 32, 32, 3] in [0, 1].
      labels: [B] int32.
    """

    config: ConfigDict
    experiment: Experiment
    variables: step.Variables
    images: jax.Array
    labels: jax.Array

    @property
    def logits_fn(self) -> LogitsFn:
        """The model in evaluation mode."""
        return step.logits_function(self.experiment.model, self.variables)


def create(width: int, batch: int) -> Problem:
    """Creates the problem for a width of the first stage and a batch size."""
    config = standard_training(width, batch)
    experiment = create_experiment(config, size=2 * batch)
    split = experiment.dataset.train
    images, labels = to_pixels(jnp.array(split.images[:batch])), jnp.array(split.labels[:batch])
    return Problem(config, experiment, experiment.create_state().variables, images, labels)
