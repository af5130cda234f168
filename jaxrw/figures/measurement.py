"""What the figures of one model show: logits of clean and adversarial images, examples, accuracy by eps."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from jaxrw import runs
from jaxrw.attacks import pgd
from jaxrw.methods import margins
from jaxrw.system import files
from jaxrw.training import step
from jaxrw.training.augment import to_pixels

# The attack behind every figure: PGD on the cross-entropy, uniform start, last iterate.
NUM_STEPS = 20

# Columns of the grid of examples: half of them withstand the attack where there are so many.
_EXAMPLES = 8


def measure(parts, variables, directory, *, checkpoint, settings):
    """Measure what the figures of one checkpoint show and keep it in `directory`, as data.npz and data.json.

    The adversarial images are those of the column PGD-20: same key, same index, same settings.

    Args:
      parts: the run's `Experiment`.
      variables: the model's, anywhere.
      directory: path, created if need be.
      checkpoint: dict that says whose these are: name, epoch, step.
      settings: dict of `evaluation`: eps, step_size, batch_size, figure_examples, figure_eps.
    """
    # On one device: some hundred images, and figures need every logit where the counters need a sum.
    variables = jax.device_get(variables)
    size = min(settings["figure_examples"], len(parts.dataset.test.labels))
    labels = parts.dataset.test.labels[:size]
    attack = _create_attack(parts, variables, size, settings)
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
        "class_names": list(parts.dataset.class_names),
        "curve": curve,
        "r": {
            "clean": correlation(*rate_and_similarity(clean, labels)),
            "adversarial": correlation(*rate_and_similarity(adversarial, labels)),
        },
    }
    directory.mkdir(exist_ok=True)
    arrays = {"labels": labels, "clean": clean, "adversarial": adversarial, "chosen": chosen}
    arrays |= {"images": parts.dataset.test.images[chosen], "adversarial_images": adversarial_images[chosen]}
    # Facts come last: with them, `is_measured` takes the arrays for theirs.
    (directory / "data.json").unlink(missing_ok=True)
    with files.replacing(directory / "data.npz") as file:
        np.savez_compressed(file, **arrays)
    runs.write_json(directory / "data.json", facts)


def is_measured(directory, *, checkpoint, settings):
    """Whether `directory` holds what `measure` would write for the same checkpoint and settings."""
    try:
        facts = json.loads((directory / "data.json").read_text())
    except (OSError, ValueError):
        return False
    wanted = {**checkpoint, "settings": settings}
    return {name: facts.get(name) for name in wanted} == json.loads(json.dumps(wanted))


def read(directory):
    """Facts and arrays that `measure` has kept: two dicts."""
    with np.load(directory / "data.npz", allow_pickle=False) as arrays:
        return json.loads((directory / "data.json").read_text()), dict(arrays)


def rate_and_similarity(logits, labels):
    """Incorrect rate 1 - p_y and similarity c of each example (Eq. 6, 11): logits [N, K], labels [N] -> two [N]."""
    rates = -np.expm1(np.asarray(jax.vmap(_log_probability)(logits, labels)))
    return rates, np.asarray(jax.vmap(margins.similarity)(logits, labels))


def correlation(first, second):
    """Pearson's r in [-1, 1] (Eq. 23), None where one of the two does not vary: [N], [N] -> float."""
    first, second = (
        np.asarray(values, np.float64) - np.mean(values, dtype=np.float64) for values in (first, second)
    )
    scale = np.sqrt((first**2).mean()) * np.sqrt((second**2).mean())
    return float((first * second).mean() / scale) if scale > 0 else None


def _log_probability(logits, label):
    """Logarithm of p_y."""
    return jax.nn.log_softmax(jnp.asarray(logits, jnp.float32))[label]


def _create_attack(parts, variables, size, settings):
    """Function of eps -> logits [N, K] and pixels [N, H, W, C] of the first test images under PGD."""
    key, test = jax.device_get(parts.evaluation_key), parts.dataset.test
    batch_size = min(settings["batch_size"], size)
    logits_fn = step.logits_function(parts.evaluation_model, variables)
    predict = jax.jit(lambda logits_fn, images: logits_fn(images))

    def run(eps):
        # A smaller radius in steps as much smaller, so that the curve is of one attack.
        radii = {"eps": eps, "step_size": settings["step_size"] * eps / settings["eps"]} if eps else None
        logits, pixels = [], []
        for start in range(0, size, batch_size):
            index = np.minimum(np.arange(start, start + batch_size), size - 1)  # one shape, one program
            images = to_pixels(test.images[index])
            if radii:
                attack = {"num_steps": NUM_STEPS, "index": index, **radii}
                images = pgd(key, logits_fn, images, test.labels[index], **attack)
            logits.append(predict(logits_fn, images))
            pixels.append(images)
        return np.concatenate(logits)[:size], np.concatenate(pixels)[:size]

    return run


def _choose(clean, adversarial, labels):
    """Examples to show: of the correct ones the first that withstand the attack, then the first that do not; [8]."""
    before, after = clean.argmax(1) == labels, adversarial.argmax(1) == labels
    withstanding, fooled = np.flatnonzero(before & after), np.flatnonzero(before & ~after)
    half = _EXAMPLES // 2
    first = withstanding[: max(half, _EXAMPLES - len(fooled))]
    chosen = np.concatenate([first, fooled[: _EXAMPLES - len(first)]])
    return chosen if len(chosen) else np.arange(min(_EXAMPLES, len(labels)))


def _percent(logits, labels):
    """Accuracy in percent."""
    return 100 * float((logits.argmax(1) == labels).mean())
