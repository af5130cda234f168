"""The last states of a run and the best one, kept by orbax, each with its checksums."""

import contextlib
import functools
import math
import shutil
import sys

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from jaxrw.runs import integrity
from jaxrw.system import hosts
from jaxrw.system.errors import RunError, UserError

# The last one and, should it be damaged, the one before.
_LATEST = 2

# Below `checkpoints`: what is no longer needed. A directory that is being deleted must not look like a checkpoint.
_TRASH = "deleted"


def _rank(metrics):
    """Order of checkpoints by validation accuracy; a tie goes to the earlier epoch, NaN is never best."""
    accuracy = metrics["accuracy"]
    return (accuracy if math.isfinite(accuracy) else -math.inf, -metrics["epoch"])


@contextlib.contextmanager
def open_checkpoints(directory):
    """Orbax manager of the last two checkpoints and the best below `directory`; waits for its writes when left.

    A checkpoint that is damaged or half-written is named on standard error and moved to `damaged`, beside
    `directory`; the one before it takes its place.

    Raises:
      RunError: a checkpoint cannot be written.
    """
    directory = directory.absolute()
    hosts.first_does(_tidy, directory)
    policy = policies.AnyPreservationPolicy(
        [
            policies.LatestN(_LATEST),
            policies.BestN(get_metric_fn=_rank, n=1, keep_checkpoints_without_metrics=False),
        ]
    )
    options = ocp.CheckpointManagerOptions(
        preservation_policy=policy,
        best_fn=_rank,
        todelete_subdir=_TRASH,
        async_options=ocp.AsyncOptions(post_finalization_callback=functools.partial(_seal, directory)),
    )
    # Named, so that a checkpoint can be looked into before it is read.
    handler = ocp.StandardCheckpointHandler()
    manager = ocp.CheckpointManager(directory, item_handlers=handler, options=options)
    try:
        yield manager
        wait(manager)
    finally:
        with contextlib.suppress(Exception):  # an error of the last write has been raised by `wait`
            manager.close()
        if hosts.is_first():
            shutil.rmtree(directory / _TRASH, ignore_errors=True)


def save(manager, state, *, epoch, accuracy=None):
    """Write the state in the background; with a validation accuracy in percent it may become the best.

    A checkpoint of the same step gives way: it was written when the run was asked to stop before it was validated.

    Raises:
      RunError: this checkpoint or the one before cannot be written.
    """
    number = int(state.step)
    metrics = None if accuracy is None else {"accuracy": accuracy, "epoch": epoch}
    wait(manager)
    with _writing(manager, number):
        if number in manager.all_steps():
            manager.delete(number)
        manager.save(number, args=ocp.args.StandardSave(hosts.as_global(state)), metrics=metrics)


def wait(manager):
    """Wait until what is being written is there; raises RunError where it cannot be."""
    with _writing(manager, manager.latest_step()):
        manager.wait_until_finished()
        manager.check_for_errors()


def restore(manager, step, template):
    """State at `step`, placed as `template`: a state whose arrays, or whose shapes, say where they belong.

    Raises:
      UserError: the checkpoint is whole, but of another model or of another step.
    """
    target = hosts.as_global_shapes(jax.tree.map(ocp.utils.to_shape_dtype_struct, template))
    path = manager.directory / str(step)
    try:
        found = manager.item_metadata(step)
        if found is None or _shapes(found.tree) != _shapes(target):
            raise ValueError("its arrays have other names, shapes or types")
        state = hosts.as_local(manager.restore(step, args=ocp.args.StandardRestore(target)))
    except (ValueError, TypeError, KeyError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path} is no checkpoint of this config and this version: {reason}; choose another --workdir"
        ) from error
    if int(state.step) != step:
        raise UserError(f"{path} holds step {int(state.step)}, not {step}; give it its own name back")
    return state


def is_best(manager, accuracy):
    """Whether a validation accuracy in percent beats those of all checkpoints kept so far, strictly."""
    # The best may be the one that is still being written; an epoch is usually longer than that takes.
    wait(manager)
    best = manager.best_step()
    return best is None or accuracy > manager.metrics(best)["accuracy"]


def _tidy(directory):
    """Remove what kills have left of unfinished writes and deletions; set damaged checkpoints aside."""
    if not directory.is_dir():
        return
    for path in sorted(directory.iterdir()):
        if path.name == _TRASH or "orbax-checkpoint-tmp" in path.name:
            path.unlink() if path.is_symlink() else shutil.rmtree(path, ignore_errors=True)
        elif path.name.isdecimal() and (damage := integrity.damage(path)):
            aside = integrity.set_aside(path, directory.parent / "damaged")
            print(
                f"warning: checkpoint {path} is damaged: {damage}; it is kept as {aside}, "
                "and the one before it is used",
                file=sys.stderr,
            )


def _seal(directory):
    """Write the checksums of the checkpoint that is about to appear; orbax calls it just before."""
    if not hosts.is_first():
        return
    for path in directory.iterdir():
        if (
            path.name.split(".")[0].isdecimal()
            and path.is_dir()
            and not (path / integrity.CHECKSUMS).exists()
        ):
            integrity.seal(path)


@contextlib.contextmanager
def _writing(manager, step):
    """Tell whatever goes wrong in orbax as a run's end: it promises no single kind of exception."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[-200:] or type(error).__name__
        raise RunError(
            f"the checkpoint of step {step} cannot be written in {manager.directory}: {reason}; "
            "those before it are kept: make room, and the same command goes on"
        ) from error


def _shapes(tree):
    """Shape and type of every array of a tree, by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in leaves]
    return {name: (tuple(leaf.shape), str(leaf.dtype)) for name, (_, leaf) in zip(names, leaves, strict=True)}
