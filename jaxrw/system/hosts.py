"""Several processes that are one run, as the hosts of a TPU slice are; alone, everything in here is free."""

import collections
import contextlib
import functools
import json
import os
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrw.system import preemption
from jaxrw.system.errors import RunError, UserError

# A process that is silent for so long is taken for dead, and the others end: two such times fit into a minute.
HEARTBEAT_SECONDS = 25

# So long a process that ends waits for the others to end too.
LEAVE_SECONDS = 5

# What stands in errors of the libraries by which processes talk.
_BETWEEN = ("Gloo", "NCCL", "coordination", "Coordination", "UNAVAILABLE", "DEADLINE_EXCEEDED", "heartbeat")


def initialize(*, coordinator_address=None, num_processes=None, process_id=None):
    """Join the other processes of a run; without arguments JAX finds them: on Cloud TPU, Slurm, Open MPI, Kubernetes.

    Args:
      coordinator_address: "host:port" of process 0; None: $JAX_COORDINATOR_ADDRESS, or found.
      num_processes: how many there are.
      process_id: which one this is, in 0..num_processes - 1.

    Raises:
      UserError: they cannot be found, or not reached.
    """
    if process_id is not None and not 0 <= process_id < (num_processes or 0):
        raise UserError(f"--process_id is {process_id}; must be in 0..--num_processes - 1")
    # It would take SIGTERM away from `jaxrw.preemption`, and has been seen to lose it.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"--distributed: the processes of this run do not find each other: {reason}; give every one "
            "--coordinator_address=HOST:PORT, --num_processes and its own --process_id"
        ) from error


@contextlib.contextmanager
def told():
    """Within it, what goes wrong between processes, most often because one of them has ended, is a `RunError`."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        if jax.process_count() == 1 or not any(word in str(error) for word in _BETWEEN):
            raise
        raise RunError(
            f"process {jax.process_index()} of {jax.process_count()} has lost another one "
            f"({' '.join(str(error).split())[:150]}); start all of them again: the same command goes on"
        ) from error


def leave(status):
    """End this process: together with the others where they are ending too, without those that never come to it.

    Whoever is still at work when the first process is gone dies of it.
    """
    sys.stderr.flush()
    leaving = threading.Thread(target=_shut_down, daemon=True)
    leaving.start()
    leaving.join(LEAVE_SECONDS)
    os._exit(status)


def _shut_down():
    """Take leave of the other processes, if they still answer."""
    with contextlib.suppress(RuntimeError):
        jax.distributed.shutdown()


def is_first():
    """Whether this process writes the files of the run and tells people about it."""
    return jax.process_index() == 0


def share(array):
    """Part of a batch [B, ...], which all processes have, that is this one's: [B / processes, ...]."""
    size = len(array) // jax.process_count()
    return array[jax.process_index() * size :][:size]


def agree(value):
    """What the first process has, JSON, on every process; all must call it together."""
    if jax.process_count() == 1:
        return value
    content = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
    content = content if is_first() else np.zeros(size, np.uint8)
    return json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(content))))


def first_does(function, *arguments, **options):
    """Let the first process do something; its mistakes are the mistakes of all.

    Raises:
      UserError: where the first process raised it, on every process.
    """
    error = None
    if is_first():
        try:
            function(*arguments, **options)
        except UserError as mistake:
            error = mistake
    message = agree(error and str(error))
    if message is not None:
        raise error or UserError(message)


def largest():
    """Function (number, *, wait) -> the largest number, int, at least 0, that any process gave at its call before.

    All processes call it equally often and get the same answers. Nobody waits for the others: a call sends its number
    on its way and reads what became of those of the call before, as the steps are sent to the devices ahead of time.
    With `wait` it waits, and its own numbers count too. A process alone always gets its own number back.
    """
    if jax.process_count() == 1:
        return preemption.alone
    maximum = jax.jit(jnp.max, out_shardings=NamedSharding(_mesh(), PartitionSpec()))
    placing = NamedSharding(_mesh(), PartitionSpec("all"))
    pending = collections.deque()

    def exchange(number, *, wait):
        own = np.full(jax.local_device_count(), number, np.int32)
        pending.append(maximum(jax.make_array_from_process_local_data(placing, own)))
        return max((int(pending.popleft()) for _ in range(len(pending) - (not wait))), default=0)

    return exchange


def mine(size):
    """Which of so many examples are this process's where each takes every so many-th: [size] bool."""
    return np.arange(size) % jax.process_count() == jax.process_index()


def gather(array):
    """Entries [N, ...] of which each process knows its own, see `mine`; returns all of them."""
    count = jax.process_count()
    if count == 1:
        return array
    size, share = len(array), array[mine(len(array))]
    largest = -(-size // count)
    padded = np.concatenate([share, np.zeros((largest - len(share), *share.shape[1:]), share.dtype)])
    gathered = np.asarray(multihost_utils.process_allgather(padded))
    return np.swapaxes(gathered, 0, 1).reshape(largest * count, *share.shape[1:])[:size]


def total(number):
    """Sum of the numbers, int, that each process has."""
    if jax.process_count() == 1:
        return number
    return int(np.sum(multihost_utils.process_allgather(np.int32(number))))


def as_global(tree):
    """Arrays that are the same on every process, as one array over all devices: what orbax writes."""
    if jax.process_count() == 1:
        return tree
    return multihost_utils.host_local_array_to_global_array(tree, _mesh(), PartitionSpec())


def as_global_shapes(tree):
    """What `as_global` makes of arrays, as shapes and types of them in, and out: with where they are."""
    if jax.process_count() == 1:
        return tree
    sharding = NamedSharding(_mesh(), PartitionSpec())
    return jax.tree.map(lambda leaf: leaf.update(sharding=sharding), tree)


def as_local(tree):
    """The opposite of `as_global`."""
    if jax.process_count() == 1:
        return tree
    return multihost_utils.global_array_to_host_local_array(tree, _mesh(), PartitionSpec())


@functools.cache
def _mesh():
    """All devices of all processes."""
    return Mesh(np.array(jax.devices()), ("all",))
