r"""AutoAttack here against the reference implementation in PyTorch: same weights, same images, one machine.

    python launch.py --mode export --config FILE --workdir RUN          # writes RUN/last.safetensors
    pip install -e ".[torch]"; git clone https://github.com/fra31/auto-attack
    python -m benchmarks.autoattack --weights RUN/last.safetensors --model resnet18 --width 8 --data_dir DIR \
        --reference auto-attack --out comparison --minutes 10

Does the parts that `--out` does not hold yet until the minutes are over, then prints what there is; run it again until
all is done. Seconds are wall-clock seconds of the attacks, compiling included. The parts:

    standard    the standard set, each attack on what the ones before it left robust
    apgd-ce-S, fab-t-S, square-S    one attack alone on all images, with seed S
"""

import argparse
import contextlib
import functools
import json
import os
import pathlib
import sys
import time

import jax
import numpy as np

from jaxrw import data, networks
from jaxrw.attacks import autoattack
from jaxrw.networks import torch_weights
from jaxrw.training.augment import to_pixels
from jaxrw.training.step import logits_function

TESTS = pathlib.Path(__file__).parents[1] / "tests"  # where the same networks are written in PyTorch

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
# FAB-T without restarts draws nothing: one seed says what all would.
ALONE = (*(f"apgd-ce-{s}" for s in range(3)), "fab-t-0", *(f"square-{s}" for s in range(3)))


class PausedError(Exception):
    """The minutes are over; what is done is saved."""


def main():
    """Do parts until the time is over; print what there is."""
    arguments = parse()
    arguments.out.mkdir(parents=True, exist_ok=True)
    problem = load_problem(arguments)
    end = time.monotonic() + 60 * arguments.minutes
    with contextlib.suppress(PausedError):
        for part in arguments.parts.split(","):
            for who, run in (("ours", run_ours), ("reference", run_reference)):
                if arguments.only in (None, who):
                    run(arguments, problem, part, end)
    report(arguments, len(problem[1]))


def parse():
    """Flags."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", required=True, help="weights as .safetensors, under PyTorch's names")
    parser.add_argument("--model", default="resnet18", choices=("resnet18", "wrn"))
    parser.add_argument("--depth", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--data_dir")
    parser.add_argument("--downscale", type=int, default=1, help="2: images of half the height and width")
    parser.add_argument("--images", type=int, default=1000, help="the first so many test images")
    parser.add_argument("--eps", type=float, default=8 / 255)
    parser.add_argument("--batch_size", type=int, default=250, help="of both")
    parser.add_argument("--reference", required=True, help="directory that holds the package autoattack")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="where finished parts are kept")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--parts", default=",".join(("standard", *ALONE)))
    parser.add_argument("--only", choices=("ours", "reference"))
    return parser.parse_args()


def load_problem(arguments):
    """Images [N, H, W, C] in [0, 1], labels [N], and the number of classes."""
    dataset = data.load(
        arguments.dataset,
        data_dir=arguments.data_dir,
        train_size=None,
        validation_size=0,
        test_size=arguments.images,
        downscale=arguments.downscale,
    )
    return np.asarray(to_pixels(dataset.test.images)), dataset.test.labels, dataset.num_classes


def attacks_of(part):
    """(attacks, seed) of a part."""
    if part == "standard":
        return STANDARD, 0
    name, _, seed = part.rpartition("-")
    return (name,), int(seed)


def run_ours(arguments, problem, part, end):
    """One part here; goes on from its state file."""
    path = arguments.out / f"ours-{part}.json"
    if path.exists():
        return
    (images, labels, num_classes), (attacks, seed) = problem, attacks_of(part)
    model = networks.create(arguments.model, num_classes, depth=arguments.depth, width=arguments.width)
    variables = torch_weights.load(arguments.weights, model=model, num_classes=num_classes)

    def pause(progress):
        if time.monotonic() > end:
            raise PausedError

    pause(None)
    result = autoattack(
        jax.random.key(seed),
        logits_function(model, variables),
        images,
        labels,
        eps=arguments.eps,
        batch_size=arguments.batch_size,
        attacks=attacks,
        state_path=arguments.out / f"ours-{part}.npz",
        state_seconds=10,
        progress=pause,
    )
    print(*result.warnings, sep="\n", file=sys.stderr)
    robust = {
        name: ((result.fooled_by < 0) | (result.fooled_by > number)) & (result.fooled_by != -2)
        for number, name in enumerate(attacks)
    }
    write(path, result.clean_accuracy, robust, result.attacked, result.seconds)


def run_reference(arguments, problem, part, end):
    """One part of the reference, batch by batch."""
    path = arguments.out / f"reference-{part}.json"
    if path.exists():
        return
    (images, labels, num_classes), (attacks, seed) = problem, attacks_of(part)
    evaluate, correct = create_reference(arguments, images, labels, num_classes)
    clean, robust, attacked, seconds = 100 * correct.mean(), {}, {}, {}
    for name in attacks:
        alive = np.flatnonzero(correct)
        attacked[name], seconds[name] = len(alive), 0.0
        for number, batch in enumerate(
            np.split(alive, range(arguments.batch_size, len(alive), arguments.batch_size))
        ):
            kept = arguments.out / f"reference-{part}-{name}-{number}.npz"
            if not kept.exists():
                if time.monotonic() > end:
                    raise PausedError
                begun = time.monotonic()
                flags = evaluate(name, seed, batch)
                np.savez(kept, batch=batch, robust=flags, seconds=time.monotonic() - begun)
            with np.load(kept) as done:
                correct[done["batch"]] = done["robust"]
                seconds[name] += float(done["seconds"])
        robust[name] = correct.copy()
    write(path, clean, robust, attacked, seconds)


@functools.cache
def _import_reference(directory):
    """The class AutoAttack and torch."""
    sys.path[:0] = [directory, str(TESTS)]
    import torch
    from autoattack import AutoAttack

    torch.set_num_threads(os.cpu_count())
    return AutoAttack, torch


def create_reference(arguments, images, labels, num_classes):
    """(attack's name, seed, examples) -> robust [n] bool, by the reference; and clean correctness [N] bool."""
    reference, torch = _import_reference(arguments.reference)
    from helpers import torch_networks
    from safetensors.torch import load_file

    if arguments.model == "resnet18":
        stages = (networks.create("resnet18", num_classes, depth=arguments.depth)).stage_sizes
        network = torch_networks.ResNet(num_classes, stages, arguments.width or 64)
    else:
        network = torch_networks.WideResNet(num_classes, (arguments.depth - 4) // 6, arguments.width)
    network.load_state_dict(load_file(arguments.weights))
    network.eval()
    pixels = torch.tensor(images).permute(0, 3, 1, 2).contiguous()
    targets = torch.tensor(labels).long()

    def right(pixels, targets):
        with torch.no_grad():
            return (network(pixels).argmax(1) == targets).numpy()

    def evaluate(name, seed, batch):
        attack = reference(network, norm="Linf", eps=arguments.eps, seed=seed, verbose=False, device="cpu")
        attack.attacks_to_run = [name]
        adversarial = attack.run_standard_evaluation(pixels[batch], targets[batch], bs=len(batch))
        return right(adversarial, targets[batch])

    return evaluate, right(pixels, targets)


def write(path, clean, robust, attacked, seconds):
    """Keep a finished part."""
    content = {
        "clean": float(clean),
        "robust": {name: np.flatnonzero(flags).tolist() for name, flags in robust.items()},
        "attacked": attacked,
        "seconds": seconds,
    }
    path.write_text(json.dumps(content))


def report(arguments, size):
    """A table of the parts that both have finished."""
    print(
        "| part | attack | robust % ours | reference | difference | flags agree % | seconds ours | reference | ratio |"
    )
    print("|---|---|--:|--:|--:|--:|--:|--:|--:|")
    for part in arguments.parts.split(","):
        paths = [arguments.out / f"{who}-{part}.json" for who in ("ours", "reference")]
        if not all(path.exists() for path in paths):
            continue
        ours, reference = (json.loads(path.read_text()) for path in paths)
        assert abs(ours["clean"] - reference["clean"]) < 1e-9, "not the same weights or images"
        for name in ours["robust"]:
            flags = [set(who["robust"][name]) for who in (ours, reference)]
            rates = [100 * len(some) / size for some in flags]
            seconds = [who["seconds"][name] for who in (ours, reference)]
            line(part, name, rates, 100 - 100 * len(flags[0] ^ flags[1]) / size, seconds)
        if part == "standard":
            line(
                part,
                "all",
                rates,
                100 - 100 * len(flags[0] ^ flags[1]) / size,
                [sum(who["seconds"].values()) for who in (ours, reference)],
            )


def line(part, name, rates, agree, seconds):
    """One row of the table."""
    print(
        f"| {part} | {name} | {rates[0]:.1f} | {rates[1]:.1f} | {rates[0] - rates[1]:+.1f} | {agree:.1f} "
        f"| {seconds[0]:.0f} | {seconds[1]:.0f} | {seconds[0] / seconds[1]:.2f} |"
    )


if __name__ == "__main__":
    main()
