"""What the training step and the evaluation cost on a GPU or TPU, in parts that fit into a lease of minutes.

    python -m benchmarks.accelerator [--minutes 9] [--networks resnet18 wrn34_10] [--batch 128 512 1024]
        [--dtype float32 bfloat16] [--parts step torch evaluate exact] [--repeats 10] [--fresh]

step      the training step that `launch.py` runs, PGD-10 and one update: time, share of the chip's peak, memory
torch     the same step in PyTorch, channels last, under autocast and torch.compile; left out where PyTorch is not there
evaluate  PGD-100 and AutoAttack of 1,000 images by a network with random weights, which few images fool, so that it
          takes about as long as it can; AutoAttack also with surrogates in tensorfloat32 and bfloat16
exact     whether three steps give the same bits twice, and how far logits at precision "highest" are from the CPU's

Each result is kept in benchmarks/results/accelerator.json at once. After an interruption, or when the minutes are over,
the same command resumes with what is missing, AutoAttack within itself; --fresh begins anew. Images are random: no data
set is needed. On a GPU, float32 uses TF32, as JAX does by default. On a CPU it runs small with `--networks resnet18
--width 4 --batch 8`.
"""

import argparse
import functools
import hashlib
import json
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from benchmarks import problem, timing
from benchmarks.compiled import forward_flops
from jaxrw import train
from jaxrw.attacks import autoattack, suite
from jaxrw.training import accuracy, step
from jaxrw.training.augment import to_pixels
from jaxrw.training.experiment import Experiment

PARTS = ("step", "torch", "evaluate", "exact")
CONFIGS = {"resnet18": "resnet18_c10", "wrn34_10": "wrn_c10"}

# FLOP/s of dense products by the beginning of the device's name, from data sheets: float32 as TF32, and bfloat16.
PEAKS = {
    "NVIDIA H100": (495e12, 989e12),
    "NVIDIA H200": (495e12, 989e12),
    "NVIDIA A100": (156e12, 312e12),
    "TPU v4": (275e12, 275e12),
    "TPU v5 lite": (197e12, 197e12),
}

Row = dict[str, Any]
Case = tuple[str, Callable[[], Row]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what is missing until the minutes are over; prints a table of all."""
    flags = timing.parse(
        __doc__,
        arguments,
        choices={"networks": CONFIGS, "dtype": ("float32", "bfloat16"), "parts": PARTS},
        minutes=9.0,
        networks=tuple(CONFIGS),
        batch=(128, 512, 1024),
        dtype=("float32", "bfloat16"),
        parts=PARTS,
        repeats=10,
        images=1000,
        width=[int],
        fresh=False,
    )
    deadline, path = time.monotonic() + 60 * flags.minutes, timing.RESULTS / "accelerator.json"
    device = jax.devices()[0].device_kind
    kept: dict[str, Row] = json.loads(path.read_text()) if path.exists() and not flags.fresh else {}
    if flags.fresh:
        for state in timing.RESULTS.glob("accelerator-*.npz"):
            state.unlink()
    print(f"{jax.device_count()} x {device}, JAX {jax.__version__}")
    for name, measure in _cases(flags, deadline):
        key = f"{device}, JAX {jax.__version__}: {name}"
        if key in kept:
            continue
        try:
            _check(deadline)
            kept[key] = measure()
        except TimeoutError:
            print("the minutes are over; the same command resumes")
            break
        print(f"{name}: {_words(kept[key])}", flush=True)
        timing.RESULTS.mkdir(exist_ok=True)
        path.write_text(json.dumps(kept, indent=1) + "\n")
    if kept:
        print(timing.table([{"what": key, "result": _words(row)} for key, row in kept.items()]))


def _check(deadline: float) -> None:
    """Raises TimeoutError after the deadline."""
    if time.monotonic() > deadline:
        raise TimeoutError


def _cases(flags: argparse.Namespace, deadline: float) -> Iterator[Case]:
    """Yields what is measured by name, the cheapest and most telling first."""
    for part in flags.parts:
        for network in flags.networks:
            label = f"{network} of width {flags.width[0]}" if flags.width else network
            if part == "exact":
                yield f"exact {label}", functools.partial(_exact, _config(network, flags, batch=64))
            elif part == "evaluate":
                config = _config(network, flags, batch=min(500, flags.images))
                for attack, surrogate in (
                    ("pgd100", "none"),
                    *((suite.AUTOATTACK, surrogate) for surrogate in suite.SURROGATES),
                ):
                    words = "" if surrogate == "none" else f", surrogate {surrogate}"
                    name = f"{attack} of {flags.images} images, {label}{words}"
                    yield (
                        name,
                        functools.partial(_evaluate, config, attack, surrogate, flags.images, deadline),
                    )
            else:
                for batch in flags.batch:
                    for dtype in flags.dtype:
                        config = _config(network, flags, batch=batch, dtype=dtype)
                        measure = _step if part == "step" else _torch_step
                        name = f"{part} {label} {dtype} batch {batch}"
                        yield name, functools.partial(measure, config, flags.repeats)


def _config(network: str, flags: argparse.Namespace, *, batch: int, dtype: str = "float32") -> ConfigDict:
    fields = {"model.dtype": dtype, "optim.batch_size": batch, "method.name": "standard"}
    if flags.width:
        fields["model.width"] = flags.width[0]
    return problem.load(CONFIGS[network], fields)


def _step(config: ConfigDict, repeats: int) -> Row:
    """Times the training step after two that do not count: the first compiles, the second finds its memory."""
    batch = config.optim.batch_size
    experiment = problem.create_experiment(config, size=2 * batch)
    take_step = problem.training_step(config, experiment)
    began = time.perf_counter()
    take_step()
    compile_seconds = time.perf_counter() - began
    seconds = timing.alternate({"jaxrw": take_step}, repeats=repeats)["jaxrw"]
    statistics_of_device = jax.local_devices()[0].memory_stats() or {}
    flops = problem.forward_passes(config) * batch * forward_flops(experiment.model)
    epochs = config.optim.num_epochs * (50_000 - config.dataset.validation_size)
    return _times(seconds, batch) | {
        "share_of_peak": _share_of_peak(flops / statistics.median(seconds), config.model.dtype),
        "peak_gb": statistics_of_device.get("peak_bytes_in_use", 0) / 1e9,
        "compile_seconds": compile_seconds,
        "hours_of_the_config": epochs / batch * statistics.median(seconds) / 3600,
    }


def _torch_step(config: ConfigDict, repeats: int) -> Row:
    """Times the same step in PyTorch."""
    try:
        from benchmarks import pytorch
    except ImportError:
        return {"left_out": "PyTorch is not installed"}
    take_step = pytorch.accelerated_step(config)
    if take_step is None:
        return {"left_out": "PyTorch has no accelerator here"}
    seconds = timing.alternate({"torch": take_step}, repeats=repeats)["torch"]
    return _times(seconds, config.optim.batch_size)


def _evaluate(config: ConfigDict, attack: str, surrogate: str, number: int, deadline: float) -> Row:
    """Times an evaluation of random images under labels that the network predicts, compiling included."""
    experiment = problem.create_experiment(config, size=number)
    variables = experiment.create_state().variables
    logits_fn = step.logits_function(experiment.evaluation_model, variables)
    pixels = np.asarray(to_pixels(experiment.dataset.test.images))
    labels = np.asarray(jnp.concatenate([logits_fn(part) for part in np.array_split(pixels, 10)])).argmax(1)
    began = time.perf_counter()
    more: Row = {}
    if attack == suite.AUTOATTACK:
        timing.RESULTS.mkdir(exist_ok=True)
        state = _state_path(config, surrogate, number)
        result = autoattack(
            jax.random.key(0),
            logits_fn,
            pixels,
            labels,
            eps=config.evaluation.eps,
            batch_size=config.optim.batch_size,
            surrogate=experiment.surrogate(surrogate, variables),
            progress=lambda now: _check(deadline),
            state_path=state,
        )
        state.unlink()
        seconds = sum(result.seconds.values())  # of all calls, if it was interrupted
        robust = 100 * float(result.robust.mean())
        if surrogate != "none":
            more["unconfirmed"] = len(result.unconfirmed)
    else:
        adversary = suite.create(attack, eps=config.evaluation.eps, step_size=config.evaluation.step_size)
        split = accuracy.Split(experiment.dataset.test.images, labels.astype(np.int32))
        evaluator = accuracy.Evaluator(
            experiment.evaluation_model,
            split,
            jax.random.key(0),
            {attack: adversary},
            batch_size=config.optim.batch_size,
        )
        robust = evaluator.measure(attack, step.replicate(variables)).accuracy
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "robust_percent": robust} | more


def _state_path(config: ConfigDict, surrogate: str, number: int) -> pathlib.Path:
    """Returns where the state of an AutoAttack is until it ends, which is of this device and these settings alone."""
    model = config.model.name, config.model.width
    words = [
        jax.devices()[0].device_kind,
        jax.__version__,
        *model,
        surrogate,
        number,
        config.optim.batch_size,
    ]
    return timing.RESULTS / f"accelerator-{hashlib.sha256(repr(words).encode()).hexdigest()[:16]}.npz"


def _exact(config: ConfigDict) -> Row:
    """Compares three steps with the same three steps, and logits with those of the CPU."""
    experiment = problem.create_experiment(config, size=2 * config.optim.batch_size)
    first, second = (_three_steps(config, experiment) for _ in range(2))
    same = all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (first, second)), strict=True))
    images = np.asarray(to_pixels(experiment.dataset.test.images[:64]))
    logits = []
    with jax.default_matmul_precision("highest"):
        for device in (jax.devices()[0], jax.devices("cpu")[0]):
            variables = jax.device_put(experiment.create_state().variables, device)
            model = experiment.evaluation_model
            logits.append(np.asarray(model.apply(variables, jax.device_put(images, device), train=False)))
    return {
        "same_bits_twice": same,
        "largest_difference_from_cpu": float(np.abs(logits[0] - logits[1]).max()),
        "largest_logit": float(np.abs(logits[1]).max()),
    }


def _three_steps(config: ConfigDict, experiment: Experiment) -> step.Variables:
    train_step = train.create_step(config, experiment)
    images, labels = accuracy.replicated(experiment.dataset.train)
    state, key = step.replicate((experiment.create_state(), experiment.step_key))
    index = step.shard(np.arange(config.optim.batch_size, dtype=np.int32))
    for _ in range(3):
        state, _ = train_step(state, key, images, labels, index)
    variables: step.Variables = jax.device_get(state.variables)
    return variables


def _times(seconds: Sequence[float], batch: int) -> Row:
    median = statistics.median(seconds)
    return {
        "ms": 1e3 * median,
        "ms_range": [1e3 * min(seconds), 1e3 * max(seconds)],
        "images_per_second": batch / median,
    }


def _share_of_peak(flops_per_second: float, dtype: str) -> float | None:
    kind = jax.devices()[0].device_kind
    peaks = next((peaks for name, peaks in PEAKS.items() if kind.startswith(name)), None)
    return None if peaks is None else flops_per_second / peaks[dtype == "bfloat16"] / jax.device_count()


def _words(row: Row) -> str:
    """Returns a result as words."""
    cells = []
    for name, value in row.items():
        if isinstance(value, float):
            value = f"{value:.4g}"
        elif isinstance(value, list):
            value = " to ".join(f"{number:.4g}" for number in value)
        cells.append(f"{name.replace('_', ' ')} {value}")
    return ", ".join(cells)


if __name__ == "__main__":
    main()
