"""AutoAttack: attacks that each run on the examples that the previous ones left robust.

Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks", ICML 2020, the "standard" set.
"""

import collections
import contextlib
import dataclasses
import os
import pathlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from jaxrw.attacks.autoattack import checks, ensemble, resume
from jaxrw.attacks.autoattack.bar import AutoAttackProgress
from jaxrw.attacks.autoattack.ensemble import Budget, EnsembleAttack
from jaxrw.attacks.autoattack.problem import Placement, Problem
from jaxrw.attacks.autoattack.slots import Slots, slot_count
from jaxrw.attacks.autoattack.state import ROBUST, WRONG, State
from jaxrw.attacks.types import LogitsFn
from jaxrw.system import hosts


@dataclasses.dataclass(frozen=True, repr=False)
class AutoAttackResult:
    """Result of AutoAttack; accuracies are in percent of all N examples. It prints as a table."""

    adversarial: np.ndarray  # [N, H, W, C] float32, the image that fooled; the original if none did or had to
    robust: np.ndarray  # [N] bool, correct and fooled by no attack: the worst case
    fooled_by: np.ndarray  # [N] int8, number of the attack in `accuracy`, ROBUST, or WRONG without any attack
    clean_accuracy: float
    accuracy: dict[str, float]  # after this attack and all before it
    attacked: dict[str, int]  # examples that this attack ran on: those robust until then
    fooled: dict[str, int]  # examples that this attack fooled
    seconds: dict[str, float]  # spent on this attack, compilation included
    num_targets: int  # wrong classes that a targeted attack tries, at most K - 1
    warnings: tuple[str, ...]  # texts of the `RobustnessWarning`s

    def __repr__(self) -> str:
        """Returns a table of the attacks, and the warnings."""
        rows = [
            ("", "attacked", "fooled", "accuracy", "seconds"),
            ("clean", "", "", f"{self.clean_accuracy:.2f}", ""),
        ]
        rows += [
            (
                name,
                f"{self.attacked[name]:,}",
                f"{self.fooled[name]:,}",
                f"{accuracy:.2f}",
                f"{self.seconds[name]:.1f}",
            )
            for name, accuracy in self.accuracy.items()
        ]
        lines = [(f"{name:10}" + "".join(f"{cell:>10}" for cell in cells)).rstrip() for name, *cells in rows]
        head = f"AutoAttack leaves {self.robust.sum():,} of {len(self.robust):,} examples robust; accuracy in percent"
        return "\n".join([head, *lines, *(f"warning: {text}" for text in self.warnings)])


@dataclasses.dataclass(frozen=True)
class Progress:
    """Progress of an evaluation at one look at its slots."""

    attack: str
    size: int  # number of examples
    robust: int  # examples not fooled so far
    fraction: float  # of this attack's work, in [0, 1]
    seconds: float  # spent on this attack
    seconds_left: float  # for this attack, at its average speed so far
    together: bool  # whether all hosts get this report: True at an attack's end, and always on a single host


def autoattack(
    key: jax.Array,
    logits_fn: LogitsFn,
    images: np.ndarray | jax.Array,
    labels: np.ndarray | jax.Array,
    *,
    eps: float,
    batch_size: int,
    attacks: Sequence[str] = ensemble.STANDARD,
    num_steps: int = 100,
    num_targets: int = 9,
    num_queries: int = 5000,
    progress: Callable[[Progress], None] | bool = True,
    state_path: str | os.PathLike[str] | None = None,
    state_seconds: float = 60.0,
) -> AutoAttackResult:
    """Computes the worst case over AutoAttack's attacks.

    Misclassified examples are not attacked. Each attack, and each target of a targeted one, runs on the examples that
    are still robust. An example counts as fooled only if its adversarial image lies in the ball and in [0, 1] and the
    model misclassifies it when evaluated again. All devices of all hosts share the work, and each host gets the whole
    result. Flags and images depend on `key` and the example's place in `images`, not on `batch_size` or the number of
    devices, provided that the model's logits do not: rounding may differ between batch shapes.

    Args: see `jaxrw.attacks`; and
      images: [N, H, W, C] float in [0, 1].
      labels: [N] integer in 0..K-1.
      batch_size: largest number of examples attacked at a time on this host's devices; rounded up to a multiple of
        their number.
      attacks: names from `ensemble.ATTACKS`, in the order to run.
      num_steps: steps of APGD and FAB for each target; at least 1.
      num_targets: number of targets of APGD-T and FAB-T, at least 1; K - 1 if that is less.
      num_queries: squares of Square; at least 1.
      progress: True shows bars on standard error, or lines where that is no terminal; False shows nothing. A function
        is called with a `Progress` after every look at the slots. An exception that it raises ends the evaluation
        after the state is written. With several hosts, all must raise it for the same `Progress`, one that is
        `together`.
      state_path: file (.npz) that is written during the evaluation, and that the evaluation resumes from if it exists.
        It remains at the end, so that the same call then returns at once. Several hosts write it only at the end of an
        attack.
      state_seconds: least time between two writes within an attack; 0 writes after every look.

    Returns:
      An `AutoAttackResult`.

    Raises:
      ValueError: invalid arguments, or as `StateError` a state file of another evaluation.

    Warns:
      RobustnessWarning: outputs that are probabilities, random, or dependent on the batch; logits that are NaN;
        input gradients that are 0; Square fooling what the attacks with gradients did not; images that fool only
        sometimes.
    """
    checks.check_key(key)
    images, labels, attacks = np.asarray(images), np.asarray(labels), tuple(attacks)
    checks.check_problem(images, labels, eps=eps, batch_size=batch_size)
    if state_path is not None and not pathlib.Path(state_path).parent.is_dir():
        raise ValueError(f"state_path is {state_path}; its directory does not exist")
    selected = ensemble.select(attacks)
    budget = Budget(num_steps=num_steps, num_targets=num_targets, num_queries=num_queries)
    images, labels = images.astype(np.float32), labels.astype(np.int32)
    with jax.default_matmul_precision("highest"):
        placement = Placement.create(logits_fn, batch_size=batch_size, num_examples=len(labels))
        problem = Problem.create(key, placement, images, labels, eps=eps, num_targets=num_targets)
        before = _warn(_warnings_before(problem, logits_fn))
        ensemble.check_classes(selected, problem.logits.shape[1])
        file = resume.StateFile(state_path, problem, attacks, budget, state_seconds)
        state = file.load()
        with _shown(progress) as show:
            for number, attack in enumerate(selected):
                _run_attack(problem, state, file, number, attack, budget, show)
        after = _warn(_warnings_after(state, attacks))
        return _result(problem, state, attacks, before + after)


@contextlib.contextmanager
def _shown(progress: Callable[[Progress], None] | bool) -> Iterator[Callable[[Progress], None]]:
    """Yields what is called with every `Progress`, see `autoattack`."""
    if progress is True and hosts.is_first():
        with contextlib.closing(AutoAttackProgress(file=sys.stderr)) as bars:
            yield bars
    else:
        yield progress if callable(progress) else lambda _: None


def _warn(messages: Iterator[str]) -> tuple[str, ...]:
    """Issues warnings at the caller of `autoattack`."""
    issued = []
    for message in messages:
        issued.append(message)
        warnings.warn(message, checks.RobustnessWarning, stacklevel=3)
    return tuple(issued)


def _warnings_before(problem: Problem, logits_fn: LogitsFn) -> Iterator[str]:
    placement = problem.placement
    images, labels = placement.first_batch(problem.images), placement.first_batch(problem.labels)
    yield from checks.output_warnings(placement.predict, logits_fn, images)
    yield from checks.gradient_warnings(placement.logits_fn, placement.split(images), placement.split(labels))
    number = int(np.isnan(problem.logits).any(1).sum())
    if number:
        yield f"the logits of {number} images are NaN; these count as not robust"


def _warnings_after(state: State, attacks: tuple[str, ...]) -> Iterator[str]:
    if "square" in attacks:
        number = attacks.index("square")
        others = [name for name, size in zip(attacks[:number], state.attacked, strict=False) if size > 0]
        yield from checks.square_warnings(state.num_fooled(number), len(state.fooled_by), others)
    if state.nan:
        yield f"the logits of {state.nan} adversarial images are NaN; these count as not robust"
    unconfirmed = np.count_nonzero(state.unconfirmed)
    if unconfirmed:
        yield (
            f"{unconfirmed} examples had adversarial images that the model, asked again, predicted right; these "
            "images do not count. The model is random, or rounds differently in another batch"
        )


def _run_attack(
    problem: Problem,
    state: State,
    file: resume.StateFile,
    number: int,
    attack: EnsembleAttack,
    budget: Budget,
    progress: Callable[[Progress], None],
) -> None:
    """Runs one attack on all examples that are still robust, and updates `state`.

    Args:
      problem: what is attacked.
      state: what has been found so far.
      file: where `state` is saved.
      number: the attack's place in the evaluation.
      attack: the attack.
      budget: its work.
      progress: called after every look at the slots.
    """
    attack_one_target = attack.create(budget)
    num_targets = problem.targets.shape[1] if attack_one_target.targeted else 1
    robust = np.flatnonzero(state.fooled_by == ROBUST)
    if state.attacked[number] < 0:
        state.attacked[number] = len(robust)
    remaining = robust[state.tried[number, robust] < num_targets]
    if not len(remaining):
        return

    num_hosts, nan_before = jax.process_count(), state.nan
    seconds_before, started_at = state.seconds[number], time.monotonic()
    placement = problem.placement
    examples_per_host = -(-int(state.attacked[number]) // num_hosts)
    slots = Slots(
        jax.random.fold_in(problem.key, attack.stream),
        problem,
        attack_one_target,
        size=slot_count(examples_per_host, placement.batch_size, placement.sharding.num_devices),
    )
    if state.slots.get("slot_attack") == number:
        slots.restore(state.slots)
    local = remaining[hosts.local_mask(len(problem.labels))[remaining]]
    waiting = collections.deque(np.setdiff1d(local, slots.examples).tolist())

    def save() -> None:
        if num_hosts == 1:  # Otherwise this host does not know what the others have found.
            state.slots = {"slot_attack": np.int32(number), **slots.arrays()}
            file.save(state)

    while slots.fill(waiting, state.tried[number]):
        slots.advance(attack.steps_per_look)
        resisting = _record_finished(problem, state, number, slots)
        waiting.extend(resisting[state.tried[number, resisting] < num_targets].tolist())
        state.seconds[number] = seconds_before + time.monotonic() - started_at
        if file.is_due():
            save()
        in_progress = slots.work_in_progress()
        report = _progress(state, number, attack.name, num_targets, in_progress, together=num_hosts == 1)
        try:
            progress(report)
        except BaseException:  # `progress` ends the evaluation.
            save()
            raise
    state.merge_hosts(nan_before)
    state.slots = {}
    file.save(state)
    if num_hosts > 1:
        progress(_progress(state, number, attack.name, num_targets, 0, together=True))


def _record_finished(problem: Problem, state: State, number: int, slots: Slots) -> np.ndarray:
    """Records the examples that are finished in `state`; returns the numbers of those that are not fooled."""
    examples, fooled, adversarial = slots.release_finished()
    if fooled.any():
        confirmed = _confirm(problem, state, examples[fooled], adversarial)
        fooled[fooled] = confirmed  # The others resist after all.
        state.fooled_by[examples[fooled]] = number
        state.adversarial[examples[fooled]] = adversarial[confirmed]
    resisting = examples[~fooled]
    state.tried[number, resisting] += 1
    return resisting


def _confirm(problem: Problem, state: State, examples: np.ndarray, adversarial: np.ndarray) -> np.ndarray:
    """Returns whether images lie in the ball and fool the model when it is evaluated again; [n] bool."""
    logits, correct = problem.placement.judge(adversarial, problem.labels[examples])
    confirmed = ~correct & checks.in_ball(adversarial, problem.images[examples], eps=problem.eps)
    state.nan += int((np.isnan(logits).any(1) & confirmed).sum())
    state.unconfirmed[examples[~confirmed]] = True
    return confirmed


def _progress(
    state: State, number: int, name: str, num_targets: int, in_progress: float, *, together: bool
) -> Progress:
    """Returns the progress of an attack on all examples, or on this host's if not `together`."""
    work = state.attacked[number] * num_targets / (1 if together else jax.process_count())
    robust = state.fooled_by == ROBUST
    done = state.num_fooled(number) * num_targets + state.tried[number][robust].sum() + in_progress
    fraction = float(min(done / work, 1))
    seconds = float(state.seconds[number])
    return Progress(
        attack=name,
        size=len(robust),
        robust=int(np.count_nonzero(robust)),
        fraction=fraction,
        seconds=seconds,
        seconds_left=seconds * (1 - fraction) / max(fraction, 1e-9),
        together=together,
    )


def _result(
    problem: Problem, state: State, attacks: tuple[str, ...], messages: tuple[str, ...]
) -> AutoAttackResult:
    size = len(state.fooled_by)
    correct = np.count_nonzero(state.fooled_by != WRONG)
    fooled = {name: state.num_fooled(number) for number, name in enumerate(attacks)}
    left = correct - np.cumsum(list(fooled.values()))
    return AutoAttackResult(
        adversarial=state.adversarial,
        robust=state.fooled_by == ROBUST,
        fooled_by=state.fooled_by,
        clean_accuracy=100 * correct / size,
        accuracy={name: 100 * number / size for name, number in zip(attacks, left.tolist(), strict=True)},
        attacked=dict(zip(attacks, state.attacked.tolist(), strict=True)),
        fooled=fooled,
        seconds=dict(zip(attacks, state.seconds.tolist(), strict=True)),
        num_targets=problem.targets.shape[1],
        warnings=messages,
    )
