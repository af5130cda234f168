r"""AutoAttack here against the reference implementation in PyTorch: same weights, same images, one machine.

    python launch.py --config FILE --workdir RUN --mode export          # writes RUN/last.safetensors
    pip install -e ".[torch]"; git clone https://github.com/fra31/auto-attack
    python -m benchmarks.autoattack --run RUN --reference auto-attack [--images 1000] [--batch-size 250] \
        [--threads 1] [--plain]

Runs every part with both implementations and prints a table. Model, data set, norm and eps are of RUN/config.json,
the images the first test images. Finished parts are kept in RUN/reference: after an interruption, the same command
resumes; with other images, threads or batch sizes, or after another training, it begins anew. Seconds are wall-clock
seconds of the attacks, compiling included. The parts:

    standard    the standard set, each attack on what the ones before it left robust
    ATTACK-S    one attack alone on all images, with seed S, as square-0

With --plain the same network is made of `flax.linen.Conv` alone, as in a model of a user's own.
"""

import contextlib
import dataclasses
import hashlib
import importlib
import json
import os
import pathlib
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks import timing
from jaxrw import networks, settings
from jaxrw.attacks import autoattack
from jaxrw.attacks.autoattack.ensemble import ATTACKS
from jaxrw.attacks.autoattack.state import ROBUST, WRONG
from jaxrw.networks import base, torch_weights
from jaxrw.training.augment import to_pixels
from jaxrw.training.experiment import create_experiment
from jaxrw.training.step import logits_function

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
# FAB-T without restarts draws nothing, so one seed is enough.
PARTS = ("standard", *(f"apgd-ce-{s}" for s in range(3)), "fab-t-0", *(f"square-{s}" for s in range(3)))
ALL_PARTS = ("standard", *(f"{attack}-{seed}" for attack in ATTACKS for seed in range(3)))

Result = dict[str, Any]  # see `_result`


@dataclasses.dataclass(frozen=True)
class Problem:
    """The network, the images [N, H, W, C] in [0, 1] and their labels [N], and how they are attacked."""

    model: networks.Network
    weights: pathlib.Path
    images: np.ndarray
    labels: np.ndarray
    norm: str
    eps: float
    batch_size: int
    plain: bool


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the parts that are not there yet; prints a table of all."""
    flags = timing.parse(
        __doc__,
        arguments,
        choices={"parts": ALL_PARTS},
        run=pathlib.Path,
        reference=str,
        images=1000,
        batch_size=250,
        threads=os.cpu_count() or 1,
        plain=False,
        parts=PARTS,
    )
    os.sched_setaffinity(0, range(flags.threads))  # Before JAX starts its threads.
    sys.path.append(flags.reference)
    config = ConfigDict(json.loads((flags.run / "config.json").read_text()))
    settings.add_fields(config)
    experiment = create_experiment(config)
    test = experiment.dataset.test
    problem = Problem(
        model=experiment.evaluation_model,
        weights=flags.run / "last.safetensors",
        images=np.asarray(to_pixels(test.images[: flags.images])),
        labels=test.labels[: flags.images],
        norm=config.evaluation.norm,
        eps=config.evaluation.eps,
        batch_size=flags.batch_size,
        plain=flags.plain,
    )
    circumstances = {
        "images": len(problem.labels),
        "batch_size": problem.batch_size,
        "threads": flags.threads,
        "norm": problem.norm,
        "eps": problem.eps,
        "weights": hashlib.sha256(problem.weights.read_bytes()).hexdigest(),
    }
    directory = flags.run / "reference"
    directory.mkdir(exist_ok=True)
    rows = []
    for part in flags.parts:
        attacks, seed = (STANDARD, 0) if part == "standard" else ((part[:-2],), int(part[-1]))
        results = []
        for name, run in (
            ("jaxrw-plain" if flags.plain else "jaxrw", run_jaxrw),
            ("reference", run_reference),
        ):
            path = directory / f"{name}-{part}.json"
            kept = json.loads(path.read_text()) if path.exists() else {}
            if kept.get("circumstances") != circumstances:
                kept = {"circumstances": circumstances, **run(problem, attacks, seed)}
                path.write_text(json.dumps(kept))
            results.append(kept)
        rows += compare(part, *results, size=len(problem.labels))
    print(timing.table(rows))


def run_jaxrw(problem: Problem, attacks: Sequence[str], seed: int) -> Result:
    """Runs attacks of this project, each on the images that the ones before it left robust."""
    model = problem.model
    variables = torch_weights.load(problem.weights, model=model, num_classes=model.num_classes)
    with plain_convolutions() if problem.plain else contextlib.nullcontext():
        result = autoattack(
            jax.random.key(seed),
            logits_function(model, variables),
            problem.images,
            problem.labels,
            norm=problem.norm,
            eps=problem.eps,
            batch_size=problem.batch_size,
            attacks=attacks,
        )
    fooled_by = result.fooled_by
    robust = {name: (fooled_by == ROBUST) | (fooled_by > number) for number, name in enumerate(attacks)}
    return _result(fooled_by != WRONG, robust, result.seconds)


@contextlib.contextmanager
def plain_convolutions() -> Iterator[None]:
    """Lets the layers of every network be plain `flax.linen.Conv`."""
    with mock.patch.object(base, "for_flax", jax.lax.conv_general_dilated):
        yield


def run_reference(problem: Problem, attacks: Sequence[str], seed: int) -> Result:
    """Runs the same attacks of the reference."""
    import torch
    from safetensors.torch import load_file

    from benchmarks import pytorch

    create = importlib.import_module("autoattack").AutoAttack
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    norm = problem.norm.replace("l", "L")
    network = pytorch.create_network(problem.model, load_file(problem.weights))
    images, labels = pytorch.to_torch(problem.images), torch.from_numpy(problem.labels).long()
    clean = pytorch.is_correct(network, images, labels).numpy()
    flags, robust, seconds = clean.copy(), {}, {}
    for name in attacks:
        began, index = time.monotonic(), np.flatnonzero(flags)
        reference = create(network, norm=norm, eps=problem.eps, seed=seed, verbose=False, device="cpu")
        reference.attacks_to_run = [name]
        adversarial = reference.run_standard_evaluation(images[index], labels[index], bs=problem.batch_size)
        flags[index] = pytorch.is_correct(network, adversarial, labels[index]).numpy()
        robust[name], seconds[name] = flags.copy(), time.monotonic() - began
    return _result(clean, robust, seconds)


def _result(clean: np.ndarray, robust: dict[str, np.ndarray], seconds: dict[str, float]) -> Result:
    if len(robust) > 1:
        robust = robust | {"all": list(robust.values())[-1]}
        seconds = seconds | {"all": sum(seconds.values())}
    return {
        "correct": int(clean.sum()),
        "robust": {attack: np.flatnonzero(flags).tolist() for attack, flags in robust.items()},
        "seconds": seconds,
    }


def compare(part: str, ours: Result, theirs: Result, *, size: int) -> list[dict[str, str]]:
    """Returns a row of the table for each attack of a part; `size`: number of images."""
    assert ours["correct"] == theirs["correct"], "not the same weights or images"
    rows = []
    for attack, flags in ours["robust"].items():
        peer_flags = theirs["robust"][attack]
        seconds, peer_seconds = ours["seconds"][attack], theirs["seconds"][attack]
        rows.append(
            {
                "part": part,
                "attack": attack,
                "robust %": f"{100 * len(flags) / size:.1f}",
                "reference": f"{100 * len(peer_flags) / size:.1f}",
                "same flag": f"{size - len(set(flags) ^ set(peer_flags))} of {size}",
                "s": f"{seconds:.0f}",
                "reference, s": f"{peer_seconds:.0f}",
                "ratio": f"{seconds / peer_seconds:.2f}",
            }
        )
    return rows


if __name__ == "__main__":
    main()
