"""The training step of a shipped config compiled for TPUs that are not there, and what the program costs.

libtpu compiles for a topology without any device. The step is the one that `train` runs; only the data set is a
stand-in, of the real one's shapes, because no value of it enters the program.
"""

import dataclasses
import hashlib
import importlib
import importlib.metadata
import json
import math
import os
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies

from benchmarks.hlo import Program
from benchmarks.timing import RESULTS
from jaxrw import train
from jaxrw.data import Dataset, Split
from jaxrw.training import experiment, step

NUM_CLASSES = {"cifar10": 10, "cifar100": 100}


@dataclasses.dataclass(frozen=True)
class Chip:
    """What one chip can do at best, as its maker's documentation says: docs.cloud.google.com/tpu/docs/v5e and /v4."""

    flops: float  # FLOP/s in bfloat16, to which float32 convolutions are rounded by default
    memory: float  # bytes of main memory
    bandwidth: float  # bytes/s of main memory
    clock: float  # cycles/s: flops / (matrix units * 128 * 128 * 2)
    topologies: dict[int, str]  # by number of chips


CHIPS = {
    "v5e": Chip(
        flops=197e12,
        memory=16e9,
        bandwidth=819e9,
        clock=197e12 / (4 * 128 * 128 * 2),
        topologies={4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"},
    ),
    "v4": Chip(
        flops=275e12,
        memory=32 * 2**30,
        bandwidth=1200e9,
        clock=275e12 / (8 * 128 * 128 * 2),
        topologies={
            4: "2x2x1",
            8: "2x2x2",
            16: "2x2x4",
            32: "2x4x4",
            64: "4x4x4",
            128: "4x4x8",
            256: "4x8x8",
        },
    ),
}


def measure(name, *, chip, num_devices, batch_size, dtype="float32"):
    """What the step of `configs/<name>.py` costs on so many chips, as a dict of numbers; kept in a file.

    Times are in seconds a step, sizes in bytes on one chip. `roofline` runs one operation after another, each as fast
    as the chip's peak FLOP/s or memory bandwidth allows, and is no faster than moving all bytes takes; `estimate` is
    what the compiler expects, of the operations that it has an estimate for. `forwards` is the work in forward
    passes of the whole batch. What does not fit has `error` instead.
    """
    config = load(name, batch_size=batch_size, dtype=dtype)
    parts = experiment.assemble(config, stand_in(config))
    lowered, lower_seconds = lower(config, parts, chip=chip, num_devices=num_devices)
    text = lowered.as_text()
    versions = {package: importlib.metadata.version(package) for package in ("jax", "libtpu")}
    case = {
        "config": name,
        "chip": chip,
        "devices": num_devices,
        "batch": batch_size,
        "dtype": dtype,
        "program": hashlib.sha256(text.encode()).hexdigest()[:16],
        **versions,
    }
    kept = read()
    for known in kept:
        if all(known.get(field) == value for field, value in case.items()):
            return known
    found = (
        case
        | {"lower_seconds": lower_seconds, "load": os.getloadavg()[0]}
        | compile_and_count(lowered, CHIPS[chip])
    )
    if "flops" in found:
        forward = forward_flops(parts.model, config) * batch_size
        found |= {
            "forwards": found["flops"] * num_devices / forward,
            "theory": 2 * config.attack.num_steps + 3,
            "float64": "f64" in text or found["float64"],
            "steps_per_epoch": parts.steps_per_epoch,
            "epochs": config.optim.num_epochs,
        }
    same = ("config", "chip", "devices", "batch", "dtype")
    kept = [known for known in kept if any(known[field] != case[field] for field in same)]
    RESULTS.mkdir(exist_ok=True)
    _file().write_text(json.dumps([*kept, found], indent=1) + "\n")
    return found


def _file():
    """Where measurements are kept."""
    return RESULTS / "compiled.json"


def read():
    """All measurements that are kept."""
    return json.loads(_file().read_text()) if _file().exists() else []


def load(name, *, batch_size, dtype="float32"):
    """A shipped config by its name, with another global batch and type of activations."""
    config = importlib.import_module(f"configs.{name}").get_config()
    config.optim.batch_size = batch_size
    config.model.dtype = dtype
    return config


def stand_in(config):
    """A data set of the shapes of the config's CIFAR, which takes no memory."""

    def split(size):
        images = np.broadcast_to(np.uint8(0), (size, 32, 32, 3))
        return Split(images, np.broadcast_to(np.int32(0), (size,)))

    held_out = config.dataset.validation_size
    num_classes = NUM_CLASSES[config.dataset.name]
    return Dataset(split(50_000 - held_out), split(held_out), split(10_000), num_classes, ())


def lower(config, parts, *, chip, num_devices):
    """The step as it goes to the compiler of so many chips, and the seconds that took."""
    topology = topologies.get_topology_desc(platform="tpu", topology_name=topology_name(chip, num_devices))
    began = time.monotonic()
    mapped = train.create_step(config, parts, devices=topology.devices[:num_devices])
    images = parts.dataset.train.images
    arguments = (
        parts.state_shapes(),
        jax.eval_shape(lambda: parts.step_key),
        step.Images(jax.ShapeDtypeStruct((len(images), images[0].size), jnp.uint8), images.shape[1:]),
        jax.ShapeDtypeStruct((len(images),), jnp.int32),
        jax.ShapeDtypeStruct((num_devices, config.optim.batch_size // num_devices), jnp.int32),
    )
    return mapped.lower(*arguments), time.monotonic() - began


def topology_name(chip, num_devices):
    """Name of the smallest topology with so many chips."""
    sizes = CHIPS[chip].topologies
    return f"{chip}:{sizes[min(size for size in sizes if size >= num_devices)]}"


def compile_and_count(lowered, chip):
    """Compile; times, sizes and counts of the program as `measure` gives them."""
    began = time.monotonic()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return {"error": str(error).splitlines()[0], "compile_seconds": time.monotonic() - began}
    seconds = time.monotonic() - began
    memory = compiled.memory_analysis()
    return {
        "compile_seconds": seconds,
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "memory": memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes,
        **count(Program(compiled.as_text()), chip),
    }


def count(program, chip):
    """Counts and computed times of an optimized program on a chip."""
    flops, moved = program.total("flops"), program.total("bytes")
    in_turn = sum(
        operation.times * max(operation.flops / chip.flops, operation.bytes / chip.bandwidth)
        for operation in program.operations
        if not operation.instruction.opcode.endswith("-start")  # copies that run beside the others
    )
    return {
        "flops": flops,
        "bytes": moved,
        "collective_bytes": program.total("collective_bytes"),
        "collectives": sum(o.times for o in program.operations if o.collective_bytes),
        "compute_bound": flops / chip.flops,
        "memory_bound": moved / chip.bandwidth,
        "roofline": max(in_turn, moved / chip.bandwidth),
        "estimate": program.total("cycles") / chip.clock,
        "float64": "f64[" in program.text,
        "precision": "highest" if "operand_precision={highest" in program.text else "default",
    }


def forward_flops(model, config):
    """FLOPs of one forward pass of one image, two for each multiply-add, those on padding included.

    From the sizes of the kernels and of what they give, without looking at any compiled program.
    """
    images = jnp.zeros((1, 32, 32, 3))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    _, seen = jax.eval_shape(
        lambda v: model.apply(v, images, train=False, capture_intermediates=True, mutable=["intermediates"]),
        variables,
    )
    total = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"]):
        *scope, last = (key.key for key in path)
        if last == "kernel":
            found = seen["intermediates"]
            for name in scope:
                found = found[name]
            (output,) = found["__call__"]
            total += leaf.size * math.prod(output.shape[1:-1])
    return 2 * total
