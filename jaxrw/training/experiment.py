"""The experiment that a config describes: data, model and optimizer, for training and for evaluation."""

import dataclasses
import math
import os
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from jaxrw import data, networks, settings
from jaxrw.attacks import suite
from jaxrw.attacks.types import LogitsFn
from jaxrw.system import hosts
from jaxrw.system.errors import UserError
from jaxrw.training import averages, step
from jaxrw.training.optimizer import create_optimizer, create_schedule


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The parts of a run, and the keys that all of its randomness is derived from.

    Attributes:
      dataset: its images.
      model: the network, in the type that it trains in.
      optimizer: SGD with the learning rate of each step.
      num_epochs: of the whole run.
      steps_per_epoch: full batches of the training images.
      learning_rate: positive, by the number of steps done.
      average: of the variables over steps; None: there is none.
      init_key: of the first parameters.
      order_key: of the order of the images in each epoch.
      step_key: of augmentation and the training attack.
      evaluation_key: of all attacks on validation and test images.
    """

    dataset: data.Dataset
    model: networks.Network
    optimizer: optax.GradientTransformation
    num_epochs: int
    steps_per_epoch: int
    learning_rate: optax.Schedule
    average: averages.Average | None
    init_key: jax.Array
    order_key: jax.Array
    step_key: jax.Array
    evaluation_key: jax.Array

    @property
    def evaluation_model(self) -> networks.Network:
        """The model in float32 for validation and evaluation, even if it trains in bfloat16."""
        return self.model.clone(dtype=jnp.dtype("float32"))

    def surrogate(self, name: str, variables: step.Variables) -> LogitsFn | None:
        """Returns what AutoAttack asks in place of the evaluation model, see `suite.SURROGATES`."""
        if name == "none":
            return None
        if name == "bfloat16":
            return step.logits_function(self.model.clone(dtype=jnp.dtype(name)), variables)
        return step.logits_function(self.evaluation_model, variables, precision=name)

    def create_state(self) -> step.State:
        """Returns the state before the first step."""
        # Compiled, because a hundred operations take seconds to load one by one. They run once, so the CPU's compiler
        # need not optimize them, which would take it longer than a training step.
        options = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
        return jax.jit(self._initialize, compiler_options=options)(self.init_key)

    def state_shapes(self) -> step.State:
        """Returns the shapes and types of the state without computing it."""
        return jax.eval_shape(self._initialize, self.init_key)

    def _initialize(self, key: jax.Array) -> step.State:
        image = jnp.zeros((1, *self.dataset.test.images.shape[1:]))
        variables = self.model.init(key, image, train=False)
        return step.State(
            step=jnp.zeros((), jnp.int32),
            params=variables["params"],
            batch_stats=variables["batch_stats"],
            opt_state=self.optimizer.init(variables["params"]),
            sums={name: jnp.zeros(shape) for name, shape in step.SUMS.items()},
            average=None if self.average is None else jax.tree.map(jnp.copy, variables),
        )


def create_experiment(config: ConfigDict) -> Experiment:
    """Checks a config, loads its data and creates its experiment.

    Raises:
      UserError: a field or the data is not usable; nothing has been written.
    """
    settings.check(config, num_devices=jax.device_count())
    for doubt in settings.doubts(config) if hosts.is_first() else ():
        print(f"warning: {doubt}", file=sys.stderr)
    # First, because mistakes of the model cost nothing to find and the data may be a download.
    _create_model(config, num_classes=10)
    dataset = data.load(
        config.dataset.name,
        data_dir=config.dataset.data_dir,
        train_size=config.dataset.train_size,
        validation_size=config.dataset.validation_size,
        validation_share=config.dataset.validation_share,
        test_size=config.dataset.test_size,
        test_split=config.dataset.test_split,
        downscale=config.dataset.downscale,
    )
    settings.check_dataset(config, dataset)
    # Files that do not fit are better found before hours of training and attacks.
    if suite.CORRUPTIONS in config.evaluation.attacks:
        load_corruptions(config, dataset)
    if config.evaluation.save_adversarial and jax.process_count() > 1:
        raise UserError(
            f"evaluation.save_adversarial is True on {jax.process_count()} hosts; must be False there: "
            "evaluate the run again on one"
        )
    return assemble(config, dataset)


def load_corruptions(config: ConfigDict, dataset: data.Dataset) -> Iterator[tuple[str, data.Split]]:
    """Checks the files of `evaluation.corruptions_dir`, and returns an iterator over each corruption's name and images.

    Raises:
      UserError: a file is missing, or does not fit the test images.
    """
    return data.load_corruptions(
        config.evaluation.corruptions_dir,
        shape=dataset.test.images.shape[1:],
        num_classes=dataset.num_classes,
        size=config.dataset.test_size,
        downscale=config.dataset.downscale,
    )


def assemble(config: ConfigDict, dataset: data.Dataset) -> Experiment:
    """Creates the experiment of a checked config on a data set; raises UserError as `create_experiment`."""
    model = _create_model(config, num_classes=dataset.num_classes)
    # Images that do not fill the last batch of an epoch are left out; the next epoch has another order.
    steps_per_epoch = len(dataset.train.labels) // config.optim.batch_size
    optim = config.optim
    if (
        optim.schedule == "cosine"
        and round(optim.rise_epochs * steps_per_epoch) >= optim.num_epochs * steps_per_epoch
    ):
        raise UserError(
            f"optim.rise_epochs is {optim.rise_epochs}; must be at least a step below optim.num_epochs, which is "
            f"{optim.num_epochs}, with {steps_per_epoch} steps an epoch"
        )
    learning_rate = create_schedule(
        optim.schedule,
        learning_rate=optim.learning_rate,
        num_epochs=optim.num_epochs,
        steps_per_epoch=steps_per_epoch,
        milestones=optim.milestones,
        decay=optim.decay,
        rise_epochs=optim.rise_epochs,
        peak=optim.peak,
    )
    optimizer = create_optimizer(
        learning_rate,
        momentum=optim.momentum,
        weight_decay=optim.weight_decay,
        nesterov=optim.nesterov,
        decay_all=optim.decay_all,
        clip_norm=optim.clip_norm,
    )
    average = averages.create(**config.average, steps_per_epoch=steps_per_epoch)
    init_key, order_key, step_key, evaluation_key = jax.random.split(jax.random.key(config.seed), 4)
    experiment = Experiment(
        dataset=dataset,
        model=model,
        optimizer=optimizer,
        num_epochs=optim.num_epochs,
        steps_per_epoch=steps_per_epoch,
        learning_rate=learning_rate,
        average=average,
        init_key=init_key,
        order_key=order_key,
        step_key=step_key,
        evaluation_key=evaluation_key,
    )
    try:
        state = experiment.state_shapes()
    except ValueError as error:
        raise UserError(str(error)) from error
    num_parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))
    _check_memory(
        num_parameters, copies=3 if average is None else 4, width=config.model.width, depth=config.model.depth
    )
    return experiment


def _check_memory(num_parameters: int, *, copies: int, width: int | None, depth: int | None) -> None:
    """Raises UserError if float32 parameters, momentum, gradients and average do not fit into a device's memory."""
    needed, available = copies * 4 * num_parameters, _device_memory()
    if available is not None and needed > available:
        raise UserError(
            f"model.width is {width} and model.depth {depth}: {num_parameters:,} parameters need "
            f"{needed / 2**30:,.1f} GiB with momentum and gradients alone, and a device has {available / 2**30:,.1f}; "
            "choose a smaller network"
        )


def _device_memory() -> int | None:
    """Returns the bytes of memory of one device, for a CPU those of the machine; None if unknown."""
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return (device.memory_stats() or {}).get("bytes_limit")


def _create_model(config: ConfigDict, *, num_classes: int) -> networks.Network:
    """Creates the config's model; raises UserError for fields that no model can have."""
    fields = config.model.to_dict()
    try:
        return networks.create(fields.pop("name"), num_classes, axis_name=step.AXIS, **fields)
    except ValueError as error:
        raise UserError(str(error)) from error
