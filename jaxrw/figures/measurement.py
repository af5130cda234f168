"""The data of a checkpoint's figures: logits of clean and adversarial images, examples, accuracy by eps."""

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrw import runs
from jaxrw.attacks import pgd
from jaxrw.methods import margins
from jaxrw.system import files
from jaxrw.training import step
from jaxrw.training.augment import to_pixels
from jaxrw.training.experiment import Experiment
from jaxrw.training.step import Variables

# What `measure` saves: the content of data.json, and the arrays of data.npz by name.
Facts = dict[str, Any]
Arrays = dict[str, np.ndarray]

# The attack behind every figure: PGD on the cross-entropy, uniform start, last iterate.
NUM_STEPS = 20

# Columns of the grid of examples; half of them withstand the attack if enough do.
_EXAMPLES = 8


def measure(
    experiment: Experiment,
    variables: Variables,
    directory: pathlib.Path,
    *,
    checkpoint: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> None:
    """Measures what the figures of one checkpoint show and saves it in `directory`, as data.npz and data.json.

    The adversarial images are those of the column PGD-20: same key, same index, same settings.

    Args:
      experiment: the run's.
      variables: the model's, on any device.
      directory: path, created if need be.
      checkpoint: its name, epoch and step.
      settings: fields of `evaluation`: norm, eps, step_size, batch_size, figure_examples, figure_eps.
    """
    # On one device: there are few images, and figures need every logit.
    variables = jax.device_get(variables)
    size = min(settings["figure_examples"], len(experiment.dataset.test.labels))
    labels = experiment.dataset.test.labels[:size]
    attack = _create_attack(experiment, variables, size, settings)
    with jax.default_matmul_precision("highest"):
        (clean, _), (adversarial, adversarial_images) = attack(0.0), attack(settings["eps"])
        known = {0.0: clean, settings["eps"]: adversarial}
        radii = [multiple * settings["eps"] for multiple in settings["figure_eps"]]
        curve = [[eps, _percent(known[eps] if eps in known else attack(eps)[0], labels)] for eps in radii]
    chosen = _choose(clean, adversarial, labels)
    facts = {
        **checkpoint,
        "settings": settings,
        "num_examples": size,
        "num_steps": NUM_STEPS,
        "class_names": list(experiment.dataset.class_names),
        "curve": curve,
        "r": {
            "clean": correlation(*rate_and_similarity(clean, labels)),
            "adversarial": correlation(*rate_and_similarity(adversarial, labels)),
        },
    }
    directory.mkdir(exist_ok=True)
    arrays: dict[str, Any] = {"labels": labels, "clean": clean, "adversarial": adversarial, "chosen": chosen}
    arrays |= {
        "images": experiment.dataset.test.images[chosen],
        "adversarial_images": adversarial_images[chosen],
    }
    # The facts are written last: once they exist, `is_measured` takes the arrays to be theirs.
    (directory / "data.json").unlink(missing_ok=True)
    with files.replacing(directory / "data.npz") as file:
        np.savez_compressed(file, **arrays)
    runs.write_json(directory / "data.json", facts)


def is_measured(
    directory: pathlib.Path, *, checkpoint: Mapping[str, Any], settings: Mapping[str, Any]
) -> bool:
    """Returns whether `directory` holds what `measure` would write for the same checkpoint and settings."""
    try:
        facts = json.loads((directory / "data.json").read_text())
    except (OSError, ValueError):
        return False
    wanted = {**checkpoint, "settings": settings}
    return {name: facts.get(name) for name in wanted} == json.loads(json.dumps(wanted))


def read(directory: pathlib.Path) -> tuple[Facts, Arrays]:
    """Returns the facts and arrays that `measure` saved."""
    with np.load(directory / "data.npz", allow_pickle=False) as arrays:
        return json.loads((directory / "data.json").read_text()), dict(arrays)


def rate_and_similarity(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes each example's incorrect rate 1 - p_y and similarity c, both [N], from logits [N, K] (Eq. 6, 11)."""
    z, y = jnp.asarray(logits), jnp.asarray(labels)
    rates = -np.expm1(np.asarray(jax.vmap(_log_probability)(z, y)))
    return rates, np.asarray(jax.vmap(margins.similarity)(z, y))


def correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    """Computes Pearson's r in [-1, 1] (Eq. 23) of two arrays [N]; None if one of them does not vary."""
    from scipy import stats  # here, because importing it takes a second

    first, second = first.astype(np.float64), second.astype(np.float64)
    if not (np.ptp(first) > 0 and np.ptp(second) > 0):
        return None
    return float(stats.pearsonr(first, second).statistic)


def _log_probability(logits: jax.Array, label: jax.Array) -> jax.Array:
    return jax.nn.log_softmax(jnp.asarray(logits, jnp.float32))[label]


def _create_attack(
    experiment: Experiment, variables: Variables, size: int, settings: Mapping[str, Any]
) -> Callable[[float], tuple[np.ndarray, np.ndarray]]:
    """Returns a function of eps: logits [N, K] and pixels [N, H, W, C] of the first test images under PGD."""
    key, test = jax.device_get(experiment.evaluation_key), experiment.dataset.test
    # The setting is of all devices, and this is one of them.
    batch_size = min(-(-settings["batch_size"] // jax.device_count()), size)
    logits_fn = step.logits_function(experiment.evaluation_model, variables)
    predict = jax.jit(lambda logits_fn, images: logits_fn(images))

    def run(eps: float) -> tuple[np.ndarray, np.ndarray]:
        # The step size shrinks with the radius, so that the whole curve is of one attack.
        step_size = settings["step_size"] * eps / settings["eps"] if eps else 0.0
        radii = {"norm": settings["norm"], "eps": eps, "step_size": step_size}
        logits, pixels = [], []
        for start in range(0, size, batch_size):
            index = np.minimum(np.arange(start, start + batch_size), size - 1)  # one shape, one program
            images = jnp.asarray(to_pixels(test.images[index]))
            if eps:
                batch = images, jnp.asarray(test.labels[index])
                images = pgd(key, logits_fn, *batch, num_steps=NUM_STEPS, index=jnp.asarray(index), **radii)
            logits.append(predict(logits_fn, images))
            pixels.append(images)
        return np.concatenate(logits)[:size], np.concatenate(pixels)[:size]

    return run


def _choose(clean: np.ndarray, adversarial: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the indices [8] of the first correct examples that withstand the attack, then that do not."""
    before, after = clean.argmax(1) == labels, adversarial.argmax(1) == labels
    withstanding, fooled = np.flatnonzero(before & after), np.flatnonzero(before & ~after)
    half = _EXAMPLES // 2
    first = withstanding[: max(half, _EXAMPLES - len(fooled))]
    chosen = np.concatenate([first, fooled[: _EXAMPLES - len(first)]])
    return chosen if len(chosen) else np.arange(min(_EXAMPLES, len(labels)))


def _percent(logits: np.ndarray, labels: np.ndarray) -> float:
    return 100 * float((logits.argmax(1) == labels).mean())
