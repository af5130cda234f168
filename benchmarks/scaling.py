"""How the training step spreads over chips: what each does, moves and sends, read off the programs compiled for them.

    make bench-scaling
    python -m benchmarks.scaling [--config resnet18_c10] [--chip v5e] [--devices 1 4 16 64 256] [--batch 1024]
        [--batch-per-chip 128] [--plot docs/pictures/scaling]

One series divides a global batch among more and more chips, the other gives every chip the same batch. Needs libtpu, as
`benchmarks.tpu_compile` does, which explains the columns, and shares its programs. `--plot` writes a figure as .png and
.svg. Nothing here ran on a TPU.
"""

import pathlib
from collections.abc import Sequence

from benchmarks import compiled, timing
from benchmarks.tpu_compile import row
from jaxrw.figures import style

# Title, unit and scale of the axis of each cost.
COSTS = {
    "flops": ("TFLOP a chip", 1e12, "log"),
    "bytes": ("GB moved by a chip", 1e9, "log"),
    "collective_bytes": ("MB sent by a chip", 1e6, "linear"),
}
# The first line is wider, so that it is seen where both are the same.
LINES = (
    {"color": style.BLUE, "marker": "o", "markersize": 9, "linewidth": 3},
    {"color": style.ORANGE, "marker": "s", "markersize": 4},
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compiles for each number of chips; prints a table, writes JSON and a figure."""
    flags = timing.parse(
        __doc__,
        arguments,
        choices={"chip": compiled.CHIPS},
        config="resnet18_c10",
        chip="v5e",
        devices=(1, 4, 16, 64, 256),
        batch=1024,
        batch_per_chip=128,
        plot="",
    )
    batches = {
        f"{flags.batch} images in all": [flags.batch for _ in flags.devices],
        f"{flags.batch_per_chip} images a chip": [flags.batch_per_chip * number for number in flags.devices],
    }
    measured = {
        series: [
            compiled.measure(flags.config, chip=flags.chip, num_devices=number, batch_size=batch)
            for number, batch in zip(flags.devices, sizes, strict=True)
        ]
        for series, sizes in batches.items()
    }
    print(timing.table([{"series": name} | row(case) for name, cases in measured.items() for case in cases]))
    print(timing.write("scaling", measured, arguments=flags))
    if flags.plot:
        plot(measured, pathlib.Path(flags.plot), title=f"PGD-10 step of {flags.config} on TPU {flags.chip}")


def plot(measured: dict[str, list[compiled.Case]], path: pathlib.Path, *, title: str) -> None:
    """Draws each cost of a chip against the number of chips, with one line for each series."""
    devices = [case["devices"] for case in next(iter(measured.values()))]
    with style.style():
        figure, axes = style.create(2.6, columns=len(COSTS))
        for axis, (cost, (label, unit, scale)) in zip(axes, COSTS.items(), strict=True):
            for (name, cases), line in zip(measured.items(), LINES, strict=True):
                # One chip sends nothing, which a logarithm cannot show.
                points = [(case["devices"], case[cost] / unit) for case in cases if case[cost]]
                axis.plot(*zip(*points, strict=True), label=name, **line)
            axis.set(xscale="log", yscale=scale, xlabel="chips", title=label)
            axis.set_xticks(devices, devices)
            axis.yaxis.set_major_formatter("{x:g}")
            axis.minorticks_off()
        axes[-1].set_ylim(0, None)
        axes[0].legend()
        figure.suptitle(title)
        path.parent.mkdir(parents=True, exist_ok=True)
        style.save(figure, path)


if __name__ == "__main__":
    main()
