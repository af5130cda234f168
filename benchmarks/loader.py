"""Images per second of the data alone, gathered, cropped, mirrored and turned to float, against a training step's.

    python -m benchmarks.loader [--width 16] [--batch 128] [--repeats 5]

Data and augmentation are part of the compiled step. Where they alone are 20 times faster than the step, they are no
bottleneck. The narrow network is the hard case.
"""

import argparse
import functools
import statistics

import jax
import numpy as np

from benchmarks import problem, timing
from jaxrw.training import accuracy
from jaxrw.training.augment import augment, to_pixels


def main(arguments=None):
    """Measure, print a table and write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args(arguments)
    config = problem.config_of(arguments.width, arguments.batch)
    parts = problem.create(config)[0]
    contenders = {"data": data(config, parts), "step": problem.training_step(config, parts)}
    seconds = timing.alternate(contenders, repeats=arguments.repeats)
    print(timing.table([_row(name, values, arguments.batch) for name, values in seconds.items()]))
    print(
        "data / step: {:.0f} times ({:.0f} to {:.0f})".format(*timing.ratio(seconds["step"], seconds["data"]))
    )
    print(timing.write("loader", seconds, arguments=arguments))


def data(config, parts):
    """Function that makes a batch for the attack, as the step does."""
    images, _ = accuracy.replicated(parts.dataset.train)
    transform = functools.partial(augment, pad=config.dataset.pad, flip=config.dataset.flip)

    @jax.jit
    def batch(key, images, index):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
        return to_pixels(jax.vmap(transform)(keys, images[index]))

    index = np.arange(config.optim.batch_size, dtype=np.int32)
    return lambda: jax.block_until_ready(batch(parts.step_key, images, index))


def _row(name, seconds, batch):
    """A line of the table."""
    return {
        "what": name,
        "ms a batch": f"{1000 * statistics.median(seconds):.2f}",
        "images/s": f"{batch / statistics.median(seconds):,.0f}",
    }


if __name__ == "__main__":
    main()
