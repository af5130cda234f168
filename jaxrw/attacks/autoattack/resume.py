"""The file that lets an interrupted evaluation go on: an .npz without pickle, replaced atomically."""

import hashlib
import json
import pathlib
import zipfile

import jax
import numpy as np

from jaxrw.system import files

# Raise it whenever the same evaluation would end in other numbers or the file holds other arrays.
VERSION = 2

# Logits of the same model may differ by this much of their magnitude between machines.
TOLERANCE = 1e-3


class StateError(ValueError):
    """A state file that cannot be gone on from: of another evaluation, or no such file at all."""


def fingerprint(key, images, labels, *, eps, attacks, settings):
    """Everything but the model that decides what an evaluation ends in; {name: string}."""
    return {
        "version": str(VERSION),
        "images": _digest(images),
        "labels": _digest(labels),
        "eps": repr(float(eps)),
        "key": str(np.asarray(jax.random.key_data(key)).tolist()),
        "attacks": ", ".join(attacks),
        "settings": json.dumps(settings, sort_keys=True),
    }


def save(path, arrays, *, fingerprint, logits):
    """Write {name: array} and what they belong to; a reader sees the old file or the new one, never a part."""
    with files.replacing(path) as file:
        np.savez(file, fingerprint=np.array(json.dumps(fingerprint)), logits=logits, **arrays)


def load(path, *, fingerprint, logits):
    """{name: array} as saved, or None where there is no file.

    Args:
      path: of the file.
      fingerprint: of the evaluation that wants to go on.
      logits: [n, K] of the first images by its model.

    Raises:
      ValueError: the file is no such state, or belongs to another evaluation; the line names what differs.
    """
    path = pathlib.Path(path)
    if not path.exists():
        return None
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = dict(file)
        saved, saved_logits = json.loads(str(arrays.pop("fingerprint"))), arrays.pop("logits")
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise StateError(
            f"state_path {path} holds no state of an evaluation; remove it to begin anew"
        ) from error
    differing = [name for name, value in fingerprint.items() if saved.get(name) != value]
    if not differing and not _same_logits(saved_logits, logits):
        differing = ["model"]
    if differing:
        shown = "".join(
            f" ({name} was {saved.get(name)}, is {fingerprint[name]})"
            for name in differing
            if name not in ("images", "labels", "model")
        )
        raise StateError(
            f"state_path {path} belongs to another evaluation: {', '.join(differing)} differ{shown}; "
            "remove it to begin anew"
        )
    return arrays


def _digest(array):
    """SHA-256 of an array's type, shape and bytes."""
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _same_logits(saved, logits):
    """Whether two models agree on the first images, up to rounding."""
    if saved.shape != logits.shape:
        return False
    scale = np.abs(np.nan_to_num(logits)).max(initial=0)
    return np.allclose(saved, logits, rtol=0, atol=TOLERANCE * scale, equal_nan=True)
