"""How the training step spreads over chips: what each does, moves and sends, read off the programs compiled for them.

    make bench-scaling
    python -m benchmarks.scaling [--config resnet18_c10] [--chip v5e] [--devices 1 4 16 64 256] [--batch 1024]
        [--batch-per-chip 128] [--plot docs/pictures/scaling]

One series divides a global batch among more and more chips, the other gives every chip the same batch. Needs libtpu, as
`benchmarks.tpu_compile` does, and shares what that has compiled. Nothing here ran on a TPU.

sent      bytes that a chip puts into collectives in a step. A ring sends twice that, less 1 / chips of it.
roofline  of `benchmarks.tpu_compile`: without the collectives.
"""

import argparse
import pathlib

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks import timing, topology

COSTS = {
    "flops": ("TFLOP a chip", 1e12),
    "bytes": ("GB moved by a chip", 1e9),
    "collective_bytes": ("MB sent by a chip", 1e6),
}
# Okabe and Ito's blue and vermilion: told apart by everyone, and by their markers in grey.
# The first is larger, so that it is seen where both are the same.
STYLES = (
    {"color": "#0072B2", "marker": "o", "markersize": 9, "linewidth": 3},
    {"color": "#D55E00", "marker": "s", "markersize": 4},
)


def main():
    """Compile each number of chips; print a table, write JSON and a figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="resnet18_c10")
    parser.add_argument("--chip", default="v5e", choices=topology.CHIPS)
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 4, 16, 64, 256])
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--batch-per-chip", type=int, default=128)
    parser.add_argument("--plot", type=pathlib.Path, help="where to write .png and .svg; none: no figure")
    arguments = parser.parse_args()
    series = {
        f"{arguments.batch} images in all": lambda devices: arguments.batch,
        f"{arguments.batch_per_chip} images a chip": lambda devices: arguments.batch_per_chip * devices,
    }
    measured = {name: [] for name in series}
    for devices in arguments.devices:
        for name, batch in series.items():
            case = topology.measure(
                arguments.config, chip=arguments.chip, num_devices=devices, batch_size=batch(devices)
            )
            measured[name].append(case)
            print(row(name, case), flush=True)
    print(timing.table([row(name, case) for name, cases in measured.items() for case in cases]))
    print(timing.write("scaling", measured, arguments=arguments))
    if arguments.plot:
        plot(
            measured,
            arguments.plot,
            title=f"PGD-10 step of {arguments.config}, compiled for TPU {arguments.chip}",
        )


def row(name, case):
    """One case as a row of the table."""
    return {
        "series": name,
        "chips": case["devices"],
        "batch": case["batch"],
        "TFLOP": f"{case['flops'] / 1e12:.3f}",
        "GB moved": f"{case['bytes'] / 1e9:.2f}",
        "MB sent": f"{case['collective_bytes'] / 1e6:.1f}",
        "collectives": case["collectives"],
        "GB": f"{case['memory'] / 1e9:.2f}",
        "roofline": f"{1e3 * case['roofline']:.2f} ms",
    }


def plot(measured, path, *, title):
    """Each cost of a chip against the number of chips, one line a series; `path` gets .png and .svg."""
    figure, axes = plt.subplots(1, len(COSTS), figsize=(10, 3.4), layout="constrained")
    for axis, (cost, (label, unit)) in zip(axes, COSTS.items(), strict=True):
        for (name, cases), style in zip(measured.items(), STYLES, strict=True):
            # One chip sends nothing, which a logarithm cannot show.
            points = [(case["devices"], case[cost] / unit) for case in cases if case[cost]]
            axis.plot(*zip(*points, strict=True), label=name, **style)
        devices = [case["devices"] for case in next(iter(measured.values()))]
        axis.set(xscale="log", yscale="log", xlabel="chips", title=label)
        axis.set_xticks(devices, devices)
        axis.yaxis.set_major_formatter("{x:g}")
        if axis.get_ylim()[1] < 15 * axis.get_ylim()[0]:  # too short for powers of ten
            axis.set(yscale="linear", ylim=(0, None))
        axis.minorticks_off()
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", alpha=0.3)
    axes[0].legend(frameon=False)
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path.with_suffix(".png"), dpi=160)
    figure.savefig(path.with_suffix(".svg"))


if __name__ == "__main__":
    main()
