r"""AutoAttack here against the reference implementation in PyTorch: same weights, same images, one machine.

    python launch.py --mode export --config FILE --workdir RUN          # writes RUN/last.safetensors
    pip install -e ".[torch]"; git clone https://github.com/fra31/auto-attack
    python -m benchmarks.autoattack --weights RUN/last.safetensors --model resnet18 --width 8 --data-dir DIR \
        --reference auto-attack --out comparison

Runs every part with both implementations and prints a table. `--out` keeps finished parts: if it is interrupted, the
same command resumes. Seconds are wall-clock seconds of the attacks, compiling included. The parts:

    standard    the standard set, each attack on what the ones before it left robust
    apgd-ce-S, fab-t-S, square-S    one attack alone on all images, with seed S

`--images` is the number of test images, from the first; `--downscale 2` halves their height and width; `--depth 0` and
`--width 0` are the model's defaults.
"""

import argparse
import importlib
import json
import os
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from benchmarks import timing
from jaxrw import data, networks
from jaxrw.attacks import autoattack
from jaxrw.networks import torch_weights
from jaxrw.training.augment import to_pixels
from jaxrw.training.step import logits_function

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
# FAB-T without restarts draws nothing, so one seed is enough.
PARTS = ("standard", *(f"apgd-ce-{s}" for s in range(3)), "fab-t-0", *(f"square-{s}" for s in range(3)))

Result = dict[str, Any]  # see `_result`


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the parts that `--out` does not hold yet; prints a table of all."""
    flags = timing.parse(
        __doc__,
        arguments,
        choices={"model": tuple(networks.ARCHITECTURES), "parts": PARTS},
        weights=str,
        model="resnet18",
        depth=0,
        width=0,
        dataset="cifar10",
        data_dir="",
        downscale=1,
        images=1000,
        eps=8 / 255,
        batch_size=250,
        reference=str,
        out=pathlib.Path,
        parts=PARTS,
    )
    flags.out.mkdir(parents=True, exist_ok=True)
    dataset = data.load(
        flags.dataset,
        data_dir=flags.data_dir or None,
        train_size=None,
        validation_size=0,
        test_size=flags.images,
        downscale=flags.downscale,
    )
    images, labels = np.asarray(to_pixels(dataset.test.images)), dataset.test.labels
    model = networks.create(
        flags.model, dataset.num_classes, depth=flags.depth or None, width=flags.width or None
    )
    rows = []
    for part in flags.parts:
        attacks, seed = (STANDARD, 0) if part == "standard" else ((part[:-2],), int(part[-1]))
        results = []
        for name, run in (("jaxrw", run_jaxrw), ("reference", run_reference)):
            path = flags.out / f"{name}-{part}.json"
            if not path.exists():
                path.write_text(json.dumps(run(flags, model, images, labels, attacks, seed)))
            results.append(json.loads(path.read_text()))
        rows += compare(part, *results, size=len(labels))
    print(timing.table(rows))


def run_jaxrw(
    flags: argparse.Namespace,
    model: networks.Network,
    images: np.ndarray,
    labels: np.ndarray,
    attacks: Sequence[str],
    seed: int,
) -> Result:
    """Runs attacks of this project, each on the images that the ones before it left robust."""
    variables = torch_weights.load(flags.weights, model=model, num_classes=model.num_classes)
    result = autoattack(
        jax.random.key(seed),
        logits_function(model, variables),
        images,
        labels,
        eps=flags.eps,
        batch_size=flags.batch_size,
        attacks=attacks,
    )
    robust = {
        attack: (result.fooled_by == ROBUST) | (result.fooled_by > number)
        for number, attack in enumerate(attacks)
    }
    return _result(result.fooled_by != WRONG, robust, result.seconds)


def run_reference(
    flags: argparse.Namespace,
    model: networks.Network,
    images: np.ndarray,
    labels: np.ndarray,
    attacks: Sequence[str],
    seed: int,
) -> Result:
    """Runs the same attacks of the reference."""
    import torch
    from safetensors.torch import load_file

    from benchmarks import pytorch

    sys.path.append(flags.reference)
    create = importlib.import_module("autoattack").AutoAttack
    torch.set_num_threads(os.cpu_count())
    network = pytorch.create_network(model, load_file(flags.weights))
    pixels, targets = pytorch.to_torch(images), torch.from_numpy(labels).long()
    clean = pytorch.is_correct(network, pixels, targets).numpy()
    still_robust, robust, seconds = clean.copy(), {}, {}
    for attack in attacks:
        began, index = time.monotonic(), np.flatnonzero(still_robust)
        reference = create(network, norm="Linf", eps=flags.eps, seed=seed, verbose=False, device="cpu")
        reference.attacks_to_run = [attack]
        adversarial = reference.run_standard_evaluation(pixels[index], targets[index], bs=flags.batch_size)
        still_robust[index] = pytorch.is_correct(network, adversarial, targets[index]).numpy()
        robust[attack], seconds[attack] = still_robust.copy(), time.monotonic() - began
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
