"""One training step and one evaluation step on one device, and how they run on all of them.

This is the only file that calls `pmap`. The state and the data have no device axis: they are placed once on
all devices by `replicate`, and only the examples' indices are split. Sharding changes speed, not numbers.
"""

import functools

import chex
import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrw.methods.margins import is_correct, probability_margin
from jaxrw.methods.objectives import standard
from jaxrw.methods.weightings import batch_weights
from jaxrw.system import hosts
from jaxrw.training.augment import to_pixels
from jaxrw.training.histograms import EDGES, margin_counts, weight_counts

AXIS = "devices"

# Weights below this count as "light": a method that gives most examples such a weight hardly trains.
LIGHT = 0.05

# Sums over examples, by name, with the shape of each.
SUMS = dict.fromkeys(("examples", "loss", "correct", "weight", "light"), ()) | {
    name: (len(edges) - 1,) for name, edges in EDGES.items()
}


@flax.struct.dataclass
class State:
    """All that training carries from step to step; a pytree."""

    step: chex.Array  # [] int32, steps taken
    params: chex.ArrayTree
    batch_stats: chex.ArrayTree
    opt_state: optax.OptState
    sums: dict[str, chex.Array]  # of this epoch so far, over all devices; reset by an epoch's first step

    @property
    def variables(self):
        """What the model's `apply` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


@flax.struct.dataclass
class Images:
    """Images of a split as rows [N, H W C], of which `images[index]` takes some as [b, H, W, C].

    A TPU lays [N, H, W, C] out with N innermost: to take a batch it would first copy the whole set, at every step.
    """

    rows: chex.Array
    shape: tuple[int, int, int] = flax.struct.field(pytree_node=False)  # (H, W, C)

    @classmethod
    def of(cls, images):
        """The images [N, H, W, C] of an array."""
        return cls(images.reshape(len(images), -1), images.shape[1:])

    def __getitem__(self, index):
        return self.rows[index].reshape(*index.shape, *self.shape)


def create_optimizer(*, learning_rates, momentum, weight_decay, steps_per_epoch):
    """SGD in PyTorch's order: gradient plus weight decay, then momentum, then the learning rate.

    Weight decay acts on all parameters, BatchNorm's and biases too, as the paper's settings do.

    Args:
      learning_rates: positive, one for each epoch; the last one holds after them.
      momentum: in [0, 1), without Nesterov.
      weight_decay: at least 0.
      steps_per_epoch: to turn steps into epochs.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.trace(momentum),
        optax.scale_by_learning_rate(lambda step: jnp.array(learning_rates)[step // steps_per_epoch]),
    )


def create_state(key, *, model, optimizer, image_shape):
    """State before the first step; `image_shape` is (H, W, C)."""
    variables = model.init(key, jnp.zeros((1, *image_shape)), train=False)
    return State(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(variables["params"]),
        sums={name: jnp.zeros(shape) for name, shape in SUMS.items()},
    )


def logits_function(model, variables):
    """The model in evaluation mode as a function of images alone.

    Compiled programs take its variables as arguments, so all checkpoints of a model share one program.
    """
    return jax.tree_util.Partial(_evaluation_mode(model), variables)


@functools.cache
def _evaluation_mode(model):
    """One and the same function for every call with the same model: another would be compiled again."""
    return functools.partial(model.apply, train=False)


def train_step(
    state,
    key,
    images,
    labels,
    index,
    *,
    model,
    optimizer,
    weighting,
    normalized,
    augment,
    attack,
    warmup_steps,
    steps_per_epoch,
    grad_through_weights,
):
    """One step of adversarial training on one device's share of the batch, under the mapped axis `AXIS`.

    Augment, attack with BatchNorm in evaluation mode, one training forward that gives loss, weights and
    statistics, mean of the gradients, SGD (Algorithm 1 without its slips).

    Args:
      state: `State`, the same on every device.
      key: PRNG key of the run; every draw is derived from it, the step and the example's index.
      images: `Images` of the whole training set, uint8.
      labels: [N] int32.
      index: [b] int32 into the training set, this device's share.
      model: Flax module whose BatchNorm averages over `AXIS`.
      optimizer: optax transformation.
      weighting: `jaxrw.methods.Weighting`.
      normalized: whether weights are divided by their mean over the global batch.
      augment: (key, image) -> image.
      attack: (key, logits_fn, images, labels, index) -> adversarial images and kappa.
      warmup_steps: steps with all weights 1.
      steps_per_epoch: after so many steps the sums begin anew.
      grad_through_weights: whether weights are differentiated.

    Returns:
      The next state, and a dict of sums over the global batch of this step, shaped as `SUMS` says.
    """
    chex.assert_rank([images.rows, labels, index], [2, 1, 1])
    augment_key, attack_key = jax.random.split(jax.random.fold_in(key, state.step))
    labels = labels[index]
    keys = jax.vmap(jax.random.fold_in, (None, 0))(augment_key, index)
    clean = to_pixels(jax.vmap(augment)(keys, images[index]))
    adversarial, kappa = attack(
        attack_key, logits_function(model, state.variables), clean, labels, index=index
    )

    def objective(params):
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


def count_correct(variables, key, images, labels, index, mask, *, model, attack):
    """Number of this batch's examples still correct under the attack, over all devices; [] int32.

    Args:
      variables: the model's.
      key: PRNG key of the attack.
      images: `Images` of the whole split, uint8.
      labels: [N] int32.
      index: [b] int32 into the split, this device's share.
      mask: [b] bool, False for the padding of the last batch.
      model: Flax module.
      attack: (key, logits_fn, images, labels, index) -> adversarial images.
    """
    chex.assert_equal_shape([index, mask])
    _, correct = attack_examples(variables, key, images, labels, index, model=model, attack=attack)
    return jax.lax.psum((correct & mask).sum(dtype=jnp.int32), AXIS)


@jax.jit
def is_finite(tree):
    """Whether no number in a tree of arrays is NaN or infinite; [] bool."""
    return jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def attack_examples(variables, key, images, labels, index, *, model, attack):
    """Adversarial images of this device's examples, and whether each is still correct: [b, H, W, C], [b] bool.

    Arguments as of `count_correct`.
    """
    chex.assert_rank([images.rows, labels, index], [2, 1, 1])
    logits_fn = logits_function(model, variables)
    labels = labels[index]
    adversarial = attack(key, logits_fn, to_pixels(images[index]), labels, index)
    return adversarial, jax.vmap(is_correct)(logits_fn(adversarial), labels)


def on_all_devices(step, *, num_split, split_outputs=False, donate_state=False, devices=None):
    """Map a step over the local devices: its last `num_split` arguments are [D, b], the first four are shared.

    What it returns is the same on every device; with `split_outputs` it is each one's own, [D, b, ...].
    With `donate_state` the buffers of the first argument are gone after the call: the result takes their place.
    With `devices`, over those, which may also be a topology's to compile for without having it.
    """
    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None,) * 4 + (0,) * num_split,
        out_axes=0 if split_outputs else None,
        devices=devices,
        donate_argnums=(0,) if donate_state else (),
    )


def replicate(tree):
    """Put arrays on every local device, without a device axis; so placed, a mapped step compiles once."""
    return jax.device_put(tree, _on_local_devices())


def replicated_shapes(shapes):
    """Shapes and types of arrays, with the place that `replicate` gives them: a template to restore them by."""
    sharding = _on_local_devices()
    return jax.tree.map(lambda leaf: leaf.update(sharding=sharding), shapes)


def _on_local_devices():
    """Every local device has the whole array."""
    return NamedSharding(Mesh(np.array(jax.local_devices()), (AXIS,)), PartitionSpec())


def shard(array):
    """Part of an array [B, ...], which every host has, for this one's D devices: [D, B / hosts / D, ...]."""
    array, devices = hosts.share(array), jax.local_device_count()
    return array.reshape(devices, len(array) // devices, *array.shape[1:])
