"""The training step of a shipped config compiled for TPUs that are not there, and what the program costs.

libtpu compiles for a topology without any device. The step is the one that `train` runs. Only the data set is random,
of the real one's shapes, because no value of it enters the program.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import math
import os
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental import topologies

from benchmarks import problem, timing
from benchmarks.hlo import Program

Case = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Chip:
    """The peak of one chip by its maker's documentation: docs.cloud.google.com/tpu/docs/v5e and /v4."""

    flops: float  # FLOP/s in bfloat16, to which float32 convolutions are rounded by default
    bandwidth: float  # bytes/s of main memory
    matrix_units: int
    topologies: tuple[str, ...]  # with a power of two chips each

    @property
    def clock(self) -> float:
        """Cycles per second: a matrix unit does 128 * 128 multiply-adds in each."""
        return self.flops / (self.matrix_units * 128 * 128 * 2)


CHIPS = {
    "v5e": Chip(197e12, 819e9, 4, ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")),
    "v4": Chip(275e12, 1200e9, 8, ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8")),
}


def measure(name: str, *, chip: str, num_devices: int, batch_size: int, dtype: str = "float32") -> Case:
    """Compiles the step of `configs/<name>.py` for a number of chips and counts what the program does.

    A program takes minutes to compile, so the result is kept in benchmarks/results/compiled.json until the program or a
    version changes.

    Returns:
      The arguments and `count`'s numbers; sizes in bytes on one chip, times in seconds a step. `forwards` is the work
      in forward passes of the whole batch, and `theory` what PGD needs. If the program does not fit, there is `error`.
    """
    jax.config.update("jax_platforms", "cpu")  # libtpu would look for chips otherwise
    # AWP from the first step on, because the cost of a branch depends on which is taken.
    fields = {"optim.batch_size": batch_size, "model.dtype": dtype, "awp.start_epoch": 0}
    config = problem.load(name, fields)
    experiment = problem.create_experiment(config, size=50_000 - config.dataset.validation_size)
    lowered = problem.lower_step(config, experiment, devices=_devices(chip, num_devices))
    text = lowered.as_text()
    case: Case = {
        "config": name,
        "chip": chip,
        "devices": num_devices,
        "batch": batch_size,
        "dtype": dtype,
        "program": hashlib.sha256(text.encode()).hexdigest()[:16],
        **{package: importlib.metadata.version(package) for package in ("jax", "libtpu")},
    }
    path, key = timing.RESULTS / "compiled.json", " ".join(map(str, case.values()))
    kept = json.loads(path.read_text()) if path.exists() else {}
    if key not in kept:
        case |= _compile_and_count(lowered, CHIPS[chip])
        if "flops" in case:
            forward = batch_size * forward_flops(experiment.model)
            case |= {
                "forwards": case["flops"] * num_devices / forward,
                "theory": problem.forward_passes(config),
                "float64": "f64" in text or case["float64"],
                "steps": experiment.steps_per_epoch * config.optim.num_epochs,
            }
        kept[key] = case
        timing.RESULTS.mkdir(exist_ok=True)
        path.write_text(json.dumps(kept, indent=1) + "\n")
    return kept[key]


def _devices(chip: str, num_devices: int) -> list[jax.Device]:
    """Returns the first devices of the smallest topology that has as many."""
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    sizes = {math.prod(map(int, name.split("x"))): name for name in CHIPS[chip].topologies}
    name = sizes[min(size for size in sizes if size >= num_devices)]
    topology = topologies.get_topology_desc(platform="tpu", topology_name=f"{chip}:{name}")
    return topology.devices[:num_devices]


def _compile_and_count(lowered: jax.stages.Lowered, chip: Chip) -> Case:
    began = time.monotonic()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return {"error": str(error).splitlines()[0], "compile_seconds": time.monotonic() - began}
    seconds, memory = time.monotonic() - began, compiled.memory_analysis()
    assert memory is not None
    outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return {
        "compile_seconds": seconds,
        "memory": memory.argument_size_in_bytes
        + outputs
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes,
        **count(Program(compiled.as_text() or ""), chip),
    }


def count(program: Program, chip: Chip) -> Case:
    """Returns counts and computed times of an optimized program on a chip.

    `roofline` runs one operation after another, each as fast as the chip's peak FLOP/s or memory bandwidth allows, and
    is at least the time to move all bytes. `estimate` adds up what the compiler expects, where it has an estimate.
    """
    moved = program.total("bytes")
    in_turn = sum(
        operation.times * max(operation.flops / chip.flops, operation.bytes / chip.bandwidth)
        for operation in program.operations
        if not operation.is_asynchronous  # a copy runs beside the others
    )
    return {
        "flops": program.total("flops"),
        "bytes": moved,
        "collective_bytes": program.total("collective_bytes"),
        "collectives": sum(o.times for o in program.operations if o.collective_bytes),
        "roofline": max(in_turn, moved / chip.bandwidth),
        "estimate": program.total("cycles") / chip.clock,
        "float64": "f64[" in program.text,
    }


def forward_flops(model: nn.Module) -> int:
    """Returns the FLOPs of one forward pass of a 32x32 image, two for each multiply-add, those on padding included.

    Computed from the sizes of kernels and outputs, without looking at any compiled program.
    """
    flops = 0

    def add(
        layer: Callable[..., Any], arguments: Any, keywords: Any, context: nn.module.InterceptorContext
    ) -> Any:
        nonlocal flops
        output = layer(*arguments, **keywords)
        if isinstance(context.module, nn.Conv | nn.Dense):
            kernel: jax.Array = context.module.get_variable("params", "kernel")
            flops += 2 * kernel.size * math.prod(output.shape[1:-1])
        return output

    with nn.intercept_methods(add):
        jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False))
    return flops
