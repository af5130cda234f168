"""Several processes that form one run, such as the hosts of a TPU slice. In a single process all of it is free."""

import collections
import contextlib
import functools
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.errors import JaxRuntimeError
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrw.system import preemption
from jaxrw.system.errors import RunError, UserError, one_line

# A process that is silent for this long counts as dead, and the others end. Two of these fit into a minute.
HEARTBEAT_SECONDS = 25

# How long a process that ends waits for the others to end too.
LEAVE_SECONDS = 5

# Status codes with which JAX's coordination service reports a process that does not answer.
_LOST_CODES = ("UNAVAILABLE", "DEADLINE_EXCEEDED")

# Names in the text of other errors between processes; see `_is_lost_process`.
_LOST_NAMES = ("Gloo", "NCCL", "coordination", "Coordination")

T = TypeVar("T")
P = ParamSpec("P")


def initialize(
    *,
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Joins the other processes of a run.

    Without arguments JAX finds them on Cloud TPU, Slurm, Open MPI and Kubernetes.

    Args:
      coordinator_address: "host:port" of process 0; None: $JAX_COORDINATOR_ADDRESS, or found by JAX.
      num_processes: number of processes.
      process_id: number of this process, in 0..num_processes - 1.

    Raises:
      UserError: the processes cannot be found or reached.
    """
    if process_id is not None and not 0 <= process_id < (num_processes or 0):
        raise UserError(f"--process_id is {process_id}; must be in 0..--num_processes - 1")
    # JAX's own service would take SIGTERM away from `preemption`, and has been seen to lose it.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        reason = one_line(error)[:300]
        raise UserError(
            f"--distributed: the processes of this run do not find each other: {reason}; give every one "
            "--coordinator_address=HOST:PORT, --num_processes and its own --process_id"
        ) from error


@contextlib.contextmanager
def naming_lost_processes() -> Iterator[None]:
    """Converts errors between processes, most often because one of them has ended, into `RunError`."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        if jax.process_count() == 1 or not _is_lost_process(error):
            raise
        raise RunError(
            f"process {jax.process_index()} of {jax.process_count()} has lost another one "
            f"({' '.join(str(error).split())[:150]}); start all of them again: the same command goes on"
        ) from error


def _is_lost_process(error: Exception) -> bool:
    """Returns whether an error says that another process does not answer.

    The coordination service raises JaxRuntimeError with a status code for that. Collectives do not: Gloo reports
    UNKNOWN and NCCL INTERNAL, as many other errors do, so only their text names the library. `pmap` raises all of
    these as a plain ValueError, whose text begins with the status code.
    """
    text = str(error)
    code = error.error_code_string if isinstance(error, JaxRuntimeError) else text.partition(":")[0]
    return code in _LOST_CODES or any(name in text for name in _LOST_NAMES)


def leave(status: int) -> None:
    """Ends this process with an exit status.

    Waits `LEAVE_SECONDS` for the other processes to end too, because any that still works when process 0 is gone is
    aborted.
    """
    sys.stderr.flush()
    leaving = threading.Thread(target=_shut_down, daemon=True)
    leaving.start()
    leaving.join(LEAVE_SECONDS)
    os._exit(status)


def _shut_down() -> None:
    with contextlib.suppress(RuntimeError):
        jax.distributed.shutdown()


def is_first() -> bool:
    """Whether this process writes the run's files and prints."""
    return jax.process_index() == 0


def local_part(array: np.ndarray) -> np.ndarray:
    """Returns this process's contiguous part [B / processes, ...] of a batch [B, ...] that all processes hold."""
    size = len(array) // jax.process_count()
    return array[jax.process_index() * size :][:size]


def broadcast(value: T) -> T:
    """Returns the first process's value, which must be JSON, on every process. All must call it together."""
    if jax.process_count() == 1:
        return value
    content = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
    content = content if is_first() else np.zeros(size, np.uint8)
    return json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(content))))


def run_on_first(function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    """Calls a function on the first process alone. All processes must call this together.

    Raises:
      UserError: on every process if the function raised it.
    """
    error = None
    if is_first():
        try:
            function(*args, **kwargs)
        except UserError as mistake:
            error = mistake
    message = broadcast(error and str(error))
    if message is not None:
        raise error or UserError(message)


def delayed_maximum() -> preemption.Maximum:
    """Returns a function that computes the maximum of an int, at least 0, over all processes.

    Several processes: a call sends its number and returns the maximum of the previous call's numbers, 0 at first. It
    does not wait for the other processes, because the host queues steps ahead of the devices and waiting would stall
    them. With `wait=True` it waits, and includes its own number. All processes must call it equally often, and get the
    same results. One process: returns its argument at once.
    """
    if jax.process_count() == 1:
        return preemption.own_number
    maximum = jax.jit(jnp.max, out_shardings=NamedSharding(_mesh(), PartitionSpec()))
    sharding = NamedSharding(_mesh(), PartitionSpec("all"))
    pending: collections.deque[jax.Array] = collections.deque()

    def exchange(number: int, *, wait: bool) -> int:
        own = np.full(jax.local_device_count(), number, np.int32)
        pending.append(maximum(jax.make_array_from_process_local_data(sharding, own)))
        return max((int(pending.popleft()) for _ in range(len(pending) - (not wait))), default=0)

    return exchange


def local_mask(size: int) -> np.ndarray:
    """Returns a mask [size] bool of the examples assigned to this process, round-robin."""
    return np.arange(size) % jax.process_count() == jax.process_index()


def gather(array: np.ndarray) -> np.ndarray:
    """Returns all entries of an array [N, ...] of which each process knows those of its `local_mask`."""
    count = jax.process_count()
    if count == 1:
        return array
    size, part = len(array), array[local_mask(len(array))]
    largest = -(-size // count)
    padded = np.concatenate([part, np.zeros((largest - len(part), *part.shape[1:]), part.dtype)])
    gathered = np.asarray(multihost_utils.process_allgather(padded))
    return np.swapaxes(gathered, 0, 1).reshape(largest * count, *part.shape[1:])[:size]


def total(number: int) -> int:
    """Returns the sum of a number over all processes."""
    if jax.process_count() == 1:
        return number
    return int(np.sum(multihost_utils.process_allgather(np.int32(number))))


def as_global(tree: T) -> T:
    """Converts arrays that are the same on every process into arrays over all devices, which orbax can write."""
    if jax.process_count() == 1:
        return tree
    return multihost_utils.host_local_array_to_global_array(tree, _mesh(), PartitionSpec())


def as_global_shapes(tree: T) -> T:
    """Adds to a tree of `jax.ShapeDtypeStruct` the sharding that `as_global` gives arrays."""
    if jax.process_count() == 1:
        return tree
    sharding = NamedSharding(_mesh(), PartitionSpec())
    return jax.tree.map(lambda leaf: leaf.update(sharding=sharding), tree)


def as_local(tree: T) -> T:
    """Inverts `as_global`."""
    if jax.process_count() == 1:
        return tree
    return multihost_utils.global_array_to_host_local_array(tree, _mesh(), PartitionSpec())


@functools.cache
def _mesh() -> Mesh:
    return Mesh(np.array(jax.devices()), ("all",))
