"""One training step and one evaluation step on one device, and how they run on all of them.

This is the only file that calls `pmap`. The state and the data have no device axis: `replicate` places them on
every device once, and only the examples' indices are split. The number of devices changes speed, not numbers.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import chex
import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrw.attacks.types import Attack, LogitsFn
from jaxrw.methods.margins import is_correct, probability_margin
from jaxrw.methods.objectives import Loss
from jaxrw.methods.weightings import Weighting, batch_weights
from jaxrw.networks import Network
from jaxrw.system import hosts
from jaxrw.training.augment import to_pixels
from jaxrw.training.averages import Average, Variables, add_statistics
from jaxrw.training.histograms import EDGES, margin_counts, weight_counts
from jaxrw.training.optimizer import perturb_weights

AXIS = "devices"

# Weights below this count as "light": a method that gives most examples such a weight hardly trains.
LIGHT = 0.05

# Shapes of the sums over examples, by name.
SUMS: dict[str, tuple[int, ...]] = dict.fromkeys(("examples", "loss", "correct", "weight", "light"), ()) | {
    name: (len(edges) - 1,) for name, edges in EDGES.items()
}

Sums = dict[str, jax.Array]


@flax.struct.dataclass
class State:
    """Everything that training carries from step to step; a pytree."""

    step: jax.Array  # [] int32, steps taken
    params: chex.ArrayTree
    batch_stats: chex.ArrayTree
    opt_state: optax.OptState
    sums: Sums  # of this epoch so far, over all devices; the first step of an epoch resets them
    average: Variables | None = None  # of the variables over steps, if the config asks for one

    @property
    def variables(self) -> Variables:
        """The model's variables, which the next step trains."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def evaluated(self) -> Variables:
        """The variables that are validated, evaluated and exported: the average if there is one."""
        return self.variables if self.average is None else self.average


@flax.struct.dataclass
class Images:
    """Images of a split, stored as rows [N, H W C]; `images[index]` returns [b, H, W, C].

    A TPU lays [N, H, W, C] out with N innermost and would copy the whole set to take a batch, at every step.
    """

    rows: jax.Array | np.ndarray
    shape: tuple[int, int, int] = flax.struct.field(pytree_node=False)  # (H, W, C)

    @classmethod
    def of(cls, images: np.ndarray) -> "Images":
        """Returns the images of an array [N, H, W, C]."""
        return cls(images.reshape(len(images), -1), images.shape[1:])

    def __getitem__(self, index: jax.Array) -> jax.Array:
        return self.rows[index].reshape(*index.shape, *self.shape)


@flax.struct.dataclass
class Extra:
    """Further images of a batch, which do not lie on the devices; a pytree.

    Attributes:
      images: [b, H, W, C] uint8.
      labels: [b] int32.
      index: [b] int32 that tell them from each other and from the images of the training set. An image that was drawn
        twice has one number, and so one crop and one start of the attack.
    """

    images: jax.Array | np.ndarray | None
    labels: jax.Array | np.ndarray | None
    index: jax.Array | np.ndarray | None


class TrainingAttack(Protocol):
    """An attack with all of its settings fixed that also counts GAIRAT's kappa."""

    def __call__(
        self, key: jax.Array, logits_fn: LogitsFn, images: jax.Array, labels: jax.Array, *, index: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Returns adversarial images [B, H, W, C] in [0, 1] and kappa [B] int32; arguments as of `Attack`."""
        ...


def logits_function(model: nn.Module, variables: Variables, *, precision: str | None = None) -> LogitsFn:
    """Returns the model in evaluation mode as a function of images alone.

    Compiled programs take its variables as arguments, so all checkpoints of a model share one program. `precision` is
    that of its products, as `jax.default_matmul_precision` takes it; None: that of the caller.
    """
    return jax.tree_util.Partial(_evaluation_mode(model, precision), variables)


@functools.cache
def _evaluation_mode(model: nn.Module, precision: str | None) -> Callable[..., Any]:
    """Returns the same function for every call with the same arguments: another one would be compiled again."""
    if precision is None:
        return functools.partial(model.apply, train=False)

    def evaluate(variables: Variables, images: jax.Array) -> Any:
        with jax.default_matmul_precision(precision):
            return model.apply(variables, images, train=False)

    return evaluate


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a training step does, with all of its settings.

    Attributes:
      model: Flax module whose BatchNorm averages over `AXIS`.
      optimizer: see `create_optimizer`.
      loss: of one example.
      needs_clean_logits: whether the loss depends on the logits of the clean images; otherwise it gets None.
      clean_statistics: whether the clean images count in BatchNorm's running statistics.
      weighting: computes the weight of one example.
      normalized: whether weights are divided by their mean over the global batch.
      augment: (key, image) -> image.
      attack: the training attack.
      warmup_steps: number of first steps in which all weights are 1.
      steps_per_epoch: the sums are reset after this number of steps.
      grad_through_weights: whether the gradient also flows through the weights of the examples.
      awp_gamma: see `perturb_weights`; None: no AWP.
      awp_start: number of first steps without AWP.
      average: how `State.average` follows the variables; None: there is none.
    """

    model: nn.Module
    optimizer: optax.GradientTransformation
    loss: Loss
    needs_clean_logits: bool
    clean_statistics: bool
    weighting: Weighting
    normalized: bool
    augment: Callable[[jax.Array, jax.Array], jax.Array]
    attack: TrainingAttack
    warmup_steps: int
    steps_per_epoch: int
    grad_through_weights: bool
    awp_gamma: float | None
    awp_start: int
    average: Average | None


def train_step(
    state: State,
    key: jax.Array,
    images: Images,
    labels: jax.Array,
    index: jax.Array,
    extra: Extra | None = None,
    *,
    recipe: Recipe,
) -> tuple[State, Sums]:
    """Takes one step of adversarial training on one device's share of the batch, under the mapped axis `AXIS`.

    Augments; attacks with BatchNorm in evaluation mode; computes loss, weights and statistics in one forward pass
    in training mode, and before it one of the clean images if the loss needs their logits; averages the gradients;
    updates by SGD (Algorithm 1 with its misprints corrected). With AWP all but the attack is computed at perturbed
    weights, whose perturbation costs another gradient.

    Args:
      state: the same on every device.
      key: PRNG key of the run; every draw is derived from it, the step and the example's index.
      images: the whole training set, uint8.
      labels: [N] int32.
      index: [b] int32 into the training set, this device's share.
      extra: this device's share of further images; None: there are none.
      recipe: what the step does.

    Returns:
      The next state, and the sums over the global batch of this step, shaped as in `SUMS`.
    """
    chex.assert_rank([images.rows, labels, index], [2, 1, 1])
    augment_key, attack_key = jax.random.split(jax.random.fold_in(key, state.step))
    more = extra or Extra(None, None, None)
    own, index = index, _join(index, more.index)
    labels = _join(labels[own], more.labels)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(augment_key, index)
    clean = to_pixels(jax.vmap(recipe.augment)(keys, _join(images[own], more.images)))
    adversarial, kappa = recipe.attack(
        attack_key, logits_function(recipe.model, state.variables), clean, labels, index=index
    )
    batch = _Batch(clean, adversarial, labels, kappa)
    objective = functools.partial(_weighted_loss, state=state, batch=batch, recipe=recipe)
    params = _perturbed(objective, state, recipe)
    gradients, computed = jax.grad(objective, has_aux=True)(params)
    gradients = jax.lax.pmean(gradients, AXIS)
    updates, opt_state = recipe.optimizer.update(gradients, state.opt_state, params)
    sums = jax.lax.psum(_sums(computed, labels), AXIS)
    first = state.step % recipe.steps_per_epoch == 0
    following = State(
        step=state.step + 1,
        # The update at perturbed weights is added to the unperturbed ones: the authors' step and their way back in one.
        params=optax.apply_updates(state.params, updates),
        batch_stats=computed.batch_stats,
        opt_state=opt_state,
        sums={name: jnp.where(first, 0, state.sums[name]) + sums[name] for name in SUMS},
    )
    if recipe.average is not None and state.average is not None:
        average = recipe.average(state.average, following.variables, state.step)
        following = dataclasses.replace(following, average=average)
    return following, sums


class _Batch(NamedTuple):
    """One device's share of a batch after the attack."""

    clean: jax.Array  # [b, H, W, C] in [0, 1]
    adversarial: jax.Array  # [b, H, W, C] in [0, 1]
    labels: jax.Array  # [b] int32
    kappa: jax.Array  # [b] int32


class _Computed(NamedTuple):
    """What the loss is made of."""

    batch_stats: chex.ArrayTree  # BatchNorm's running statistics after this step
    logits: jax.Array  # [b, K] of the adversarial images
    losses: jax.Array  # [b], weighted
    weights: jax.Array  # [b]


def _weighted_loss(
    params: chex.ArrayTree, *, state: State, batch: _Batch, recipe: Recipe
) -> tuple[jax.Array, _Computed]:
    """Computes the mean of the weighted losses of this device's examples, in training mode."""
    model, batch_stats, clean_logits = recipe.model, state.batch_stats, None
    if recipe.needs_clean_logits:
        variables = {"params": params, "batch_stats": batch_stats}
        clean_logits, updated = model.apply(variables, batch.clean, train=True, mutable=["batch_stats"])
        batch_stats = updated["batch_stats"] if recipe.clean_statistics else batch_stats
    variables = {"params": params, "batch_stats": batch_stats}
    logits, updated = model.apply(variables, batch.adversarial, train=True, mutable=["batch_stats"])
    weights = batch_weights(
        recipe.weighting,
        logits,
        batch.labels,
        batch.kappa,
        normalized=recipe.normalized,
        active=state.step >= recipe.warmup_steps,
        grad_through_weights=recipe.grad_through_weights,
        axis_name=AXIS,
    )
    losses = jax.vmap(recipe.loss)(clean_logits, logits, batch.labels, weights)
    return losses.mean(), _Computed(updated["batch_stats"], logits, losses, weights)


def _perturbed(
    objective: Callable[[chex.ArrayTree], tuple[jax.Array, _Computed]], state: State, recipe: Recipe
) -> chex.ArrayTree:
    """Returns the parameters at which the gradient is taken: AWP's, or the state's own."""
    gamma = recipe.awp_gamma
    if gamma is None:
        return state.params

    def ascend(params: chex.ArrayTree) -> chex.ArrayTree:
        gradients, _ = jax.grad(objective, has_aux=True)(params)
        return perturb_weights(params, jax.lax.pmean(gradients, AXIS), gamma=gamma)

    if recipe.awp_start == 0:
        return ascend(state.params)
    return jax.lax.cond(state.step >= recipe.awp_start, ascend, lambda unchanged: unchanged, state.params)


def _sums(computed: _Computed, labels: jax.Array) -> Sums:
    """Sums what is logged over this device's examples, shaped as in `SUMS`."""
    weights, logits = computed.weights, computed.logits
    return {
        "examples": jnp.float32(len(labels)),
        "loss": computed.losses.sum(),
        "correct": jax.vmap(is_correct)(logits, labels).sum(dtype=jnp.float32),
        "weight": weights.sum(),
        "light": (weights < LIGHT).sum(dtype=jnp.float32),
        "margins": margin_counts(jax.vmap(probability_margin)(logits, labels)),
        "weights": weight_counts(weights),
    }


def _join(own: jax.Array, extra: jax.Array | np.ndarray | None) -> jax.Array:
    return own if extra is None else jnp.concatenate([own, extra])


def batch_statistics(
    statistics: chex.ArrayTree,
    params: chex.ArrayTree,
    images: Images,
    number: jax.Array,
    index: jax.Array,
    *,
    model: Network,
) -> chex.ArrayTree:
    """Adds this device's share of a batch to the mean of BatchNorm's statistics, see `averages.add_statistics`."""
    return add_statistics(statistics, params, to_pixels(images[index]), number, model=model)


def find_correct(
    variables: Variables,
    key: jax.Array,
    images: Images,
    labels: jax.Array,
    index: jax.Array,
    *,
    model: nn.Module,
    attack: Attack,
) -> jax.Array:
    """Returns the places in the split of the examples of a batch that are classified correctly under an attack.

    Args:
      variables: the model's.
      key: PRNG key of the attack.
      images: the whole split, uint8.
      labels: [N] int32.
      index: [b] int32 into the split, this device's share.
      model: Flax module.
      attack: an attack with all of its settings fixed.

    Returns:
      [B] int32 over all devices: the index of an example, or -1 for one that is misclassified.
    """
    _, correct = attack_examples(variables, key, images, labels, index, model=model, attack=attack)
    return jax.lax.all_gather(jnp.where(correct, index, -1), AXIS, tiled=True)


def attack_examples(
    variables: Variables,
    key: jax.Array,
    images: Images,
    labels: jax.Array,
    index: jax.Array,
    *,
    model: nn.Module,
    attack: Attack,
) -> tuple[jax.Array, jax.Array]:
    """Attacks this device's examples.

    Args: as of `find_correct`.

    Returns:
      [b, H, W, C] adversarial images in [0, 1], and [b] bool whether each is still classified correctly.
    """
    chex.assert_rank([images.rows, labels, index], [2, 1, 1])
    logits_fn = logits_function(model, variables)
    labels = labels[index]
    adversarial = attack(key, logits_fn, to_pixels(images[index]), labels, index)
    return adversarial, jax.vmap(is_correct)(logits_fn(adversarial), labels)


@jax.jit
def is_finite(tree: chex.ArrayTree) -> jax.Array:
    """Returns whether every number in a tree of arrays is finite; [] bool."""
    return jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def on_all_devices(
    step: Callable[..., chex.ArrayTree],
    *,
    num_split: int,
    split_outputs: bool = False,
    donate_state: bool = False,
    devices: Sequence[jax.Device] | None = None,
) -> jax.stages.Wrapped:
    """Maps a step over the local devices.

    Args:
      step: a function of four arguments that all devices share, and of `num_split` more.
      num_split: number of last arguments that are split over the devices, [D, b].
      split_outputs: whether outputs differ between the devices, [D, b, ...]; False: they are the same on all.
      donate_state: whether the result reuses the buffers of the first argument, which is invalid afterwards.
      devices: in place of the local ones; may be those of a topology to compile for without having it.
    """
    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None,) * 4 + (0,) * num_split,
        out_axes=0 if split_outputs else None,
        devices=devices,
        donate_argnums=(0,) if donate_state else (),
    )


def replicate(tree: chex.ArrayTree) -> chex.ArrayTree:
    """Places arrays on every local device, without a device axis: a mapped step then compiles once."""
    return jax.device_put(tree, _on_local_devices())


def replicated_shapes(shapes: chex.ArrayTree) -> chex.ArrayTree:
    """Adds the sharding of `replicate` to shapes and types of arrays, as a template to restore arrays by."""
    sharding = _on_local_devices()
    return jax.tree.map(lambda leaf: leaf.update(sharding=sharding), shapes)


def _on_local_devices() -> NamedSharding:
    return NamedSharding(Mesh(np.array(jax.local_devices()), (AXIS,)), PartitionSpec())


def shard(array: np.ndarray) -> np.ndarray:
    """Returns this host's part of an array [B, ...] that every host has, split over its D devices: [D, b, ...]."""
    return over_devices(hosts.local_part(array))


def over_devices(array: np.ndarray) -> np.ndarray:
    """Returns this host's part of a batch [b, ...] split over its D devices: [D, b / D, ...]."""
    devices = jax.local_device_count()
    return array.reshape(devices, len(array) // devices, *array.shape[1:])
