"""AutoAttack: attacks that each run on the examples that the previous ones left robust.

Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks", ICML 2020; the versions "standard", "plus" and "rand" are those of its public code.
"""

import contextlib
import os
import pathlib
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np

from jaxrw.attacks import norms
from jaxrw.attacks.autoattack import checks, ensemble, resume
from jaxrw.attacks.autoattack.attack_run import AttackRun
from jaxrw.attacks.autoattack.bar import AutoAttackProgress
from jaxrw.attacks.autoattack.problem import Placement, Problem
from jaxrw.attacks.autoattack.result import AutoAttackResult, Progress
from jaxrw.attacks.autoattack.state import ROBUST, WRONG, State
from jaxrw.attacks.random_models import RandomLogitsFn
from jaxrw.attacks.types import LogitsFn
from jaxrw.system import compilation, hosts

# Streams of the random key that are none of an attack.
_VOTES = 2**16


def autoattack(
    key: jax.Array,
    logits_fn: LogitsFn | RandomLogitsFn,
    images: np.ndarray | jax.Array,
    labels: np.ndarray | jax.Array,
    *,
    eps: float,
    batch_size: int,
    norm: str = "linf",
    version: str = "standard",
    attacks: Sequence[str] | str | None = None,
    individual: bool = False,
    num_steps: int = 100,
    num_targets: int | None = None,
    num_restarts: int | None = None,
    num_queries: int = 5000,
    num_samples: int = 20,
    num_votes: int = 20,
    surrogate: LogitsFn | None = None,
    progress: Callable[[Progress], None] | bool = True,
    state_path: str | os.PathLike[str] | None = None,
    state_seconds: float = 60.0,
) -> AutoAttackResult:
    """Computes the worst case over AutoAttack's attacks.

    The versions, and what they are for::

      standard  APGD-CE, APGD-T, FAB-T, Square: what tables report
      plus      APGD-CE, APGD-DLR, FAB, Square, APGD-T, FAB-T, with five runs of the untargeted ones with gradients
      rand      APGD-CE, APGD-DLR, for random models: each gradient is the mean of 20, and votes decide

    Misclassified examples are not attacked. Each attack, and each target of a targeted one, runs on the examples that
    are still robust. An example counts as fooled only if its adversarial image lies in the ball and in [0, 1] and the
    model misclassifies it when evaluated again. All devices of all hosts share the work, and each host gets the whole
    result. Flags and images depend on `key` and the example's place in `images`, not on `batch_size` or the number of
    devices, provided that the model's logits do not: rounding may differ between batch shapes.

    `jaxrw.attacks` describes the arguments that all attacks share.

    Further args:
      logits_fn: for version "rand", a function of images and a key that returns logits; each image gets its own key.
      images: [N, H, W, C] float in [0, 1].
      labels: [N] integer in 0..K-1.
      batch_size: largest number of examples attacked at a time on this host's devices; rounded up to a multiple of
        their number.
      norm: of eps; "linf", "l2" or "l1".
      version: "standard", "plus" or "rand".
      attacks: names from `ensemble.ATTACKS`, in the order to run, or one of them; None: the version's.
      individual: whether each attack runs on all examples that are classified correctly, instead of on those that are
        still robust. The worst case is the same, and each attack's own accuracy is known.
      num_steps: steps of APGD and FAB for each target; at least 1.
      num_targets: number of targets of APGD-T and FAB-T, at least 1; K - 1 if that is less. None: 9, but 5 of APGD-T
        in the standard version for L1.
      num_restarts: runs of APGD-CE, APGD-DLR and FAB, at least 1; None: the version's.
      num_queries: squares of Square; at least 1.
      num_samples: evaluations of a random model for one gradient; at least 1.
      num_votes: evaluations of a random model for one verdict, on a clean or an adversarial image; at least 1.
      surrogate: the same model, cheaper: in a lower precision, as bfloat16. The attacks ask it instead of `logits_fn`.
        An example counts as fooled only if `logits_fn` misclassifies it. An example whose image has fooled the
        surrogate alone is attacked with `logits_fn` from then on. One that `logits_fn` would have lost and that the
        surrogate did not lose counts as robust. None: `logits_fn` itself.
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
      UserWarning: JAX convolves with slow kernels on this CPU, see `choose_cpu_kernels`.
      RobustnessWarning: an eps that is usual for another norm; outputs that are probabilities, random, or dependent on
        the batch; logits that are NaN; input gradients that are 0; Square fooling what the attacks with gradients did
        not; images that fool only sometimes.
    """
    checks.check_key(key)
    compilation.warn_of_slow_kernels()
    images, labels, eps = np.asarray(images), np.asarray(labels), float(eps)
    attacks = (attacks,) if isinstance(attacks, str) else attacks
    attacks = ensemble.get_version(version).attacks if attacks is None else tuple(attacks)
    checks.check_problem(images, labels, norm=norm, eps=eps, batch_size=batch_size)
    if state_path is not None and not pathlib.Path(state_path).parent.is_dir():
        raise ValueError(f"state_path is {state_path}; its directory does not exist")
    selected = ensemble.select(attacks, is_random=ensemble.get_version(version).is_random)
    budget = ensemble.create_budget(
        norm,
        version,
        num_steps=num_steps,
        num_targets=num_targets,
        num_restarts=num_restarts,
        num_queries=num_queries,
        num_samples=num_samples,
        num_votes=num_votes,
    )
    if surrogate is not None and budget.num_votes:
        raise ValueError(f"surrogate is given; must be None for version {version!r}, whose model is random")
    images, labels = images.astype(np.float32), labels.astype(np.int32)
    with jax.default_matmul_precision("highest"):
        placement = Placement.create(
            logits_fn,
            surrogate=surrogate,
            batch_size=batch_size,
            num_examples=len(labels),
            num_votes=budget.num_votes,
            vote_key=jax.random.fold_in(key, _VOTES),
        )
        with checks.naming_arguments(is_random=budget.num_votes > 0):
            problem = Problem.create(
                key, placement, images, labels, norm=norm, eps=eps, num_targets=budget.max_targets
            )
        before = _warn(_warnings_before(problem, logits_fn))
        ensemble.check_classes(selected, problem.logits.shape[1])
        file = resume.StateFile(state_path, problem, attacks, budget, state_seconds, individual=individual)
        state = file.load()
        with _shown(progress) as show:
            for number, attack in enumerate(selected):
                attack_run = AttackRun(problem, state, file, number, attack, budget, show)
                attack_run.run(_left(state, number, individual=individual))
        after = _warn(_warnings_after(placement, state, attacks, individual=individual))
        return _result(problem, state, attacks, version, before + after, individual=individual)


def _left(state: State, number: int, *, individual: bool) -> np.ndarray:
    """Returns the indices of the examples that an attack is still to be run on."""
    if individual:
        return np.flatnonzero((state.fooled_by != WRONG) & ~state.fooled[number])
    return np.flatnonzero(state.fooled_by == ROBUST)


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


def _warnings_before(problem: Problem, logits_fn: LogitsFn | RandomLogitsFn) -> Iterator[str]:
    if doubt := norms.doubts(problem.norm, problem.eps):
        yield doubt
    placement = problem.placement
    images, labels = placement.first_batch(problem.images), placement.first_batch(problem.labels)
    yield from checks.output_warnings(placement.predict, logits_fn, images, is_random=placement.num_votes > 0)
    yield from checks.gradient_warnings(placement.plain, placement.split(images), placement.split(labels))
    if placement.surrogate is not None:
        logits, others = placement.first_batch(problem.logits), placement.predict_surrogate(images)
        checks.check_surrogate(logits, others)
        yield from checks.surrogate_warnings(logits, others)
    number = int(np.isnan(problem.logits).any(1).sum())
    if number:
        yield f"the logits of {number} images are NaN; these count as not robust"


def _warnings_after(
    placement: Placement, state: State, attacks: tuple[str, ...], *, individual: bool
) -> Iterator[str]:
    if "square" in attacks:
        number = attacks.index("square")
        others = [
            other
            for other, size in enumerate(state.attacked)
            if size > 0 and (other < number or (individual and other != number))
        ]
        alone = state.fooled[number] & ~state.fooled[others].any(0)
        names = [attacks[other] for other in others]
        yield from checks.square_warnings(int(alone.sum()), len(state.fooled_by), names)
    if state.nan:
        yield f"the logits of {state.nan} adversarial images are NaN; these count as not robust"
    unconfirmed = np.count_nonzero(state.unconfirmed)
    if not unconfirmed or placement.surrogate is not None:  # A surrogate rounds; that is nothing to warn of.
        return
    if placement.num_votes:
        yield (
            f"{unconfirmed} examples had adversarial images that lost the vote of the attack and won the second one; "
            "these images do not count. More samples and votes make fewer of them"
        )
    else:
        yield (
            f"{unconfirmed} examples had adversarial images that left the ball, or that the model, asked again, "
            "predicted right; these images do not count. The model is random, or rounds differently in another batch"
        )


def _result(
    problem: Problem,
    state: State,
    attacks: tuple[str, ...],
    version: str,
    messages: tuple[str, ...],
    *,
    individual: bool,
) -> AutoAttackResult:
    size = len(state.fooled_by)
    correct = state.fooled_by != WRONG
    fooled = state.fooled if individual else np.logical_or.accumulate(state.fooled)
    robust_under = dict(zip(attacks, correct & ~fooled, strict=True))
    return AutoAttackResult(
        adversarial=state.adversarial,
        robust=state.fooled_by == ROBUST,
        fooled_by=state.fooled_by,
        clean_accuracy=100 * int(correct.sum()) / size,
        accuracy={name: 100 * int(robust.sum()) / size for name, robust in robust_under.items()},
        robust_under=robust_under,
        attacked=dict(zip(attacks, state.attacked.tolist(), strict=True)),
        fooled={name: state.num_fooled(number) for number, name in enumerate(attacks)},
        seconds=dict(zip(attacks, state.seconds.tolist(), strict=True)),
        num_targets=problem.targets.shape[1],
        labels=problem.labels,
        norm=problem.norm,
        eps=problem.eps,
        version=version,
        individual=individual,
        surrogate=problem.placement.surrogate is not None,
        unconfirmed=np.flatnonzero(state.unconfirmed),
        warnings=messages,
    )
