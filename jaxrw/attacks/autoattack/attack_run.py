"""One attack of an evaluation, with all of its targets or restarts, on the examples of this host."""

import collections
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxrw.attacks.autoattack import checks, resume
from jaxrw.attacks.autoattack.ensemble import Budget, EnsembleAttack
from jaxrw.attacks.autoattack.problem import Problem
from jaxrw.attacks.autoattack.result import Progress
from jaxrw.attacks.autoattack.slots import Slots, slot_count
from jaxrw.attacks.autoattack.state import ROBUST, State
from jaxrw.attacks.batch import IterativeAttack
from jaxrw.system import hosts


@dataclasses.dataclass
class AttackRun:
    """One attack of an evaluation.

    Attributes:
      problem: what is attacked.
      state: what has been found so far; `run` updates it.
      file: where `state` is saved.
      number: the attack's place in the evaluation.
      attack: the attack.
      budget: its work.
      progress: called after every look at the slots.
    """

    problem: Problem
    state: State
    file: resume.StateFile
    number: int
    attack: EnsembleAttack
    budget: Budget
    progress: Callable[[Progress], None]

    def __post_init__(self) -> None:
        self._one_round: IterativeAttack[Any] = self.attack.create(self.problem.norm, self.budget)
        self._num_rounds = self.attack.num_rounds(self.budget)
        if self._one_round.targeted:
            self._num_rounds = min(self._num_rounds, self.problem.targets.shape[1])
        self._seconds_before = float(self.state.seconds[self.number])
        self._started_at = time.monotonic()

    def run(self, examples: np.ndarray) -> None:
        """Attacks the examples of these numbers, which are all that the attack has to try and has not fooled yet."""
        state, number = self.state, self.number
        if state.attacked[number] < 0:
            state.attacked[number] = len(examples)
        if not len(examples) or state.tried[number, examples].min() >= self._num_rounds:
            return
        num_hosts, nan_before = jax.process_count(), state.nan
        local = examples[hosts.local_mask(len(self.problem.labels))[examples]]
        per_host = -(-int(state.attacked[number]) // num_hosts)
        if self.problem.placement.surrogate is None:
            self._run_in_slots(local, per_host, asks_surrogate=False)
        else:
            trusting = local[~state.unconfirmed[local]]
            self._run_in_slots(trusting, per_host, asks_surrogate=True)
            # An example whose image has fooled the surrogate alone is attacked with the model from then on.
            doubting = local[state.unconfirmed[local] & ~state.fooled[number, local]]
            self._run_in_slots(doubting, len(doubting), asks_surrogate=False)
        state.merge_hosts(nan_before)
        state.slots = {}
        self.file.save(state)
        if num_hosts > 1:
            self.progress(self._progress(0, together=True))

    def _run_in_slots(self, examples: np.ndarray, expected: int, *, asks_surrogate: bool) -> None:
        """Attacks examples of this host until each is fooled or has resisted, in slots for the `expected` number."""
        state, tried = self.state, self.state.tried[self.number]
        waiting = examples[tried[examples] < self._num_rounds]
        if not len(waiting):
            return
        placement = self.problem.placement
        slots = Slots(
            jax.random.fold_in(self.problem.key, self.attack.stream),
            self.problem,
            self._one_round,
            size=slot_count(expected, placement.batch_size, placement.sharding.num_devices),
            asks_surrogate=asks_surrogate,
        )
        if state.slots.get("slot_attack") == self.number:
            slots.restore(state.slots)
            state.slots = {}
        queue = collections.deque(np.setdiff1d(waiting, slots.examples).tolist())
        while slots.fill(queue, tried):
            slots.advance(self.attack.steps_per_look)
            resisting = self._record_finished(slots, asks_surrogate=asks_surrogate)
            queue.extend(resisting[tried[resisting] < self._num_rounds].tolist())
            self._look(slots)

    def _record_finished(self, slots: Slots, *, asks_surrogate: bool) -> np.ndarray:
        """Records the examples that are finished; returns the numbers of those that resist and go on."""
        state, number = self.state, self.number
        examples, fooled, adversarial = slots.release_finished()
        unconfirmed = examples[:0]
        if fooled.any():
            confirmed = self._confirm(examples[fooled], adversarial)
            unconfirmed = examples[fooled][~confirmed]
            fooled[fooled] = confirmed  # The others resist after all.
            state.fooled[number, examples[fooled]] = True
            first = state.fooled_by[examples[fooled]] == ROBUST  # Always, unless each attack runs on all.
            state.fooled_by[examples[fooled][first]] = number
            state.adversarial[examples[fooled][first]] = adversarial[confirmed][first]
        resisting = examples[~fooled]
        if asks_surrogate:  # The model has not resisted where it has not been asked.
            resisting = np.setdiff1d(resisting, unconfirmed)
        state.tried[number, resisting] += 1
        return resisting

    def _confirm(self, examples: np.ndarray, adversarial: np.ndarray) -> np.ndarray:
        """Returns whether images lie in the ball and fool the model when it is evaluated again; [n] bool."""
        problem, state = self.problem, self.state
        logits, correct = problem.placement.judge(adversarial, problem.labels[examples], examples)
        inside = checks.in_ball(adversarial, problem.images[examples], eps=problem.eps, norm=problem.norm)
        confirmed = ~correct & inside
        state.nan += int((np.isnan(logits).any(1) & confirmed).sum())
        state.unconfirmed[examples[~confirmed]] = True
        return confirmed

    def _look(self, slots: Slots) -> None:
        """Saves the state if that is due, and reports; an error of `progress` ends the evaluation."""
        is_alone = jax.process_count() == 1

        def save() -> None:
            if is_alone:  # Otherwise this host does not know what the others have found.
                self.state.slots = {"slot_attack": np.int32(self.number), **slots.arrays()}
                self.file.save(self.state)

        self.state.seconds[self.number] = self._seconds_before + time.monotonic() - self._started_at
        if self.file.is_due():
            save()
        try:
            self.progress(self._progress(slots.work_in_progress(), together=is_alone))
        except BaseException:
            save()
            raise

    def _progress(self, in_progress: float, *, together: bool) -> Progress:
        """Returns the progress on all examples, or on this host's if not `together`."""
        state, number = self.state, self.number
        work = state.attacked[number] * self._num_rounds / (1 if together else jax.process_count())
        robust, fooled = state.fooled_by == ROBUST, state.fooled[number]
        done = fooled.sum() * self._num_rounds + state.tried[number][~fooled].sum() + in_progress
        fraction = float(min(done / work, 1))
        seconds = float(state.seconds[number])
        return Progress(
            attack=self.attack.name,
            size=len(robust),
            robust=int(np.count_nonzero(robust)),
            fraction=fraction,
            seconds=seconds,
            seconds_left=seconds * (1 - fraction) / max(fraction, 1e-9),
            together=together,
        )
