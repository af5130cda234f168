"""Weights of a run as files for PyTorch."""

import pathlib

from ml_collections import ConfigDict

from jaxrw.evaluate import open_run
from jaxrw.networks import torch_weights
from jaxrw.runs.results import CHECKPOINTS
from jaxrw.system import hosts
from jaxrw.system.errors import UserError


def run(
    config: ConfigDict, workdir: str | pathlib.Path, *, checkpoint: str | None = None
) -> list[pathlib.Path]:
    """Writes last.safetensors and best.safetensors in a run's directory; returns their paths.

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
    with open_run(config, workdir, checkpoint=checkpoint) as opened:
        for name in opened.steps:
            if checkpoint in (None, name):
                paths.append(workdir / f"{name}.safetensors")
                weights = opened.restore(name)
                hosts.run_on_first(
                    torch_weights.save,
                    paths[-1],
                    weights,
                    model=opened.experiment.model,
                    step=opened.steps[name],
                )
    return paths
