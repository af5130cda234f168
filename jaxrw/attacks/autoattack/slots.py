"""The examples that an attack works on at a time.

An attack runs on a fixed number of slots. A slot holds one example while it is attacked towards one wrong class, its
target. An example that is finished gives its slot to the next one, so that no work goes to finished examples and
nothing is compiled again.
"""

import collections
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrw.attacks.autoattack.problem import Problem, round_up
from jaxrw.attacks.batch import AttackState, Batch, IterativeAttack, advance, begin, choose_states

FREE = -1  # in place of an example's number


class Slots:
    """The slots of one attack, all free at first.

    Args:
      key: PRNG key of the attack.
      problem: what is attacked.
      attack: the attack on one target.
      size: number of slots.
      asks_surrogate: whether the attack asks the surrogate instead of the model.
    """

    _batch: Batch  # on the devices, like the state; both are set when examples move in
    _state: AttackState

    def __init__(
        self,
        key: jax.Array,
        problem: Problem,
        attack: IterativeAttack[Any],
        *,
        size: int,
        asks_surrogate: bool = False,
    ) -> None:
        self._key, self._problem, self._attack = key, problem, attack
        placement = problem.placement
        self._logits_fn = placement.surrogate if asks_surrogate else placement.logits_fn
        self._eps = jnp.float32(problem.eps)
        self._examples = np.full(size, FREE, np.int32)
        self._ranks = np.zeros(size, np.int32)

    @property
    def examples(self) -> np.ndarray:
        """Numbers of the examples under attack, [n] int32."""
        return self._examples[self._examples != FREE]

    def fill(self, waiting: collections.deque[int], tried: np.ndarray) -> bool:
        """Moves waiting examples into free slots.

        Args:
          waiting: numbers of examples; removes the ones that move in.
          tried: [N] int, targets or restarts of each example already tried without success; also the rank of its next.

        Returns:
          Whether any slot is occupied.
        """
        continuing = self._examples != FREE
        chosen = np.flatnonzero(~continuing)[: len(waiting)]
        if len(chosen):
            self._examples[chosen] = [waiting.popleft() for _ in chosen]
            self._ranks[chosen] = tried[self._examples[chosen]]
            self._place_batch()
            fresh = np.isin(np.arange(len(continuing)), chosen)
            state = self._begin(fresh)
            if continuing.any():
                state = choose_states(self._problem.placement.split(fresh), state, self._state)
            self._place_state(state)
        return len(self.examples) > 0

    def advance(self, num_steps: int) -> None:
        """Takes up to `num_steps` steps with every example."""
        state = advance(
            self._key,
            self._logits_fn,
            self._batch,
            self._state,
            attack=self._attack,
            eps=self._eps,
            num_steps=num_steps,
        )
        self._place_state(state)

    def release_finished(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Frees the slots of finished examples.

        Returns:
          The examples' numbers [n] int32, whether each is fooled [n] bool, and the adversarial images [m, H, W, C] of
          the fooled ones.
        """
        finished = np.flatnonzero((self._examples != FREE) & ~np.asarray(self._state.running))
        examples, fooled = self._examples[finished], np.asarray(self._state.fooled)[finished]
        self._examples[finished] = FREE
        if not fooled.any():
            return examples, fooled, self._problem.images[:0]
        return examples, fooled, np.asarray(self._state.adversarial)[finished[fooled]]

    def work_in_progress(self) -> float:
        """Returns the share of its attack on one target that each example has done, summed over the examples."""
        steps = np.asarray(self._state.step)[self._examples != FREE]
        return float(steps.sum() / self._attack.max_steps)

    def arrays(self) -> dict[str, Any]:
        """Returns the slots as the state file holds them."""
        leaves = {f"slot_state_{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(self._state))}
        return leaves | {"slot_examples": self._examples, "slot_ranks": self._ranks}

    def restore(self, arrays: Mapping[str, Any]) -> None:
        """Inverts `arrays`. If the number of slots differs, all stay free, and the examples restart their target."""
        if len(arrays["slot_examples"]) != len(self._examples):
            return
        self._examples, self._ranks = arrays["slot_examples"].copy(), arrays["slot_ranks"].copy()
        self._place_batch()
        leaves, structure = jax.tree.flatten(self._begin(self._examples != FREE))
        saved = [arrays[f"slot_state_{i}"] for i in range(len(leaves))]
        self._place_state(jax.tree.unflatten(structure, saved))

    def _place_batch(self) -> None:
        """Copies the examples in the slots to the devices; free slots hold the first example."""
        examples = np.maximum(self._examples, 0)
        problem = self._problem
        arrays = {
            "images": problem.images[examples],
            "labels": problem.labels[examples],
            # Without targets, ranks are numbers of restarts.
            "targets": problem.targets[examples, self._ranks if self._attack.targeted else 0],
            "rank": self._ranks.copy(),
            "index": examples,
        }
        self._batch = Batch(**problem.placement.split(arrays))

    def _place_state(self, state: AttackState) -> None:
        self._state = self._problem.placement.split(state)

    def _begin(self, active: np.ndarray) -> AttackState:
        active = self._problem.placement.split(active)
        return begin(self._key, self._batch, active, attack=self._attack, eps=self._eps)


def slot_count(size: int, batch_size: int, num_devices: int) -> int:
    """Returns how many slots serve `size` examples in as few rounds as `batch_size` allows, with few slots idle.

    The number is a multiple of a thirty-second of the batch size, so that few different programs are compiled.

    >>> slot_count(130, 128, 1), slot_count(9, 128, 4), slot_count(1000, 128, 1)
    (68, 12, 128)
    """
    even = -(-size // -(-size // batch_size))
    return min(round_up(even, round_up(-(-batch_size // 32), num_devices)), batch_size)
