"""The training step of CIFAR configs compiled for TPUs, without a TPU: what the program costs and whether it fits.

    make bench-tpu
    make bench-scaling
    python -m benchmarks.tpu_compile [--configs NAME ...] [--chips v5e v4] [--devices 1 4] [--batch 128 512 1024]
        [--batch-per-chip N ...] [--dtype float32 bfloat16] [--plot docs/pictures/scaling]

Needs libtpu, which `make bench-tpu` installs in an environment of its own. A program takes minutes to compile. Batches
are global; `--batch-per-chip` adds some that grow with the number of chips. `--plot` draws what each chip does, moves
and sends against the number of chips, with a line for each batch, as .png and .svg.

forwards  FLOPs of convolutions and matrix products in the optimized program, loop bodies as often as they run, in
          forward passes of the batch. PGD-10 needs 10 forward passes and 10 gradients by the image, which cost the same
          each; the parameter step needs one and two gradients: 23. `problem.forward_passes` has the other recipes, and
          benchmarks/hlo.py says what counts.
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
import pathlib
from collections.abc import Mapping, Sequence

from benchmarks import compiled, timing
from jaxrw.figures import style

CONFIGS = ("resnet18_c10", "resnet18_c100", "wrn_c10", "wrn_c100")
RECIPES = ("trades_c10", "mart_c10", "mail_trades_c10", "awp_c10", "trades_awp_c10", "wang2023_c10")
# Title, unit and scale of the axis of each cost in the figure.
COSTS = {
    "flops": ("TFLOP a chip", 1e12, "log"),
    "bytes": ("GB moved by a chip", 1e9, "log"),
    "collective_bytes": ("MB sent by a chip", 1e6, "linear"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Compiles each case; prints each as soon as it is done, then the table; writes JSON and a figure."""
    flags = timing.parse(
        __doc__,
        arguments,
        choices={"configs": (*CONFIGS, *RECIPES), "chips": compiled.CHIPS, "dtype": ("float32", "bfloat16")},
        configs=CONFIGS,
        chips=tuple(compiled.CHIPS),
        devices=(1, 4),
        batch=(128, 512, 1024),
        batch_per_chip=[int],
        dtype=("float32",),
        plot="",
    )
    series: dict[str, list[compiled.Case]] = {}
    for name, chip, dtype, devices in itertools.product(
        flags.configs, flags.chips, flags.dtype, flags.devices
    ):
        batches = {f"{size} images in all": size for size in flags.batch}
        batches |= {f"{size} images a chip": size * devices for size in flags.batch_per_chip}
        for title, batch_size in batches.items():
            case = compiled.measure(name, chip=chip, num_devices=devices, batch_size=batch_size, dtype=dtype)
            print(row(case), flush=True)
            series.setdefault(title, []).append(case)
    print(timing.table([row(case) for cases in series.values() for case in cases]))
    print(timing.write("tpu_compile", series, arguments=flags))
    if flags.plot:
        plot(series, pathlib.Path(flags.plot))


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


def plot(series: Mapping[str, Sequence[compiled.Case]], path: pathlib.Path) -> None:
    """Draws each cost of a chip against the number of chips, with a line for each series."""
    with style.style():
        figure, axes = style.create_figure(2.6, columns=len(COSTS))
        for axis, (cost, (title, unit, scale)) in zip(axes, COSTS.items(), strict=True):
            for number, (name, cases) in enumerate(series.items()):
                # One chip sends nothing, which a logarithm cannot show.
                points = [(case["devices"], case[cost] / unit) for case in cases if case[cost]]
                # The first line is wider, so that it is seen where two are the same.
                size = {"linewidth": 1.5} if number else {"linewidth": 3, "markersize": 9}
                look = {"color": style.CYCLE[number], "marker": style.MARKERS[number], **size}
                axis.plot(*zip(*points, strict=True), label=name, **look)
            axis.set(xscale="log", yscale=scale, xlabel="chips", title=title)
            devices = sorted({case["devices"] for cases in series.values() for case in cases})
            axis.set_xticks(devices, devices)
            axis.yaxis.set_major_formatter("{x:g}")
            axis.minorticks_off()
        axes[-1].set_ylim(0, None)
        axes[0].legend()
        path.parent.mkdir(parents=True, exist_ok=True)
        style.save(figure, path)


if __name__ == "__main__":
    main()
