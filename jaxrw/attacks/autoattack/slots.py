"""The fixed number of examples that AutoAttack works on at a time, on the host."""

import jax
import numpy as np

from jaxrw.attacks.batch import Batch, advance, begin, choose_states


class Slots:
    """The fixed number of examples that one attack works on at a time."""

    def __init__(self, key, logits_fn, problem, *, attack, number, eps, size, split, confirm):
        self._problem, self._split, self._confirm, self._number = problem, split, confirm, number
        self._attack, self._eps, self._key, self._logits_fn = attack, eps, key, logits_fn
        self._examples = np.full(size, -1, np.int32)  # -1: free
        self._ranks = np.zeros(size, np.int32)
        self._batch = self._state = None

    def hold(self, example):
        """Whether an example is being attacked."""
        return example in self._examples

    def fill(self, waiting, tried):
        """Give free slots to waiting examples; False when there is nothing left to do."""
        fresh = np.zeros(len(self._examples), bool)
        for slot in np.flatnonzero(self._examples < 0):
            if waiting:
                self._examples[slot] = example = waiting.popleft()
                self._ranks[slot] = tried[example]
                fresh[slot] = True
        if fresh.any():
            self._place()
            begun = self._begin(fresh)
            first = self._state is None
            self._keep(begun if first else choose_states(self._split(fresh), begun, self._state))
        return bool((self._examples >= 0).any())

    def advance(self, num_steps):
        """Take so many steps with every example."""
        self._keep(
            advance(
                self._key,
                self._logits_fn,
                self._batch,
                self._state,
                attack=self._attack,
                eps=self._eps,
                num_steps=num_steps,
            )
        )

    def settle(self):
        """Free the slots that are done; [(example, adversarial image, or None where it stays robust)]."""
        done = np.flatnonzero((self._examples >= 0) & ~np.asarray(self._state.running))
        fooling = done[np.asarray(self._state.fooled)[done]]
        outcome = {int(self._examples[slot]): None for slot in done}
        if len(fooling):
            examples, adversarial = self._examples[fooling], np.asarray(self._state.adversarial)[fooling]
            confirmed = self._confirm(examples, adversarial)
            outcome |= dict(zip(examples[confirmed].tolist(), adversarial[confirmed], strict=True))
        self._examples[done] = -1
        return outcome.items()

    def work_in_progress(self):
        """Runs of one target that the occupied slots have done, in parts."""
        steps = np.asarray(self._state.step)[self._examples >= 0]
        return float(steps.sum() / self._attack.evaluations)

    def saved(self):
        """The slots as {name: array}."""
        leaves = {f"slot_state_{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(self._state))}
        return leaves | {
            "slot_attack": np.int32(self._number),
            "slot_examples": self._examples,
            "slot_ranks": self._ranks,
        }

    def restore(self, arrays):
        """Go on with saved slots; with another number of slots their examples just begin their target again."""
        if len(arrays["slot_examples"]) != len(self._examples):
            return
        self._examples, self._ranks = arrays["slot_examples"], arrays["slot_ranks"]
        self._place()
        leaves, structure = jax.tree.flatten(self._begin(self._examples < 0))
        saved = [arrays[f"slot_state_{i}"] for i in range(len(leaves))]
        self._keep(jax.tree.unflatten(structure, saved))

    def _keep(self, state):
        """Keep a state, always laid out alike on the devices: for another layout programs are compiled anew."""
        self._state = self._split(state)

    def _begin(self, occupied):
        """State in which every example is at its start, and only those of `occupied` slots run."""
        return begin(self._key, self._batch, self._split(occupied), attack=self._attack, eps=self._eps)

    def _place(self):
        """Put the slots' images, labels and targets on the devices; free slots hold the first example."""
        examples = np.maximum(self._examples, 0)
        problem = self._problem
        self._batch = self._split(
            Batch(
                images=problem.images[examples],
                labels=problem.labels[examples],
                targets=problem.targets[examples, self._ranks],
                rank=self._ranks.copy(),
                index=examples,
            )
        )


def slot_count(size, batch_size, devices):
    """Slots that serve `size` examples in as few full rounds as `batch_size` allows, with little left idle.

    In steps of a thirty-second of the batch size, so that not every call compiles programs of its own.

    >>> slot_count(130, 128, 1), slot_count(9, 128, 4), slot_count(1000, 128, 1)
    (68, 12, 128)
    """
    even = -(-size // -(-size // batch_size))
    return min(round_up(even, round_up(-(-batch_size // 32), devices)), batch_size)


def round_up(number, multiple):
    """Smallest multiple that is not less."""
    return -(-number // multiple) * multiple
