"""AutoAttack in the L-infinity ball: four attacks, each on what the ones before it left robust.

Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
attacks", ICML 2020, the "standard" set. An attack runs on a fixed number of slots; whoever is fooled, or at its
end, gives its slot to the next example, so that no work goes to examples already decided and nothing is compiled
again. Examples do not notice: `jaxrw.attacks.batch` says why.
"""

import collections
import dataclasses
import functools
import pathlib
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrw.attacks.apgd import Apgd
from jaxrw.attacks.autoattack import checks, resume
from jaxrw.attacks.autoattack.slots import Slots, round_up, slot_count
from jaxrw.attacks.batch import Batch, as_function
from jaxrw.attacks.fab import Fab
from jaxrw.attacks.losses import rank_targets
from jaxrw.attacks.square import Square
from jaxrw.methods.margins import is_correct
from jaxrw.system import hosts

# What can be asked for. An attack's place here goes into its random key: append, never reorder.
ATTACKS = ("apgd-ce", "apgd-t", "fab-t", "square", "apgd-dlr")
STANDARD = ATTACKS[:4]

# Values of `AutoAttackResult.fooled_by` that are not the number of an attack.
WRONG, ROBUST = -2, -1

# Steps between two looks from the host: a decided example keeps its slot for at most so long.
_STEPS_PER_LOOK = {"apgd-ce": 5, "apgd-dlr": 5, "apgd-t": 10, "fab-t": 10, "square": 100}


@dataclasses.dataclass(frozen=True)
class AutoAttackResult:
    """What AutoAttack found; accuracies in percent of all N examples, in [0, 100]."""

    adversarial: np.ndarray  # [N, H, W, C] float32: what fooled; the image itself where nothing had to or did
    robust: np.ndarray  # [N] bool: correct, and fooled by no attack; the worst case
    fooled_by: np.ndarray  # [N] int8: number of the attack in `accuracy`, ROBUST, or WRONG without any attack
    clean_accuracy: float
    accuracy: dict[str, float]  # after this attack and all before it
    attacked: dict[str, int]  # examples that this attack was run on: robust until then
    fooled: dict[str, int]  # of them, those that it fooled
    seconds: dict[str, float]  # spent on it, compiling included
    num_targets: int  # wrong classes that a targeted attack tries: K - 1 where that is less than asked for
    warnings: tuple[str, ...]  # each also a `RobustnessWarning`


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where an evaluation stands, after a look at its slots."""

    attack: str
    size: int  # all examples
    robust: int  # examples not fooled so far
    fraction: float  # of this attack's work, in [0, 1]
    seconds: float  # spent on this attack
    seconds_left: float  # until its end, if it goes on at this pace
    together: bool  # whether all hosts are told this one: at an attack's end; a host alone always is


def autoattack(
    key,
    logits_fn,
    images,
    labels,
    *,
    eps,
    batch_size,
    attacks=STANDARD,
    num_steps=100,
    num_targets=9,
    num_queries=5000,
    progress=None,
    state_path=None,
    state_seconds=60.0,
):
    """Worst case over AutoAttack's attacks; a `AutoAttackResult` with accuracies in percent.

    Wrong examples are not attacked; each attack, and each target of a targeted one, runs on what is still
    robust. An example counts as fooled only when its adversarial image lies in the ball and in [0, 1] and the
    model, asked again, predicts it wrong. All devices share the work, and so do all hosts, of which each gets the whole
    result; several hosts write the state at an attack's end only. Flags and images depend on `key` and the
    example's place in `images`, not on `batch_size` or the number of devices, as far as the model's logits do
    not: rounding may differ between batch shapes.

    Args:
      key: PRNG key.
      logits_fn: images [B, H, W, C] in [0, 1] -> logits [B, K]; each row depends on its own image alone. A
        function is compiled for each object; a `jax.tree_util.Partial` takes its arrays as arguments, so that
        another checkpoint of the same model compiles nothing again.
      images: [N, H, W, C] float in [0, 1].
      labels: [N] integer in 0..K-1.
      eps: radius in pixel units of [0, 1]: 8 / 255, not 8.
      batch_size: largest number of examples attacked at a time, over all devices; rounded up to a multiple of
        their number.
      attacks: of `ATTACKS`, in this order.
      num_steps: of APGD and FAB, for each target.
      num_targets: of APGD-T and FAB-T; K - 1 where that is less.
      num_queries: of Square.
      progress: called with a `Progress` after every look at the slots; what it raises ends the evaluation, with
        its state written. Of several hosts, all must raise, at a `Progress` that is for all of them, `together`.
      state_path: file (.npz) that is written as the evaluation proceeds, and gone on from where it exists. It
        stays at the end: the same call then returns at once.
      state_seconds: least time between two writes within an attack; 0 writes after every look.

    Returns:
      A `AutoAttackResult`.

    Raises:
      ValueError: a mistake in the arguments, or a state that belongs to another evaluation.

    Warns:
      RobustnessWarning: outputs that are probabilities, random, or dependent on the batch; logits that are NaN;
        zero input gradients; Square beating the attacks with gradients; images that fool only sometimes.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    attacks = tuple(attacks)
    checks.check_problem(images, labels, eps=eps, batch_size=batch_size)
    if state_path is not None and not pathlib.Path(state_path).parent.is_dir():
        raise ValueError(f"state_path is {state_path}; its directory does not exist")
    _check_attacks(attacks, num_steps=num_steps, num_targets=num_targets, num_queries=num_queries)
    images, labels = images.astype(np.float32), labels.astype(np.int32)
    settings = {"num_steps": num_steps, "num_targets": num_targets, "num_queries": num_queries}
    with jax.default_matmul_precision("highest"):
        evaluation = _Evaluation(key, logits_fn, images, labels, eps=eps, batch_size=batch_size)
        evaluation.look_at_model(num_targets)
        evaluation.open_state(
            state_path,
            attacks=attacks,
            every=state_seconds,
            fingerprint=resume.fingerprint(key, images, labels, eps=eps, attacks=attacks, settings=settings),
        )
        for number, name in enumerate(attacks):
            evaluation.run(number, name, _create(name, **settings), progress or (lambda _: None))
        return evaluation.result(attacks)


class _Evaluation:
    """One evaluation on the host: who is still robust, who is being attacked, and the state file."""

    def __init__(self, key, logits_fn, images, labels, *, eps, batch_size):
        self._key, self._images, self._labels, self._eps = key, images, labels, eps
        mesh = Mesh(np.array(jax.local_devices()), ("examples",))
        self._split = functools.partial(jax.device_put, device=NamedSharding(mesh, PartitionSpec("examples")))
        self._plain_logits_fn = logits_fn
        self._logits_fn = jax.device_put(as_function(logits_fn), NamedSharding(mesh, PartitionSpec()))
        self._devices, self._num_hosts = mesh.size, jax.process_count()
        self._batch_size = round_up(batch_size, self._devices)
        self._predict_size = min(self._batch_size, round_up(len(labels), self._devices))
        self._warnings = []
        self._unconfirmed, self._nan = set(), 0

    def look_at_model(self, num_targets):
        """Predict all examples, rank their targets, and warn of what makes attacks fail."""
        first = self._padded(self._images)
        logits = np.asarray(_predict(self._logits_fn, self._split(first)))
        if logits.ndim != 2 or len(logits) != len(first):
            raise ValueError(
                f"logits_fn maps {first.shape} to {logits.shape}; must be [B, H, W, C] to [B, K]"
            )
        if logits.shape[1] < 2:
            raise ValueError(f"logits_fn gives {logits.shape[1]} class; must be 2 or more")
        checks.check_labels(self._labels, logits.shape[1])
        for complaint in checks.complaints_about_outputs(self._predict, self._plain_logits_fn, first, logits):
            self._warn(complaint)
        placed = self._split((first, self._padded(self._labels)))
        for complaint in checks.complaints_about_gradients(self._logits_fn, *placed):
            self._warn(complaint)
        self._logits, self._clean_correct = self._predict_all(self._images, self._labels)
        number = int(np.isnan(self._logits).any(1).sum())
        if number:
            self._warn(f"the logits of {number} images are NaN; these count as not robust")
        self._targets = self._in_batches(
            functools.partial(_rank, num_targets=num_targets), self._logits, self._labels
        )[0]

    def open_state(self, path, *, attacks, fingerprint, every):
        """Begin, or go on where the state file stopped."""
        if "apgd-dlr" in attacks and self._logits.shape[1] < 3:
            raise ValueError("attack 'apgd-dlr' needs at least 3 classes, and the model has 2; leave it out")
        size = len(self._labels)
        self._path, self._every, self._fingerprint, self._saved_at = (
            path,
            every,
            fingerprint,
            time.monotonic(),
        )
        self._fooled_by = np.where(self._clean_correct, ROBUST, WRONG).astype(np.int8)
        self._adversarial = self._images.copy()
        self._tried = np.zeros((len(attacks), size), np.int16)  # targets that failed, of each attack
        self._seconds = np.zeros(len(attacks))
        self._attacked = np.full(len(attacks), -1)  # -1: not begun
        self._interrupted = None  # what the slots held
        if path is None:
            return
        arrays = resume.load(path, fingerprint=fingerprint, logits=self._logits[:_KEPT_LOGITS])
        if arrays is not None:
            self._fooled_by, self._tried, self._seconds, self._attacked = (
                arrays[name] for name in ("fooled_by", "tried", "seconds", "attacked")
            )
            self._adversarial[self._fooled_by >= 0] = arrays["adversarial"]
            self._unconfirmed, self._nan = set(arrays["unconfirmed"].tolist()), int(arrays["nan"])
            self._interrupted = arrays if "slot_examples" in arrays else None

    def run(self, number, name, attack, progress):
        """Run one attack on all that is still robust."""
        last = self._targets.shape[1] if attack.targeted else 1
        robust = np.flatnonzero(self._fooled_by == ROBUST)
        if self._attacked[number] < 0:
            self._attacked[number] = len(robust)
        waiting = robust[self._tried[number, robust] < last]
        if not len(waiting):
            return
        nan_before = self._nan
        spent, begun = self._seconds[number], time.monotonic()
        slots = self._slots(number, name, attack)
        mine = waiting[hosts.mine(len(self._labels))[waiting]].tolist()
        waiting = collections.deque(example for example in mine if not slots.hold(example))
        while slots.fill(waiting, self._tried[number]):
            slots.advance(_STEPS_PER_LOOK[name])
            for example, adversarial in slots.settle():
                if adversarial is not None:
                    self._fooled_by[example], self._adversarial[example] = number, adversarial
                    continue
                self._tried[number, example] += 1
                if self._tried[number, example] < last:
                    waiting.append(example)
            self._seconds[number] = spent + time.monotonic() - begun
            if time.monotonic() - self._saved_at >= self._every:
                self._save(slots)
            try:
                progress(self._progress(number, name, last, slots.work_in_progress()))
            except BaseException:  # whoever watches wants to stop here
                self._save(slots)
                raise
        self._merge(nan_before)
        self._save(None)
        if self._num_hosts > 1:
            progress(self._progress(number, name, last, 0, together=True))

    def _merge(self, nan_before):
        """Put together what each host has found out about its own examples."""
        self._fooled_by, self._adversarial = hosts.gather(self._fooled_by), hosts.gather(self._adversarial)
        self._tried = hosts.gather(self._tried.T).T
        unconfirmed = np.isin(np.arange(len(self._labels)), list(self._unconfirmed))
        self._unconfirmed = set(np.flatnonzero(hosts.gather(unconfirmed)).tolist())
        self._nan = nan_before + hosts.total(self._nan - nan_before)

    def result(self, attacks):
        """What was found, with the warnings that only the end allows."""
        size = len(self._labels)
        fooled = {name: int((self._fooled_by == number).sum()) for number, name in enumerate(attacks)}
        if "square" in attacks:
            others = [
                name for name in attacks[: attacks.index("square")] if self._attacked[attacks.index(name)] > 0
            ]
            for complaint in checks.complaints_about_square(fooled["square"], size, others):
                self._warn(complaint)
        if self._nan:
            self._warn(f"the logits of {self._nan} adversarial images are NaN; these count as not robust")
        if self._unconfirmed:
            self._warn(
                f"{len(self._unconfirmed)} examples had adversarial images that the model, asked again, predicted "
                "right; these images do not count. The model is random, or rounds differently in another batch"
            )
        correct = np.count_nonzero(self._fooled_by != WRONG)
        left = correct - np.cumsum([0, *fooled.values()])[1:]
        return AutoAttackResult(
            adversarial=self._adversarial,
            robust=self._fooled_by == ROBUST,
            fooled_by=self._fooled_by,
            clean_accuracy=100 * correct / size,
            accuracy={name: 100 * int(number) / size for name, number in zip(attacks, left, strict=True)},
            attacked={name: int(number) for name, number in zip(attacks, self._attacked, strict=True)},
            fooled=fooled,
            seconds={name: float(number) for name, number in zip(attacks, self._seconds, strict=True)},
            num_targets=self._targets.shape[1],
            warnings=tuple(self._warnings),
        )

    def confirm(self, examples, adversarial):
        """Whether images lie in the ball and fool the model when it is asked again; [n] bool."""
        logits, correct = self._predict_all(adversarial, self._labels[examples])
        confirmed = ~correct & checks.in_ball(adversarial, self._images[examples], eps=self._eps)
        self._nan += int((np.isnan(logits).any(1) & confirmed).sum())
        self._unconfirmed.update(examples[~confirmed].tolist())
        return confirmed

    def _slots(self, number, name, attack):
        """Slots for an attack, as full of the interrupted examples as they were."""
        slots = Slots(
            jax.random.fold_in(self._key, ATTACKS.index(name)),
            self._logits_fn,
            Batch(self._images, self._labels, self._targets, None, None),
            attack=attack,
            number=number,
            eps=jnp.float32(self._eps),
            size=slot_count(
                -(-int(self._attacked[number]) // self._num_hosts), self._batch_size, self._devices
            ),
            split=self._split,
            confirm=self.confirm,
        )
        if self._interrupted is not None and int(self._interrupted["slot_attack"]) == number:
            slots.restore(self._interrupted)
        self._interrupted = None
        return slots

    def _progress(self, number, name, last, in_progress, *, together=False):
        """Where the running attack stands: this host's share, or with `together` all of it."""
        all_work = self._attacked[number] * last / (1 if together else self._num_hosts)
        fooled = np.count_nonzero(self._fooled_by == number)
        done = fooled * last + self._tried[number][self._fooled_by == ROBUST].sum() + in_progress
        fraction = float(min(done / all_work, 1))
        seconds = float(self._seconds[number])
        return Progress(
            attack=name,
            size=len(self._labels),
            robust=int(np.count_nonzero(self._fooled_by == ROBUST)),
            fraction=fraction,
            seconds=seconds,
            seconds_left=seconds * (1 - fraction) / max(fraction, 1e-9),
            together=together or self._num_hosts == 1,
        )

    def _save(self, slots):
        """Write the state; `slots` is None at an attack's end, and only there several hosts know of each other."""
        if self._path is None or not hosts.is_first() or (slots is not None and self._num_hosts > 1):
            return
        arrays = {
            "fooled_by": self._fooled_by,
            "adversarial": self._adversarial[self._fooled_by >= 0],
            "tried": self._tried,
            "seconds": self._seconds,
            "attacked": self._attacked,
            "unconfirmed": np.array(sorted(self._unconfirmed), np.int32),
            "nan": np.int32(self._nan),
        }
        if slots is not None:
            arrays |= slots.saved()
        logits = self._logits[:_KEPT_LOGITS]
        resume.save(self._path, arrays, fingerprint=self._fingerprint, logits=logits)
        self._saved_at = time.monotonic()

    def _predict(self, images):
        """Logits of one full batch, on the host."""
        return np.asarray(_predict(self._logits_fn, self._split(images)), np.float32)

    def _predict_all(self, images, labels):
        """Logits and correctness of any number of images."""
        return self._in_batches(functools.partial(_judge, self._logits_fn), images, labels)

    def _in_batches(self, function, *arrays):
        """What a compiled function gives for any number of examples, asked in padded batches of one size."""
        outputs = []
        for start in range(0, len(arrays[0]), self._predict_size):
            placed = self._split(tuple(self._padded(array[start:]) for array in arrays))
            outputs.append([np.asarray(output) for output in function(*placed)])
        return [np.concatenate(parts)[: len(arrays[0])] for parts in zip(*outputs, strict=True)]

    def _padded(self, array):
        """First batch of an array, its last entry repeated as often as needed."""
        return array[np.minimum(np.arange(self._predict_size), len(array) - 1)]

    def _warn(self, message):
        self._warnings.append(message)
        warnings.warn(message, checks.RobustnessWarning, stacklevel=4)


# Images whose logits tell, in a state file, one model from another.
_KEPT_LOGITS = 64


@jax.jit
def _predict(logits_fn, images):
    """Compiled model."""
    return logits_fn(images)


@jax.jit
def _judge(logits_fn, images, labels):
    """Compiled model and what it gets right: logits [B, K] float32, [B] bool."""
    logits = _predict(logits_fn, images).astype(jnp.float32)
    return logits, jax.vmap(is_correct)(logits, labels)


@functools.partial(jax.jit, static_argnames="num_targets")
def _rank(logits, labels, *, num_targets):
    """Targets [B, T] of every example, in a tuple."""
    return (jax.vmap(rank_targets, (0, 0, None))(logits, labels, num_targets),)


def _create(name, *, num_steps, num_targets, num_queries):
    """Attack of that name, towards one target."""
    del num_targets
    if name == "fab-t":
        return Fab(num_steps=num_steps)
    if name == "square":
        return Square(num_queries=num_queries)
    losses = {"apgd-ce": "ce", "apgd-dlr": "dlr", "apgd-t": "dlr-targeted"}
    return Apgd(num_steps=num_steps, loss=losses[name])


def _check_attacks(attacks, **numbers):
    """Raise ValueError, in one line, unless the attacks exist and their numbers make sense."""
    for name in attacks:
        if name not in ATTACKS:
            raise ValueError(f"attack is {name!r}; choose of {', '.join(ATTACKS)}")
    if not attacks or len(set(attacks)) < len(attacks):
        raise ValueError(f"attacks are {attacks}; name at least one, and each once, of {', '.join(ATTACKS)}")
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} is {number}; must be 1 or more")
