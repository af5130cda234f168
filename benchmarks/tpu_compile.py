"""The training step of every CIFAR config compiled for TPUs, without a TPU: what the program costs and whether it fits.

    make bench-tpu
    python -m benchmarks.tpu_compile [--configs NAME ...] [--chips v5e v4] [--devices 1 4] [--batch 128 512 1024]
        [--dtype float32 bfloat16]

Needs libtpu, which `make bench-tpu` installs in an environment of its own. A program takes minutes to compile.

forwards  FLOPs of convolutions and matrix products in the optimized program, loop bodies as often as they run, in
          forward passes of the batch. PGD-10 needs 10 forward passes and 10 gradients by the image, which cost the same
          each; the parameter step needs one and two gradients: 23. benchmarks/hlo.py says what counts.
GB        peak memory of one chip: arguments (the data set and the state), temporaries and the program
moved     bytes between main memory and one chip in a step
sent      bytes that a chip puts into collectives in a step. A ring sends twice that, less 1 / chips of it.
roofline  time of a step if every operation ran at the chip's peak FLOP/s or memory bandwidth, whichever takes longer,
          without the collectives
estimate  time of a step by the compiler's own estimate of its operations' cycles, without gathers and transfers
hours     the whole training at roofline and at estimate, without validation and evaluation

All times but `compile` are computed. Nothing here ran on a TPU.
"""

import itertools
from collections.abc import Sequence

from benchmarks import compiled, timing

CONFIGS = ("resnet18_c10", "resnet18_c100", "wrn_c10", "wrn_c100")


def main(arguments: Sequence[str] | None = None) -> None:
    """Compiles each case; prints each as soon as it is done, then the table; writes JSON."""
    flags = timing.parse(
        __doc__,
        arguments,
        choices={"configs": CONFIGS, "chips": compiled.CHIPS, "dtype": ("float32", "bfloat16")},
        configs=CONFIGS,
        chips=tuple(compiled.CHIPS),
        devices=(1, 4),
        batch=(128, 512, 1024),
        dtype=("float32",),
    )
    cases = []
    for name, chip, num_devices, batch_size, dtype in itertools.product(
        flags.configs, flags.chips, flags.devices, flags.batch, flags.dtype
    ):
        case = compiled.measure(name, chip=chip, num_devices=num_devices, batch_size=batch_size, dtype=dtype)
        print(row(case), flush=True)
        cases.append(case)
    print(timing.table([row(case) for case in cases]))
    print(timing.write("tpu_compile", cases, arguments=flags))


def row(case: compiled.Case) -> dict[str, str]:
    """Returns a case as a row of the table."""
    cells = {
        "config": case["config"],
        "chips": f"{case['devices']} {case['chip']}",
        "batch": str(case["batch"]),
        "type": case["dtype"],
        "compile": f"{case['compile_seconds']:.0f} s",
    }
    names = ("forwards", "GB", "moved", "sent", "roofline", "estimate", "hours", "float64")
    if "error" in case:
        return cells | dict.fromkeys(names, "") | {"GB": "does not fit"}
    hours = [case["steps"] * case[time] / 3600 for time in ("roofline", "estimate")]
    values = (
        f"{case['forwards']:.3f} of {case['theory']}",
        f"{case['memory'] / 1e9:.2f}",
        f"{case['bytes'] / 1e9:.2f} GB",
        f"{case['collective_bytes'] / 1e6:.1f} MB in {case['collectives']}",
        f"{1e3 * case['roofline']:.1f} ms",
        f"{1e3 * case['estimate']:.1f} ms",
        f"{hours[0]:.2f} to {hours[1]:.2f}",
        "yes" if case["float64"] else "none",
    )
    return cells | dict(zip(names, values, strict=True))


if __name__ == "__main__":
    main()
