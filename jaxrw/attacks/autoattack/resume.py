"""The file that an interrupted evaluation resumes from: an .npz without pickle, replaced atomically."""

import dataclasses
import hashlib
import json
import os
import pathlib
import time
import zipfile
from collections.abc import Sequence

import jax
import numpy as np

from jaxrw.attacks.autoattack.ensemble import Budget
from jaxrw.attacks.autoattack.problem import Problem
from jaxrw.attacks.autoattack.state import State
from jaxrw.system import files, hosts

# Raise it whenever the same evaluation would have another result, or the file holds other arrays.
VERSION = 3

# Logits of the same model may differ between machines by this share of their magnitude.
TOLERANCE = 1e-3

# Images whose logits identify the model.
_KEPT_LOGITS = 64


class StateError(ValueError):
    """A file that an evaluation cannot resume from: not a state, or the state of another evaluation."""


class StateFile:
    """The state file of one evaluation.

    Args:
      path: None never writes, and there is nothing to resume from.
      problem: what is attacked.
      attacks: names of the attacks.
      budget: of the attacks.
      interval: seconds between two writes within an attack.
      individual: whether each attack runs on all examples.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        problem: Problem,
        attacks: Sequence[str],
        budget: Budget,
        interval: float,
        *,
        individual: bool = False,
    ) -> None:
        self._path = None if path is None else pathlib.Path(path)
        self._problem, self._num_attacks, self._interval = problem, len(attacks), interval
        # Everything but the model that the result depends on.
        self._fingerprint = {
            "version": str(VERSION),
            "images": _digest(problem.images),
            "labels": _digest(problem.labels),
            "norm": problem.norm,
            "eps": repr(float(problem.eps)),
            "key": str(np.asarray(jax.random.key_data(problem.key)).tolist()),
            "attacks": ", ".join(attacks),
            "individual": str(individual),
            # Files of versions without surrogates lack it.
            "surrogate": None if problem.placement.surrogate is None else "given",
            "settings": json.dumps(dataclasses.asdict(budget), sort_keys=True),
        }
        self._logits = problem.logits[:_KEPT_LOGITS]
        self._saved_at = time.monotonic()

    def is_due(self) -> bool:
        """Whether the interval has passed since the last write."""
        return time.monotonic() - self._saved_at >= self._interval

    def save(self, state: State) -> None:
        """Replaces the file, on the first host only; a reader sees the old file or the new one, never a part."""
        if self._path is None or not hosts.is_first():
            return
        fingerprint = np.array(json.dumps(self._fingerprint))
        with files.replacing(self._path) as file:
            np.savez(file, fingerprint=fingerprint, logits=self._logits, **state.arrays())
        self._saved_at = time.monotonic()

    def load(self) -> State:
        """Returns the saved state, or the state before the first attack if there is no file.

        Raises:
          StateError: the file is not a state, or belongs to another evaluation; the message names what differs.
        """
        path = self._path
        if path is None or not path.exists():
            return State.create(self._problem, self._num_attacks)
        try:
            with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                arrays = dict(file)
            saved, saved_logits = json.loads(str(arrays.pop("fingerprint"))), arrays.pop("logits")
        except (
            OSError,
            EOFError,
            KeyError,
            ValueError,
            TypeError,
            AttributeError,
            zipfile.BadZipFile,
        ) as error:
            raise StateError(
                f"state_path {path} holds no state of an evaluation; remove it to begin anew"
            ) from error
        differing = [name for name, value in self._fingerprint.items() if saved.get(name) != value]
        if not differing and not _same_logits(saved_logits, self._logits):
            differing = ["model"]
        if differing:
            shown = "".join(
                f" ({name} was {saved.get(name)}, is {self._fingerprint[name]})"
                for name in differing
                if name not in ("images", "labels", "model")
            )
            raise StateError(
                f"state_path {path} belongs to another evaluation: {', '.join(differing)} differ{shown}; "
                "remove it to begin anew"
            )
        return State.from_arrays(arrays, self._problem)


def _digest(array: np.ndarray) -> str:
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _same_logits(saved: np.ndarray, logits: np.ndarray) -> bool:
    """Returns whether logits agree up to rounding."""
    if saved.shape != logits.shape:
        return False
    scale = np.abs(np.nan_to_num(logits)).max(initial=0)
    return np.allclose(saved, logits, rtol=0, atol=TOLERANCE * scale, equal_nan=True)
