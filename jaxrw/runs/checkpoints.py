"""Checkpoints of a run, written by orbax: the last two and the best, each with its checksums."""

import contextlib
import functools
import math
import pathlib
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from jaxrw.runs import integrity, provenance
from jaxrw.runs.json_files import write_json
from jaxrw.system import hosts
from jaxrw.system.errors import RunError, UserError, one_line
from jaxrw.training.step import State

# The last one, and the one before in case the last is damaged.
_NUM_LATEST = 2

# Orbax deletes below this subdirectory, so that a half-deleted directory does not look like a checkpoint.
_TRASH = "deleted"


@contextlib.contextmanager
def open_checkpoints(directory: pathlib.Path) -> Iterator[ocp.CheckpointManager]:
    """Opens an orbax manager that keeps the last two checkpoints and the best one below `directory`.

    Each gets a copy of the dataset.json beside `directory`, if there is one.

    Moves damaged and half-written checkpoints to `damaged` beside `directory`, with a warning on standard error, so
    that the checkpoint before is used if there is one. Waits at its end for checkpoints that are being written.

    Raises:
      RunError: a checkpoint cannot be written.
    """
    directory = directory.absolute()
    hosts.run_on_first(_clean, directory)
    policy = policies.AnyPreservationPolicy(
        [
            policies.LatestN(_NUM_LATEST),
            policies.BestN(get_metric_fn=_rank, n=1, keep_checkpoints_without_metrics=False),
        ]
    )
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policy,
        best_fn=_rank,
        todelete_subdir=_TRASH,
        async_options=ocp.AsyncOptions(post_finalization_callback=functools.partial(_seal_new, directory)),
    )
    # With a handler, `item_metadata` can be read before any checkpoint is restored.
    handler = ocp.StandardCheckpointHandler()
    manager = ocp.CheckpointManager(directory, item_handlers=handler, options=options)
    try:
        yield manager
        wait(manager)
    finally:
        with contextlib.suppress(Exception):  # `wait` has raised the error of the last write
            manager.close()
        if hosts.is_first():
            shutil.rmtree(directory / _TRASH, ignore_errors=True)


def save(manager: ocp.CheckpointManager, state: State, *, epoch: int, accuracy: float | None = None) -> None:
    """Writes the state in the background.

    Replaces a checkpoint of the same step, which was written when the run was stopped before its validation.

    Args:
      manager: from `open_checkpoints`.
      state: on all devices.
      epoch: 0-based.
      accuracy: validation accuracy in percent, by which it may become the best; None: not validated.

    Raises:
      RunError: this checkpoint or the one before cannot be written.
    """
    step = int(state.step)
    metrics = None if accuracy is None else {"accuracy": accuracy, "epoch": epoch}
    wait(manager)
    with _as_run_errors(manager, step):
        if step in manager.all_steps():
            manager.delete(step)
        manager.save(step, args=ocp.args.StandardSave(hosts.as_global(state)), metrics=metrics)


def wait(manager: ocp.CheckpointManager) -> None:
    """Waits until all checkpoints are written; raises RunError if one cannot be."""
    with _as_run_errors(manager, manager.latest_step()):
        manager.wait_until_finished()
        manager.check_for_errors()


def restore(manager: ocp.CheckpointManager, step: int, template: State) -> State:
    """Returns the state at `step`.

    Args:
      manager: from `open_checkpoints`.
      step: of a checkpoint that exists.
      template: a state of arrays, or of shapes with sharding, that says where each array is placed.

    Raises:
      UserError: the checkpoint is whole, but of another model or of another step.
    """
    shapes = hosts.as_global_shapes(jax.tree.map(ocp.utils.to_shape_dtype_struct, template))
    path = manager.directory / str(step)
    try:
        metadata = manager.item_metadata(step)
        if metadata is None or _describe(metadata.tree) != _describe(shapes):
            raise ValueError("its arrays have other names, shapes or types")
        state: State = hosts.as_local(manager.restore(step, args=ocp.args.StandardRestore(shapes)))
    except (ValueError, TypeError, KeyError, OSError) as error:
        reason = one_line(error)[:200]
        raise UserError(
            f"{path} is no checkpoint of this config and this version: {reason}; choose another --workdir"
        ) from error
    if int(state.step) != step:
        raise UserError(f"{path} holds step {int(state.step)}, not {step}; give it its own name back")
    return state


def is_validated(manager: ocp.CheckpointManager, step: int, *, num_images: int) -> bool:
    """Returns whether a step has a checkpoint with a validation accuracy, or there are no images to measure one on."""
    return not num_images or (step in manager.all_steps() and manager.metrics(step) is not None)


def is_best(manager: ocp.CheckpointManager, accuracy: float) -> bool:
    """Returns whether a validation accuracy in percent is strictly above those of all checkpoints kept so far."""
    # The best may still be being written. An epoch usually takes longer than that.
    wait(manager)
    best = manager.best_step()
    return best is None or accuracy > manager.metrics(best)["accuracy"]


def _rank(metrics: dict[str, Any]) -> tuple[float, int]:
    """Orders checkpoints by validation accuracy; a tie goes to the earlier epoch, and NaN is never best."""
    accuracy = metrics["accuracy"]
    return (accuracy if math.isfinite(accuracy) else -math.inf, -metrics["epoch"])


def _clean(directory: pathlib.Path) -> None:
    """Removes what kills have left of unfinished writes and deletions; moves damaged checkpoints aside."""
    if not directory.is_dir():
        return
    for path in sorted(directory.iterdir()):
        if path.name == _TRASH or "orbax-checkpoint-tmp" in path.name:
            path.unlink() if path.is_symlink() else shutil.rmtree(path, ignore_errors=True)
        elif path.name.isdecimal() and (damage := integrity.find_damage(path)):
            aside = integrity.move_aside(path, directory.parent / "damaged")
            print(
                f"warning: checkpoint {path} is damaged: {damage}; it is kept as {aside}",
                file=sys.stderr,
            )


def _seal_new(directory: pathlib.Path) -> None:
    """Writes dataset.json and the checksums of the checkpoint that orbax is about to rename to its final name."""
    if not hosts.is_first():
        return
    fingerprint = provenance.read(directory.parent)
    for path in directory.iterdir():
        is_checkpoint = path.name.split(".")[0].isdecimal() and path.is_dir()
        if is_checkpoint and not (path / integrity.CHECKSUMS).exists():
            if fingerprint is not None:
                write_json(path / provenance.NAME, fingerprint)
            integrity.seal(path)


@contextlib.contextmanager
def _as_run_errors(manager: ocp.CheckpointManager, step: int | None) -> Iterator[None]:
    """Converts every exception into RunError: orbax does not document which ones it raises."""
    try:
        yield
    except Exception as error:
        reason = one_line(error)[-200:]
        raise RunError(
            f"the checkpoint of step {step} cannot be written in {manager.directory}: {reason}; "
            "those before it are kept: make room, and the same command goes on"
        ) from error


def _describe(tree: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    """Returns the shape and type of every array of a tree by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    return {name: (tuple(leaf.shape), str(leaf.dtype)) for name, (_, leaf) in zip(names, leaves, strict=True)}
