"""The training step of every CIFAR config compiled for TPUs, without a TPU: what the program costs and whether it fits.

    make bench-tpu
    python -m benchmarks.tpu_compile [--configs NAME ...] [--chips v5e v4] [--devices 1 4] [--batch 128 512 1024]

Needs libtpu, which `make bench-tpu` installs in an environment of its own. A program takes minutes to compile and is
compiled once: what was read off it is kept in benchmarks/results/compiled.json until the program changes.

forwards  FLOPs of convolutions and matrix products in the optimized program, loop bodies as often as they run, in
          forward passes of the batch. PGD-10 needs 10 forward passes and 10 gradients by the image, each as dear as
          one; the parameter step one and two gradients: 23. benchmarks/hlo.py says what is counted.
GB        peak memory of one chip: arguments (the data set and the state), temporaries and the program.
moved     bytes between main memory and one chip in a step.
roofline  time of a step if every operation ran at the chip's peak FLOP/s or memory bandwidth, whichever is longer.
estimate  time of a step by the compiler's own estimate of its operations' cycles, gathers and transfers left out.
hours     the whole training at the one and at the other, without validation and evaluation.

All times but `compile` are computed. Nothing here ran on a TPU.
"""

import argparse

import jax
import numpy as np

from benchmarks import timing, topology
from benchmarks.problem import stand_in
from jaxrw import train
from jaxrw.training import accuracy, experiment, step

CONFIGS = ("resnet18_c10", "resnet18_c100", "wrn_c10", "wrn_c100")


def main():
    """Compile each case, print each as it is done, then the table; write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--configs", nargs="+", default=CONFIGS, choices=CONFIGS)
    parser.add_argument("--chips", nargs="+", default=["v5e", "v4"], choices=topology.CHIPS)
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--batch", type=int, nargs="+", default=[128, 512, 1024])
    parser.add_argument("--dtype", nargs="+", default=["float32"], choices=("float32", "bfloat16"))
    arguments = parser.parse_args()
    compilations = {name: compilations_after_first_step(name) for name in arguments.configs}
    found = []
    for name in arguments.configs:
        for chip in arguments.chips:
            for num_devices in arguments.devices:
                for batch_size in arguments.batch:
                    for dtype in arguments.dtype:
                        case = {
                            "chip": chip,
                            "num_devices": num_devices,
                            "batch_size": batch_size,
                            "dtype": dtype,
                        }
                        found.append(topology.measure(name, **case))
                        print(row(found[-1]), flush=True)
    print(timing.table([row(case) for case in found]))
    print("compiled again after the first of five steps, on the CPU, the network made small:", compilations)
    print(timing.write("tpu_compile", {"cases": found, "compilations": compilations}, arguments=arguments))


def row(case):
    """One case as a row of the table."""
    cells = {
        "config": case["config"],
        "chips": f"{case['devices']} {case['chip']}",
        "batch": case["batch"],
        "type": case["dtype"],
    }
    names = ("forwards", "GB", "moved", "roofline", "estimate", "hours", "float64", "compile")
    if "error" in case:
        return (
            cells
            | dict.fromkeys(names, "")
            | {"GB": "does not fit", "compile": f"{case['compile_seconds']:.0f} s"}
        )
    steps = case["steps_per_epoch"] * case["epochs"]
    values = (
        f"{case['forwards']:.3f} of {case['theory']}",
        f"{case['memory'] / 1e9:.2f}",
        f"{case['bytes'] / 1e9:.2f} GB",
        f"{1e3 * case['roofline']:.1f} ms",
        f"{1e3 * case['estimate']:.1f} ms",
        f"{steps * case['roofline'] / 3600:.2f} to {steps * case['estimate'] / 3600:.2f}",
        "yes" if case["float64"] else "none",
        f"{case['compile_seconds']:.0f} s",
    )
    return cells | dict(zip(names, values, strict=True))


def compilations_after_first_step(name):
    """Programs compiled by steps 2 to 5 of a config, over the ends of an epoch and of the warm-up, on the CPU."""
    config = topology.load(name, batch_size=8 * jax.local_device_count())
    config.model.name, config.model.depth, config.model.width = "wrn", 10, 1
    config.attack.num_steps = 2
    config.method.warmup_epochs = 1
    num_classes = topology.NUM_CLASSES[config.dataset.name]
    parts = experiment.assemble(config, stand_in(2 * config.optim.batch_size, num_classes))
    train_step = train.create_step(config, parts)
    state, key = step.replicate(parts.create_state()), step.replicate(parts.step_key)
    images, labels = accuracy.replicated(parts.dataset.train)
    compiled = []

    def listen(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(seconds)

    for number in range(5):
        index = np.arange(config.optim.batch_size, dtype=np.int32)
        state, _ = train_step(state, key, images, labels, step.shard(index))
        if number == 0:
            jax.monitoring.register_event_duration_secs_listener(listen)
    jax.block_until_ready(state)
    jax.monitoring.clear_event_listeners()
    return len(compiled)


if __name__ == "__main__":
    main()
