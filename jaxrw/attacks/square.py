"""Square attack: random search without gradients.

Andriushchenko, Croce, Flammarion and Hein, "Square Attack: a query-efficient black-box adversarial attack via
random search", ECCV 2020, Algorithms 1 and 2.

Two deviations from AutoAttack's public code. Squares reach the last row and column, as in the paper. The public code's
do not, which weakens the attack on small images: of a network on 8x8 digits, Square alone leaves 80.7 % robust here,
84.4 % here with the public code's positions, and 83.9 to 84.6 % in the public code. In L2, with 1,000 queries, of a
network trained in L2: 84.7 to 85.0 %, 88.1 to 88.3 % and 88.3 %. And each example draws its own squares; the public
code draws one square for the whole batch. Both hold in every norm. The attack in L1 is that of the public code; no
paper describes it.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrw.attacks import norms
from jaxrw.attacks.arguments import Examples, as_partial, check_at_least, prepare
from jaxrw.attacks.batch import AttackState, Batch, choose, run, start_fields
from jaxrw.attacks.types import LogitsFn, Scalar
from jaxrw.methods.margins import is_correct, logit_margin

# Keeps quotients by a norm of 0 finite.
_TINY = 1e-12

# Numbers of squares after which the share of the image that a square covers is halved. As in AutoAttack these are
# counts, not shares of the number of queries.
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


def square(
    key: jax.Array,
    logits_fn: LogitsFn,
    images: jax.Array,
    labels: jax.Array,
    *,
    eps: Scalar,
    num_queries: int = 5000,
    p_init: float = 0.8,
    norm: str = "linf",
    index: jax.Array | None = None,
) -> jax.Array:
    """Runs the Square attack and returns the first image that fools, or else the one of lowest logit margin.

    Starts from vertical stripes of +-eps, then tries one square of +-eps per query and keeps it if it lowers the
    margin z_y - max_{j != y} z_j. Each example draws its own squares.

    In L2 and L1 it starts from a grid of windows, each with a peak and a trough. A query moves the perturbation of one
    window to another one, and adds a peak and a trough there.

    `jaxrw.attacks` describes the arguments that all attacks share.

    Further args:
      num_queries: squares tried, at least 1; the start is one more query, as in AutoAttack.
      p_init: share of the image that the first squares cover, in (0, 1].

    Returns:
      [B, H, W, C] adversarial images in [0, 1].

    Raises:
      ValueError: num_queries below 1, p_init outside (0, 1], or unknown norm.
    """
    check_at_least(1, num_queries=num_queries)
    if not 0 < p_init <= 1:
        raise ValueError(f"p_init is {p_init}; must be more than 0 and at most 1")
    examples = prepare(images, labels, index, eps=eps, norm=norm)
    attack = Square(num_queries=num_queries, p_init=p_init, norm=norm)
    return _square(key, as_partial(logits_fn), examples, eps, attack=attack)


@functools.partial(jax.jit, static_argnames="attack")
def _square(
    key: jax.Array, logits_fn: LogitsFn, examples: Examples, eps: Scalar, *, attack: "Square"
) -> jax.Array:
    labels, index = examples.labels, examples.index
    batch = Batch(examples.images, labels, labels, jnp.zeros_like(index), index)
    return run(key, logits_fn, batch, jnp.ones(labels.shape, bool), attack=attack, eps=eps).adversarial


class SquareState(AttackState):
    """State of Square; `adversarial` is the image that fooled, or else the one of lowest margin."""

    margin: jax.Array  # [B], lowest so far


@dataclasses.dataclass(frozen=True)
class Square:
    """The Square attack as an `IterativeAttack`."""

    num_queries: int = 5000
    p_init: float = 0.8
    norm: str = "linf"
    targeted = False

    @property
    def max_steps(self) -> int:
        """Queries: the stripes and every square."""
        return self.num_queries + 1

    def start(self, key: jax.Array, batch: Batch, *, eps: Scalar) -> SquareState:
        """Starts from vertical stripes, one pixel wide, of +-eps in each channel; in L2 and L1 from a grid."""
        images, norm = batch.images, norms.get(self.norm)
        _, height, width, channels = images.shape
        if self.norm == "linf":
            signs = jax.vmap(lambda k: jax.random.rademacher(k, (1, width, channels), jnp.float32))(
                batch.keys(key)
            )
            first = norm.project(images + eps * signs, images, eps=eps)
        else:
            draw = functools.partial(_draw_grid, shape=(height, width, channels), norm=norm)
            steps = jax.vmap(draw)(batch.keys(key))
            if self.norm == "l2":
                steps = eps * steps / norm.length(steps, keepdims=True)
            first = norm.project(images + steps, images, eps=eps)
        return SquareState(**start_fields(first), margin=jnp.full(batch.labels.shape, jnp.inf, jnp.float32))

    def step(
        self, key: jax.Array, logits_fn: LogitsFn, batch: Batch, state: SquareState, *, eps: Scalar
    ) -> SquareState:
        """Keeps the image if it is better, and puts the next square on the best one."""
        logits = logits_fn(state.current)
        margins = jax.vmap(logit_margin)(logits, batch.labels)
        fooled = ~jax.vmap(is_correct)(logits, batch.labels)
        better = fooled | (margins < state.margin)
        best = choose(better, state.current, state.adversarial)
        height, width = batch.images.shape[1:3]
        if self.norm == "linf":
            sides = jnp.asarray(_sides(self.num_queries, self.p_init, height, width))
            add = functools.partial(_add_square, eps=eps)
        else:
            drawn = _odd_sides(self.num_queries, self.p_init, height, width)
            windows = _windows(tuple(drawn.tolist()), self.norm)
            sides = jnp.asarray(drawn)
            add = functools.partial(_move_window, windows=windows, eps=eps, norm=norms.get(self.norm))
        keys = jax.vmap(jax.random.fold_in)(batch.keys(key), state.step)
        return state.replace(
            adversarial=best,
            fooled=fooled,
            running=~fooled & (state.step < self.num_queries),
            step=state.step + 1,
            current=jax.vmap(add)(keys, best, batch.images, sides[state.step]),
            margin=jnp.where(better, margins, state.margin),
        )


def _add_square(
    key: jax.Array, best: jax.Array, image: jax.Array, side: jax.Array, *, eps: Scalar
) -> jax.Array:
    """Sets a random square of one example's best image to +-eps from its original, with one sign per channel."""
    height, width, channels = image.shape
    position_key, sign_key = jax.random.split(key)
    limits = jnp.stack([height - side + 1, width - side + 1])
    top, left = jax.random.randint(position_key, (2,), 0, limits)
    rows, columns = jnp.arange(height) - top, jnp.arange(width) - left
    inside = ((rows >= 0) & (rows < side))[:, None] & ((columns >= 0) & (columns < side))
    signs = jax.random.rademacher(sign_key, (channels,), image.dtype)
    # The paper adds +-2 eps to the best image and projects, which gives the same: pixels are at +-eps already.
    return jnp.where(inside[..., None], norms.get("linf").project(image + eps * signs, image, eps=eps), best)


def _sides(num_queries: int, p_init: float, height: int, width: int) -> np.ndarray:
    """Returns the side of the next square by the number of squares drawn before it; [num_queries + 1] int32.

    >>> _sides(5000, 0.8, 32, 32)[[0, 11, 51, 201, 501, 1001, 2001, 4001]].tolist()
    [29, 20, 14, 10, 7, 5, 4, 3]
    """
    halvings = np.searchsorted(HALVINGS, np.arange(num_queries + 1))
    sides = np.round(np.sqrt(p_init / 2.0**halvings * height * width)).astype(np.int32)
    return np.clip(sides, 1, min(height, width))


def _odd_sides(num_queries: int, p_init: float, height: int, width: int) -> np.ndarray:
    """As `_sides`, for windows with a peak and a trough: odd and at least 3, where the image allows it.

    >>> _odd_sides(5000, 0.8, 32, 32)[[0, 11, 51, 201, 501, 1001, 2001, 4001]].tolist()
    [29, 21, 15, 11, 7, 5, 5, 3]
    """
    sides = np.maximum(_sides(num_queries, p_init, height, width), 3)
    return np.minimum(sides + 1 - sides % 2, min(height, width)).astype(np.int32)


class _Windows(NamedTuple):
    """A peak and a trough for each of S sides, as `_bumps` makes them, once more transposed.

    Attributes:
      values: [S, 2, n, n] float32, 0 beyond the side; n is the largest side.
      number: [n + 1] int32, place of a side in `values`.
    """

    values: jax.Array
    number: jax.Array


@functools.cache
def _windows_of(sides: tuple[int, ...], norm: str) -> tuple[np.ndarray, np.ndarray]:
    different = sorted(set(sides))
    largest = different[-1]
    values = np.zeros((len(different), 2, largest, largest), np.float32)
    number = np.zeros(largest + 1, np.int32)
    for i, side in enumerate(different):
        values[i, 0, :side, :side] = _bumps(side, norm)
        values[i, 1, :side, :side] = _bumps(side, norm).T
        number[side] = i
    return values, number


def _windows(sides: tuple[int, ...], norm: str) -> _Windows:
    return _Windows(*map(jnp.asarray, _windows_of(sides, norm)))


def _bumps(side: int, norm: str) -> np.ndarray:
    """Returns a window [side, side] of norm 1: a pyramid in the upper half, a negative one in the lower half."""
    window = np.concatenate([_pyramid(side // 2, side, norm), -_pyramid(side - side // 2, side, norm)])
    return window / _size(window, norm)


def _pyramid(height: int, width: int, norm: str) -> np.ndarray:
    """Returns steps of 1 / k^2 (L2) or 1 / k^4 (L1), the k-th at k - 1 pixels around the middle; of norm 1."""
    rows, columns = np.abs(np.arange(height) - height // 2), np.abs(np.arange(width) - width // 2)
    ring = np.maximum(rows[:, None], columns)
    steps = 1 / (1.0 + np.arange(max(height // 2, width // 2) + 1)) ** (2 if norm == "l2" else 4)
    heights = np.cumsum(steps[::-1])[::-1]  # A pixel is covered by its own step and all wider ones.
    pyramid = heights[ring]
    return pyramid / _size(pyramid, norm) if pyramid.size else pyramid


def _size(window: np.ndarray, norm: str) -> np.floating:
    return np.sqrt(np.square(window).sum()) if norm == "l2" else np.abs(window).sum()


def _draw_grid(key: jax.Array, *, shape: tuple[int, int, int], norm: norms.Norm) -> jax.Array:
    """Draws the first perturbation [H, W, C]: a grid of 5x5 windows or more, each with one sign per channel."""
    height, width, channels = shape
    side = max(min(height, width) // 5, 1)
    top, left = (max((size - 5 * side) // 2, 0) for size in (height, width))
    rows, columns = ((size - start) // side for size, start in ((height, top), (width, left)))
    bumps = _bumps(side, norm.name)
    window = jnp.asarray(np.stack([bumps, bumps.T]), jnp.float32)
    turn_key, sign_key = jax.random.split(key)
    turned = window[jax.random.bernoulli(turn_key, shape=(rows, columns)).astype(int)]
    signs = jax.random.rademacher(sign_key, (rows, columns, channels), jnp.float32)
    grid = turned[..., None] * signs[:, :, None, None]  # [rows, columns, side, side, C]
    grid = grid.transpose(0, 2, 1, 3, 4).reshape(rows * side, columns * side, channels)
    ends = [(top, height - top - rows * side), (left, width - left - columns * side), (0, 0)]
    return jnp.pad(grid, ends)


def _move_window(
    key: jax.Array,
    best: jax.Array,
    image: jax.Array,
    side: jax.Array,
    *,
    windows: _Windows,
    eps: Scalar,
    norm: norms.Norm,
) -> jax.Array:
    """Moves the perturbation of a second window into a first one, and adds a peak and a trough there.

    The first window gets the norm that both had, and what the whole perturbation lacks of eps.
    """
    height, width, channels = image.shape
    places_key, turn_key, sign_key = jax.random.split(key, 3)
    limits = jnp.stack([height - side + 1, width - side + 1])
    places = jax.random.randint(places_key, (2, 2), 0, limits)
    rows, columns = (jnp.arange(size) - places[:, i, None] for i, size in enumerate((height, width)))
    inside = ((rows >= 0) & (rows < side))[:, :, None] & ((columns >= 0) & (columns < side))[:, None]
    first, second = inside[..., None]  # [H, W, 1]
    turned = jax.random.bernoulli(turn_key).astype(int)
    end = windows.values.shape[2] - 1
    bumps = windows.values[
        windows.number[side], turned, jnp.clip(rows[0], 0, end)[:, None], jnp.clip(columns[0], 0, end)
    ]
    signs = jax.random.rademacher(sign_key, (channels,), image.dtype)

    def size(steps: jax.Array) -> jax.Array:  # of each channel, [1, 1, C]
        return norm.length(jnp.moveaxis(steps, 2, 0))[None, None]

    steps = best - image
    added = first * (bumps[..., None] * signs + steps / (size(first * steps) + _TINY))
    moved, whole = size((first | second) * steps), norm.length(steps[None])
    if norm.name == "l2":
        length = jnp.sqrt(jnp.maximum(eps**2 - whole**2, 0) / channels + moved**2)
    else:
        # As in the public code; the projection shortens it.
        length = jnp.maximum(eps - whole, 0) + moved * channels
    added = added / (size(added) + _TINY) * length
    steps = jnp.where(first, added, jnp.where(second, 0, steps))
    if norm.name == "l2":
        steps = eps * steps / (norm.length(steps[None]) + _TINY)
    return norm.project((image + steps)[None], image[None], eps=eps)[0]
