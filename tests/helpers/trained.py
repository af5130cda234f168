"""What training has left in a directory, and steps that are interrupted."""

import jax
import numpy as np

from helpers import tiny
from jaxrw import runs, train
from jaxrw.runs import checkpoints
from jaxrw.training.experiment import create_experiment

# What depends on the clock alone.
CLOCK = ("seconds", "images_per_second")


def lines(workdir, *kinds):
    """Lines of metrics.jsonl without what the clock decides."""
    return [
        {name: value for name, value in line.items() if name not in CLOCK}
        for line in runs.read_metrics(workdir)
        if not kinds or line["kind"] in kinds
    ]


def last_state(workdir, config=None):
    """The last checkpoint's state as NumPy arrays, and the steps of the last and the best; config None: tiny's."""
    template = create_experiment(config or tiny.config()).create_state()
    with checkpoints.open_checkpoints(workdir / "checkpoints") as manager:
        state = checkpoints.restore(manager, manager.latest_step(), template)
        return jax.tree.map(np.asarray, state), manager.latest_step(), manager.best_step()


def interrupted_at(*numbers):
    """In place of `create_step`: steps of which some raise, counted over all runs."""
    create, taken = train.create_step, []

    def fragile(config, experiment):
        inner = create(config, experiment)

        def step(*arguments):
            taken.append(1)
            if len(taken) in numbers:
                raise KeyboardInterrupt
            return inner(*arguments)

        return step

    return fragile
