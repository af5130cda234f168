"""What a config stands for: data, model and optimiser, put together once for training and for evaluation."""

import dataclasses
import math
import os

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxrw import data, networks, settings
from jaxrw.system.errors import UserError
from jaxrw.training import step


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The parts of a run, and the keys that all its randomness is derived from."""

    dataset: data.Dataset
    model: nn.Module
    optimizer: optax.GradientTransformation
    steps_per_epoch: int
    learning_rates: tuple[float, ...]  # of each epoch
    init_key: jax.Array
    order_key: jax.Array
    step_key: jax.Array
    evaluation_key: jax.Array

    @property
    def evaluation_model(self):
        """The model in float32, in which it is validated and evaluated, whatever it trains in."""
        return self.model.clone(dtype=jnp.dtype("float32"))

    def create_state(self):
        """State before the first step."""
        # Compiled: run one by one, the hundred operations of the initialisation take seconds to load. They run once, so
        # optimizing them, which takes the CPU's compiler longer than a training step, saves nothing.
        options = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
        return jax.jit(self._initialize, compiler_options=options)(self.init_key)

    def state_shapes(self):
        """The state as shapes and types: nothing is computed."""
        return jax.eval_shape(self._initialize, self.init_key)

    def _initialize(self, key):
        """State of a key."""
        shape = self.dataset.test.images.shape[1:]
        return step.create_state(key, model=self.model, optimizer=self.optimizer, image_shape=shape)


def create(config):
    """Check the config, load its data, make its parts; raises UserError before anything is written."""
    settings.check(config, num_devices=jax.device_count())
    # The model first: its mistakes cost nothing to find, the data may be a download.
    _create_model(config, num_classes=10)
    dataset = data.load(
        config.dataset.name,
        data_dir=config.dataset.data_dir,
        train_size=config.dataset.train_size,
        validation_size=config.dataset.validation_size,
        test_size=config.dataset.test_size,
        downscale=config.dataset.downscale,
    )
    settings.check_dataset(config, dataset)
    return assemble(config, dataset)


def assemble(config, dataset):
    """The parts of a checked config for a data set that is loaded, or stands for one; raises UserError."""
    model = _create_model(config, num_classes=dataset.num_classes)
    # The last images of an epoch that do not fill a batch wait for the next epoch's order.
    steps_per_epoch = len(dataset.train.labels) // config.optim.batch_size
    learning_rates = tuple(_learning_rate(config.optim, epoch) for epoch in range(config.optim.num_epochs))
    optimizer = step.create_optimizer(
        learning_rates=learning_rates,
        momentum=config.optim.momentum,
        weight_decay=config.optim.weight_decay,
        steps_per_epoch=steps_per_epoch,
    )
    keys = jax.random.split(jax.random.key(config.seed), 4)
    experiment = Experiment(dataset, model, optimizer, steps_per_epoch, learning_rates, *keys)
    try:
        state = experiment.state_shapes()
    except ValueError as error:
        raise UserError(str(error)) from error
    _check_memory(config, state)
    return experiment


def _check_memory(config, state):
    """Refuse a network whose parameters, momentum and gradients, in float32, no device here can hold."""
    number = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))
    needed, there = 3 * 4 * number, _device_memory()
    if there is not None and needed > there:
        raise UserError(
            f"model.width is {config.model.width} and model.depth {config.model.depth}: {number:,} parameters need "
            f"{needed / 2**30:,.1f} GiB with momentum and gradients alone, and a device has {there / 2**30:,.1f}; "
            "choose a smaller network"
        )


def _device_memory():
    """Bytes that one device can hold, or None where nobody tells; a CPU's are the machine's."""
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return (device.memory_stats() or {}).get("bytes_limit")


def epoch_order(key, epoch, size):
    """Order of the training examples in a 0-based epoch: a permutation of 0..size-1, int32, from (key, epoch)."""
    return np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), size), np.int32)


def _learning_rate(optim, epoch):
    """Learning rate of a 0-based epoch: multiplied by `decay` at the start of each milestone."""
    return optim.learning_rate * optim.decay ** sum(epoch >= milestone for milestone in optim.milestones)


def _create_model(config, *, num_classes):
    """The config's model, its mistakes told as a user's."""
    fields = config.model.to_dict()
    try:
        return networks.create(fields.pop("name"), num_classes, axis_name=step.AXIS, **fields)
    except ValueError as error:
        raise UserError(str(error)) from error
