"""Several processes that are one run, as the hosts of a TPU slice are; alone, everything in here is free."""

import contextlib
import functools
import itertools
import json
import os
import sys

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec

from jaxrw.errors import RunError, UserError

# A process that is silent for so long is taken for dead, and the others end: two such times fit into a minute.
HEARTBEAT_SECONDS = 25

# What stands in errors of the libraries by which processes talk.
_BETWEEN = ("Gloo", "NCCL", "coordination", "Coordination", "UNAVAILABLE", "DEADLINE_EXCEEDED", "heartbeat")

# Every process asks whether to stop equally often, so that the same question gets the same answer everywhere.
_questions = itertools.count()


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
    """End this process now: the usual end would wait for processes that may never come to theirs."""
    sys.stderr.flush()
    os._exit(status)


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


def preemption():
    """Function that tells whether to stop, at the same step on every process; None where there is one process only.

    JAX takes SIGTERM, on any of the processes, and finds the step that all of them can still reach.
    """
    if jax.process_count() == 1:
        return None
    return lambda: multihost_utils.reached_preemption_sync_point(next(_questions))


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
    return int(np.sum(multihost_utils.process_allgather(np.int32(number))))


def as_global(tree):
    """Arrays that are the same on every process, as one array over all devices: what orbax writes."""
    if jax.process_count() == 1:
        return tree
    return multihost_utils.host_local_array_to_global_array(tree, _mesh(), PartitionSpec())


def as_local(tree):
    """The opposite of `as_global`."""
    if jax.process_count() == 1:
        return tree
    return multihost_utils.global_array_to_host_local_array(tree, _mesh(), PartitionSpec())


@functools.cache
def _mesh():
    """All devices of all processes."""
    return Mesh(np.array(jax.devices()), ("all",))
