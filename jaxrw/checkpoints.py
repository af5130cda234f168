"""The last and the best state of a run, kept by orbax."""

import contextlib
import math

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies


def _rank(metrics):
    """Order of checkpoints by validation accuracy; a tie goes to the earlier epoch, NaN is never best."""
    accuracy = metrics["accuracy"]
    return (accuracy if math.isfinite(accuracy) else -math.inf, -metrics["epoch"])


@contextlib.contextmanager
def open_checkpoints(directory):
    """Orbax manager of the last and the best checkpoint below `directory`; waits for its writes when left."""
    policy = policies.AnyPreservationPolicy(
        [
            policies.LatestN(1),
            policies.BestN(get_metric_fn=_rank, n=1, keep_checkpoints_without_metrics=False),
        ]
    )
    options = ocp.CheckpointManagerOptions(preservation_policy=policy, best_fn=_rank)
    manager = ocp.CheckpointManager(directory.absolute(), options=options)
    try:
        yield manager
        manager.wait_until_finished()
    finally:
        manager.close()


def save(manager, state, *, epoch, accuracy=None):
    """Write the state in the background; with a validation accuracy in percent it may become the best."""
    metrics = None if accuracy is None else {"accuracy": accuracy, "epoch": epoch}
    return manager.save(int(state.step), args=ocp.args.StandardSave(state), metrics=metrics)


def restore(manager, step, template):
    """State at `step`, placed as `template`, a state whose arrays are already where they belong."""
    target = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
    return manager.restore(step, args=ocp.args.StandardRestore(target))


def is_best(manager, accuracy):
    """Whether a validation accuracy in percent beats those of all checkpoints kept so far, strictly."""
    # The best may be the one that is still being written; an epoch is usually longer than that takes.
    manager.wait_until_finished()
    best = manager.best_step()
    return best is None or accuracy > manager.metrics(best)["accuracy"]
