r"""A step of APGD inside `autoattack` against the same step jitted alone, on the networks of other people.

    python -m benchmarks.attack_step [--batch 128] [--size 32] [--width 16] [--steps 5] [--repeats 5]

`autoattack` takes several steps in one program, in a loop, then looks at the examples; XLA on a CPU is slow at
convolutions in loops, so `autoattack` rewrites them. The peer is one step as a user's own `jax.jit` compiles it, with
the network as it was written. Seconds are of one step, the look included.
"""

import collections
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from jaxrw import networks
from jaxrw.attacks.apgd import Apgd
from jaxrw.attacks.autoattack.problem import Placement, Problem
from jaxrw.attacks.autoattack.slots import Slots
from jaxrw.attacks.batch import Batch
from jaxrw.attacks.types import LogitsFn
from jaxrw.training.step import logits_function

# So small and so long that no example is ever fooled or finished: every step is a whole one.
_EPS = 1e-6
_ATTACK = Apgd(num_steps=10_000)


class Plain(nn.Module):
    """Four convolutions by `flax.linen.Conv`, as a tutorial has them."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Returns logits [B, 10]; the same in training."""
        x = images
        for features, stride in ((32, 1), (64, 2), (64, 1), (128, 2)):
            x = nn.relu(nn.Conv(features, (3, 3), strides=stride)(x))
        return nn.Dense(10)(x.mean((1, 2)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table of both networks."""
    flags = timing.parse(__doc__, arguments, batch=128, size=32, width=16, steps=5, repeats=5)
    images = (
        np.random.RandomState(0).uniform(size=(flags.batch, flags.size, flags.size, 3)).astype(np.float32)
    )
    rows = []
    resnet = networks.create("resnet18", num_classes=10, width=flags.width)
    for name, network in (("four flax.linen.Conv", Plain()), (f"ResNet-18 of width {flags.width}", resnet)):
        variables = network.init(jax.random.key(0), jnp.asarray(images[:1]), train=False)

        logits_fn = logits_function(network, variables)
        seconds = timing.alternate(
            {
                "jaxrw": _inside(logits_fn, images, num_steps=flags.steps),
                "jitted alone": _alone(logits_fn, images, num_steps=flags.steps),
            },
            repeats=flags.repeats,
        )
        each = {who: [value / flags.steps for value in values] for who, values in seconds.items()}
        rows.append({"network": name, "seconds": each})
    print(
        f"JAX {jax.__version__}, {flags.batch} images of {flags.size}x{flags.size}, {flags.steps} steps a look"
    )
    print(timing.comparison(rows))
    print(timing.write("attack_step", rows, arguments=flags))


def _inside(logits_fn: LogitsFn, images: np.ndarray, *, num_steps: int) -> Callable[[], object]:
    """Returns a function that takes steps and looks, as `autoattack` does with every slot taken."""
    key, size = jax.random.key(0), len(images)
    labels = np.asarray(jax.jit(logits_fn)(images)).argmax(-1).astype(np.int32)
    placement = Placement.create(
        logits_fn, surrogate=None, batch_size=size, num_examples=size, num_votes=0, vote_key=key
    )
    problem = Problem.create(key, placement, images, labels, norm="linf", eps=_EPS, num_targets=1)
    slots = Slots(key, problem, _ATTACK, size=size)
    slots.fill(collections.deque(range(size)), np.zeros(size, np.int32))

    def run() -> None:
        slots.advance(num_steps)
        finished, _, _ = slots.release_finished()
        assert not len(finished), "an example has stopped, so steps would be missing"

    return run


def _alone(logits_fn: LogitsFn, images: np.ndarray, *, num_steps: int) -> Callable[[], object]:
    """Returns a function that takes the same steps one by one, each by a `jax.jit` of its own."""
    key, index = jax.random.key(0), jnp.arange(len(images))
    labels = jax.jit(logits_fn)(images).argmax(-1)
    batch = Batch(jnp.asarray(images), labels, jnp.zeros_like(index), jnp.zeros_like(index), index)
    step = jax.jit(lambda state: _ATTACK.step(key, logits_fn, batch, state, eps=_EPS))
    state = _ATTACK.start(key, batch, eps=_EPS)

    def run() -> None:
        nonlocal state
        for _ in range(num_steps):
            state = step(state)
        jax.block_until_ready(state)

    return run


if __name__ == "__main__":
    main()
