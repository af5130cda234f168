"""Weights of a run for PyTorch."""

import pathlib

from jaxrw.evaluate import open_run
from jaxrw.networks import torch_weights
from jaxrw.runs.results import CHECKPOINTS
from jaxrw.system.errors import UserError


def run(config, workdir, *, checkpoint=None):
    """Write last.safetensors and best.safetensors in a run's directory; returns their paths.

    Args:
      config: resolved ConfigDict; only its `evaluation` section may differ from the run's own.
      workdir: directory of a run.
      checkpoint: "last" or "best"; None: both.

    Raises:
      UserError: no run or no such checkpoint there, or a config that is not the run's.
    """
    workdir = pathlib.Path(workdir)
    if checkpoint not in (None, *CHECKPOINTS):
        raise UserError(f"--checkpoint is {checkpoint!r}; --mode export chooses of {', '.join(CHECKPOINTS)}")
    paths = []
    with open_run(config, workdir, checkpoint=checkpoint) as (parts, steps, variables_of):
        for name in (checkpoint,) if checkpoint else CHECKPOINTS:
            if steps[name]:
                paths.append(workdir / f"{name}.safetensors")
                torch_weights.save(paths[-1], variables_of(name)(), model=parts.model)
    return paths
