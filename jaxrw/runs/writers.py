"""Where metrics go beside metrics.jsonl: TensorBoard, Weights & Biases, or what a config file adds."""

import importlib.util
import json
import pathlib
import secrets
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import tensorboardX
from ml_collections import ConfigDict
from PIL import Image

from jaxrw import settings
from jaxrw.system.errors import UserError
from jaxrw.training import histograms

# A line of metrics.jsonl.
Line = dict[str, Any]

# Dashboards sort by name, and learning curves should stand before the single points of an evaluation.
_TAGS = {"evaluation": "verdict"}


class Writer(Protocol):
    """Receives what a run measures, on its first process."""

    def write(self, line: Line) -> None:
        """Writes a line of metrics.jsonl: kind, epoch, step, and what was measured."""
        ...

    def write_image(self, name: str, path: pathlib.Path, step: int) -> None:
        """Writes a PNG file."""
        ...

    def close(self) -> None:
        """Ends the writing; a run opens its writers several times."""
        ...


def tag(line: Line) -> str:
    """Returns what stands before the names of a line's values: its kind, and the checkpoint that was evaluated."""
    kind: str = line["kind"]
    kind = _TAGS.get(kind, kind)
    return f"{kind}/{line['checkpoint']}" if "checkpoint" in line else kind


def numbers(line: Line) -> dict[str, float]:
    """Returns the measured numbers of a line by name."""
    place = ("epoch", "step")
    return {
        name: value for name, value in line.items() if isinstance(value, int | float) and name not in place
    }


class TensorBoard:
    """Numbers, histograms and images as TensorBoard events."""

    def __init__(self, workdir: pathlib.Path, resume_at: int | None) -> None:
        """Begins a file of events; those after step `resume_at` of earlier files are hidden."""
        # tensorboardX names files by the second; the suffix keeps those of two processes apart, and in order.
        self._events = tensorboardX.SummaryWriter(
            str(workdir),
            purge_step=None if resume_at is None else resume_at + 1,
            filename_suffix=f".{time.time_ns()}",
        )

    def write(self, line: Line) -> None:
        """Writes the numbers and histograms of a line."""
        for name, value in numbers(line).items():
            self._events.add_scalar(f"{tag(line)}/{name}", value, line["step"])
        for name, edges in histograms.EDGES.items():
            if name in line:
                self._write_histogram(f"{tag(line)}/{name}", np.asarray(line[name]), edges, line["step"])
        self._events.flush()

    def _write_histogram(self, name: str, counts: np.ndarray, edges: np.ndarray, step: int) -> None:
        """Writes counts of fixed bins; TensorBoard names a bin by its upper edge."""
        middles = (edges[:-1] + edges[1:]) / 2
        # TensorBoard omits the empty bins at both ends, and stretches their neighbors to min and max.
        occupied = np.flatnonzero(counts)
        self._events.add_histogram_raw(
            name,
            min=edges[occupied[0]],
            max=edges[occupied[-1] + 1],
            num=int(counts.sum()),
            sum=float(counts @ middles),
            sum_squares=float(counts @ middles**2),
            bucket_limits=edges[1:].tolist(),
            bucket_counts=counts.tolist(),
            global_step=step,
        )

    def write_image(self, name: str, path: pathlib.Path, step: int) -> None:
        """Writes a PNG file."""
        with Image.open(path) as image:
            self._events.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def close(self) -> None:
        """Closes the file."""
        self._events.close()


class Wandb:
    """Numbers and images as a run of Weights & Biases, which goes on when the run does.

    $WANDB_PROJECT, $WANDB_MODE and its other variables are wandb's own.
    """

    module = "wandb"

    def __init__(self, workdir: pathlib.Path, resume_at: int | None) -> None:
        """Begins or resumes the run, whose name is that of the directory; its id is kept in wandb/id."""
        import wandb

        self._wandb = wandb
        path = workdir / "wandb" / "id"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_text(secrets.token_hex(4))
        config = json.loads((workdir / "config.json").read_text())
        self._run = wandb.init(
            id=path.read_text(), resume="allow", dir=str(workdir), name=workdir.name, config=config
        )
        # Steps are an axis of their own, so that those that a resumed run does again are written again.
        self._run.define_metric("*", step_metric="step")

    def write(self, line: Line) -> None:
        """Writes the numbers of a line."""
        values = {f"{tag(line)}/{name}": value for name, value in numbers(line).items()}
        self._run.log({**values, "step": line["step"], "epoch": line["epoch"]})

    def write_image(self, name: str, path: pathlib.Path, step: int) -> None:
        """Writes a PNG file."""
        self._run.log({name: self._wandb.Image(str(path)), "step": step})

    def close(self) -> None:
        """Ends the run for now."""
        self._run.finish()


# By the names that the field `writers` chooses from; a config file may add one of its own.
WRITERS: dict[str, Callable[[pathlib.Path, int | None], Writer]] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
}


def names(config: ConfigDict) -> tuple[str, ...]:
    """Returns the names of a config's writers, also of one from before there was such a field.

    Raises:
      UserError: a name is unknown, or its package is not installed.
    """
    chosen: tuple[str, ...] = tuple(settings.completed(settings.flatten(config.to_dict()))["writers"])
    for name in chosen:
        if name not in WRITERS:
            raise UserError(
                f"writers has {name!r}; choose of {', '.join(WRITERS)}, or add it in the config file, see "
                "docs/logging.md"
            )
        module = getattr(WRITERS[name], "module", None)
        if module is not None and importlib.util.find_spec(module) is None:
            raise UserError(f"writers has {name!r}, which is not installed: pip install {module}")
    return chosen
