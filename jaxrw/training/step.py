"""One training step and one evaluation step on one device, and how they run on all of them.

This is the only file that calls `pmap`. The state and the data have no device axis: `replicate` places them on
every device once, and only the examples' indices are split. The number of devices changes speed, not numbers.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Protocol

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
from jaxrw.methods.objectives import standard
from jaxrw.methods.weightings import Weighting, batch_weights
from jaxrw.system import hosts
from jaxrw.training.augment import to_pixels
from jaxrw.training.histograms import EDGES, margin_counts, weight_counts

AXIS = "devices"

# Weights below this count as "light": a method that gives most examples such a weight hardly trains.
LIGHT = 0.05

# Shapes of the sums over examples, by name.
SUMS: dict[str, tuple[int, ...]] = dict.fromkeys(("examples", "loss", "correct", "weight", "light"), ()) | {
    name: (len(edges) - 1,) for name, edges in EDGES.items()
}

# What the `apply` of a model takes: its parameters and BatchNorm's statistics.
Variables = dict[str, chex.ArrayTree]

Sums = dict[str, jax.Array]


@flax.struct.dataclass
class State:
    """Everything that training carries from step to step; a pytree."""

    step: jax.Array  # [] int32, steps taken
    params: chex.ArrayTree
    batch_stats: chex.ArrayTree
    opt_state: optax.OptState
    sums: Sums  # of this epoch so far, over all devices; the first step of an epoch resets them

    @property
    def variables(self) -> Variables:
        """The model's variables."""
        return {"params": self.params, "batch_stats": self.batch_stats}


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


class TrainingAttack(Protocol):
    """An attack with all of its settings fixed that also counts GAIRAT's kappa."""

    def __call__(
        self, key: jax.Array, logits_fn: LogitsFn, images: jax.Array, labels: jax.Array, *, index: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Returns adversarial images [B, H, W, C] in [0, 1] and kappa [B] int32; arguments as of `Attack`."""
        ...


def create_optimizer(
    *, learning_rates: Sequence[float], momentum: float, weight_decay: float, steps_per_epoch: int
) -> optax.GradientTransformation:
    """Returns SGD in PyTorch's order: gradient plus weight decay, then momentum, then the learning rate.

    Weight decay acts on all parameters, BatchNorm's and biases included, as in the paper.

    Args:
      learning_rates: positive, one for each epoch; the last one also applies after the last epoch.
      momentum: in [0, 1), without Nesterov.
      weight_decay: at least 0.
      steps_per_epoch: converts steps to epochs.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.trace(momentum),
        optax.scale_by_learning_rate(lambda step: jnp.array(learning_rates)[step // steps_per_epoch]),
    )


def logits_function(model: nn.Module, variables: Variables) -> LogitsFn:
    """Returns the model in evaluation mode as a function of images alone.

    Compiled programs take its variables as arguments, so all checkpoints of a model share one program.
    """
    return jax.tree_util.Partial(_evaluation_mode(model), variables)


@functools.cache
def _evaluation_mode(model: nn.Module) -> functools.partial:
    """Returns the same function for every call with the same model: another one would be compiled again."""
    return functools.partial(model.apply, train=False)


def train_step(
    state: State,
    key: jax.Array,
    images: Images,
    labels: jax.Array,
    index: jax.Array,
    *,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    weighting: Weighting,
    normalized: bool,
    augment: Callable[[jax.Array, jax.Array], jax.Array],
    attack: TrainingAttack,
    warmup_steps: int,
    steps_per_epoch: int,
    grad_through_weights: bool,
) -> tuple[State, Sums]:
    """Takes one step of adversarial training on one device's share of the batch, under the mapped axis `AXIS`.

    Augments; attacks with BatchNorm in evaluation mode; computes loss, weights and statistics in one forward pass
    in training mode; averages the gradients; updates by SGD (Algorithm 1 with its misprints corrected).

    Args:
      state: the same on every device.
      key: PRNG key of the run; every draw is derived from it, the step and the example's index.
      images: the whole training set, uint8.
      labels: [N] int32.
      index: [b] int32 into the training set, this device's share.
      model: Flax module whose BatchNorm averages over `AXIS`.
      optimizer: see `create_optimizer`.
      weighting: computes the weight of one example.
      normalized: whether weights are divided by their mean over the global batch.
      augment: (key, image) -> image.
      attack: the training attack.
      warmup_steps: number of first steps in which all weights are 1.
      steps_per_epoch: the sums are reset after this number of steps.
      grad_through_weights: whether the gradient also flows through the weights of the examples.

    Returns:
      The next state, and the sums over the global batch of this step, shaped as in `SUMS`.
    """
    chex.assert_rank([images.rows, labels, index], [2, 1, 1])
    augment_key, attack_key = jax.random.split(jax.random.fold_in(key, state.step))
    labels = labels[index]
    keys = jax.vmap(jax.random.fold_in, (None, 0))(augment_key, index)
    clean = to_pixels(jax.vmap(augment)(keys, images[index]))
    adversarial, kappa = attack(
        attack_key, logits_function(model, state.variables), clean, labels, index=index
    )

    def objective(params: chex.ArrayTree) -> tuple[jax.Array, tuple[chex.ArrayTree, ...]]:
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, updated = model.apply(variables, adversarial, train=True, mutable=["batch_stats"])
        weights = batch_weights(
            weighting,
            logits,
            labels,
            kappa,
            normalized=normalized,
            active=state.step >= warmup_steps,
            grad_through_weights=grad_through_weights,
            axis_name=AXIS,
        )
        losses = jax.vmap(standard)(logits, labels, weights)
        return losses.mean(), (updated["batch_stats"], logits, losses, weights)

    gradients, (batch_stats, logits, losses, weights) = jax.grad(objective, has_aux=True)(state.params)
    gradients = jax.lax.pmean(gradients, AXIS)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    sums = jax.lax.psum(
        {
            "examples": jnp.float32(len(index)),
            "loss": losses.sum(),
            "correct": jax.vmap(is_correct)(logits, labels).sum(dtype=jnp.float32),
            "weight": weights.sum(),
            "light": (weights < LIGHT).sum(dtype=jnp.float32),
            "margins": margin_counts(jax.vmap(probability_margin)(logits, labels)),
            "weights": weight_counts(weights),
        },
        AXIS,
    )
    first = state.step % steps_per_epoch == 0
    state = State(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
        sums={name: jnp.where(first, 0, state.sums[name]) + sums[name] for name in SUMS},
    )
    return state, sums


def count_correct(
    variables: Variables,
    key: jax.Array,
    images: Images,
    labels: jax.Array,
    index: jax.Array,
    mask: jax.Array,
    *,
    model: nn.Module,
    attack: Attack,
) -> jax.Array:
    """Counts the examples of a batch that are classified correctly under an attack, over all devices; [] int32.

    Args:
      variables: the model's.
      key: PRNG key of the attack.
      images: the whole split, uint8.
      labels: [N] int32.
      index: [b] int32 into the split, this device's share.
      mask: [b] bool, False for the padding of the last batch.
      model: Flax module.
      attack: an attack with all of its settings fixed.
    """
    chex.assert_equal_shape([index, mask])
    _, correct = attack_examples(variables, key, images, labels, index, model=model, attack=attack)
    return jax.lax.psum((correct & mask).sum(dtype=jnp.int32), AXIS)


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

    Args: as of `count_correct`.

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
    array, devices = hosts.local_part(array), jax.local_device_count()
    return array.reshape(devices, len(array) // devices, *array.shape[1:])
