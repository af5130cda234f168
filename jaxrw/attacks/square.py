"""Square attack in the L-infinity ball: random search without gradients.

Andriushchenko, Croce, Flammarion and Hein, "Square Attack: a query-efficient black-box adversarial attack via
random search", ECCV 2020, Algorithms 1 and 2.

Two deviations from AutoAttack's public code. Squares reach the last row and column, as in the paper; there they
do not, which weakens it on small images (a network on 8x8 digits, Square alone: 80.7 % robust here, 83.9 to 84.6 %
there, and 84.4 % here with its places). And each example draws its own squares; there a batch shares them.
"""

import dataclasses
import functools

import chex
import flax
import jax
import jax.numpy as jnp
import numpy as np

from jaxrw.attacks.batch import Batch, advance, as_function, begin, choose, prepare
from jaxrw.attacks.pgd import project
from jaxrw.methods.margins import is_correct, logit_margin

# After so many squares the share of the image that one covers is halved. As in AutoAttack these are counts,
# not shares of the number of queries.
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


def square(key, logits_fn, images, labels, *, eps, num_queries=5000, p_init=0.8, index=None):
    """Square attack, the first image that fools or else the one of lowest logit margin; pixels in [0, 1].

    Starts from vertical stripes of +-eps, then tries squares of +-eps, one for each query, and keeps those that
    lower the margin z_y - max_{j != y} z_j. Each example draws its own squares: its result depends on `key`,
    its `index`, its image and its label, never on its neighbours.

    Args:
      key: PRNG key of stripes and squares.
      logits_fn: images [B, H, W, C] in [0, 1] -> logits [B, K]; each row depends on its own image alone. Pass
        the same function object again and nothing is compiled again.
      images: [B, H, W, C] float in [0, 1].
      labels: [B] integer in 0..K-1.
      eps: radius in pixel units of [0, 1].
      num_queries: squares tried; the stripes are one query more, as in AutoAttack. At least 1.
      p_init: share of the image that the first squares cover, in (0, 1].
      index: [B] integer that names each example to the random numbers; None: its place in the batch.

    Returns:
      [B, H, W, C] adversarial images in [0, 1], at most eps from `images`.

    Raises:
      ValueError: num_queries below 1, p_init outside (0, 1].
    """
    if num_queries < 1:
        raise ValueError(f"num_queries is {num_queries}; must be 1 or more")
    if not 0 < p_init <= 1:
        raise ValueError(f"p_init is {p_init}; must be more than 0 and at most 1")
    images, labels, index = prepare(images, labels, index)
    attack = Square(num_queries=num_queries, p_init=p_init)
    return _square(key, as_function(logits_fn), images, labels, index, eps, attack=attack)


@functools.partial(jax.jit, static_argnames="attack")
def _square(key, logits_fn, images, labels, index, eps, *, attack):
    """`square` after its checks."""
    batch = Batch(images, labels, labels, jnp.zeros_like(index), index)
    state = begin(key, batch, jnp.ones(labels.shape, bool), attack=attack, eps=eps)
    state = advance(key, logits_fn, batch, state, attack=attack, eps=eps, num_steps=attack.evaluations)
    return state.adversarial


@flax.struct.dataclass
class SquareState:
    """All that an example carries from query to query."""

    adversarial: chex.Array  # [B, H, W, C], image that fooled or else of lowest margin
    fooled: chex.Array  # [B] bool
    running: chex.Array  # [B] bool
    step: chex.Array  # [B] int32, queries so far
    current: chex.Array  # [B, H, W, C], image of the next query
    margin: chex.Array  # [B], lowest so far


@dataclasses.dataclass(frozen=True)
class Square:
    """The Square attack, as `jaxrw.attacks.batch` runs it."""

    num_queries: int = 5000
    p_init: float = 0.8
    targeted = False

    @property
    def evaluations(self):
        """Steps of `step`: the stripes and every square."""
        return self.num_queries + 1

    def start(self, key, batch, *, eps):
        """Vertical stripes, one pixel wide, of +-eps in each channel."""
        images = batch.images
        _, _, width, channels = images.shape
        signs = jax.vmap(lambda k: jax.random.rademacher(k, (1, width, channels), jnp.float32))(
            batch.keys(key)
        )
        first = project(images + eps * signs, images, eps=eps)
        size = batch.labels.shape
        return SquareState(
            adversarial=first,
            fooled=jnp.zeros(size, bool),
            running=jnp.ones(size, bool),
            step=jnp.zeros(size, jnp.int32),
            current=first,
            margin=jnp.full(size, jnp.inf, jnp.float32),
        )

    def step(self, key, logits_fn, batch, state, *, eps):
        """Keep the image if it is better, and put the next square on the best one."""
        logits = logits_fn(state.current)
        margins = jax.vmap(logit_margin)(logits, batch.labels)
        fooled = ~jax.vmap(is_correct)(logits, batch.labels)
        better = fooled | (margins < state.margin)
        best = choose(better, state.current, state.adversarial)
        sides = jnp.asarray(_sides(self.num_queries, self.p_init, *batch.images.shape[1:3]))
        keys = jax.vmap(jax.random.fold_in)(batch.keys(key), state.step)
        add = functools.partial(_add_square, eps=eps)
        return state.replace(
            adversarial=best,
            fooled=fooled,
            running=~fooled & (state.step < self.num_queries),
            step=state.step + 1,
            current=jax.vmap(add)(keys, best, batch.images, sides[state.step]),
            margin=jnp.where(better, margins, state.margin),
        )


def _add_square(key, best, image, side, *, eps):
    """Best image of one example with a random square at +-eps of its original, a sign for each channel."""
    height, width, channels = image.shape
    where_key, sign_key = jax.random.split(key)
    limits = jnp.stack([height - side + 1, width - side + 1])
    top, left = jax.random.randint(where_key, (2,), 0, limits)
    rows, columns = jnp.arange(height) - top, jnp.arange(width) - left
    inside = ((rows >= 0) & (rows < side))[:, None] & ((columns >= 0) & (columns < side))
    signs = jax.random.rademacher(sign_key, (channels,), image.dtype)
    # From an extreme, +-2 eps and the projection lead to the extreme of that sign; so does this.
    return jnp.where(inside[..., None], project(image + eps * signs, image, eps=eps), best)


def _sides(num_queries, p_init, height, width):
    """[num_queries + 1] int: side of the square drawn after so many squares.

    >>> _sides(5000, 0.8, 32, 32)[[0, 11, 51, 201, 501, 1001, 2001, 4001]].tolist()
    [29, 20, 14, 10, 7, 5, 4, 3]
    """
    halvings = np.searchsorted(HALVINGS, np.arange(num_queries + 1))
    sides = np.round(np.sqrt(p_init / 2.0**halvings * height * width)).astype(np.int32)
    return np.clip(sides, 1, min(height, width))
