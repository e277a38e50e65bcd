"""Which processes compute together, as whatever started them says: `TF_CONFIG` or Slurm's variables."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from descent.types import UserError

LOST = threading.Event()  # set where another of the processes that compute together does not answer any more


class Lost(UserError):
    """Another of the processes that compute together is not there, or no longer."""

    code = 5


class Cluster(NamedTuple):
    """The addresses (host:port) of all workers, the chief's first, and which of them this process is."""

    addresses: tuple[str, ...]
    task: int


def found(environment: Mapping[str, str], port: int) -> Cluster | None:
    """What `TF_CONFIG` says, else Slurm's variables; None where there are neither.

    Raises:
        UserError: they are there, and do not say which workers there are and which this is.
    """
    if "TF_CONFIG" in environment:
        return from_tf_config(environment["TF_CONFIG"])
    if "SLURM_PROCID" in environment:
        return from_slurm(environment, port)
    return None


def from_tf_config(text: str) -> Cluster:
    """As Kubernetes' training operators set it: `{"cluster": {"worker": [...]}, "task": {"type": ..., "index": ...}}`.

    A `chief` counts before the workers.
    """
    try:
        config = json.loads(text)
        jobs, task = config["cluster"], config["task"]
        kind, index = task["type"], int(task["index"])
        named = {name: [str(address) for address in jobs.get(name, [])] for name in ("chief", "worker")}
        own = named[kind][index]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(
            "TF_CONFIG should name the workers and the task of this process, as in "
            '{"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}; '
            f"it is {text}"
        ) from error
    addresses = (*named["chief"], *named["worker"])
    return Cluster(addresses, addresses.index(own))


def tf_config(addresses: Sequence[str], task: int) -> str:
    """What `TF_CONFIG` is to say to one of the workers at these addresses; the inverse of `from_tf_config`."""
    return json.dumps({"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": task}})


def from_slurm(environment: Mapping[str, str], port: int) -> Cluster:
    """One worker a task of the job step; those of a node listen at successive ports from `port` on."""

    def said(*names: str) -> str:
        for name in names:
            if name in environment:
                return environment[name]
        raise UserError(f"strategy: Slurm's {names[0]} is not set; start the workers with srun")

    nodes = hosts(said("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"))
    counts = tasks(said("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"))
    addresses = [f"{node}:{port + i}" for node, count in zip(nodes, counts, strict=False) for i in range(count)]
    task = int(said("SLURM_PROCID"))
    if len(nodes) != len(counts) or task >= len(addresses):
        raise UserError(f"strategy: Slurm names {len(nodes)} nodes, tasks on {len(counts)}, and this as task {task}")
    return Cluster(tuple(addresses), task)


def hosts(text: str) -> list[str]:
    """Slurm's `n[01-03,7],login` in full: n01, n02, n03, n7, login."""
    names = []
    for prefix, inner, suffix in re.findall(r"([^,\[\]]+)(?:\[([^\]]*)\])?([^,\[\]]*)", text):
        for part in inner.split(",") if inner else [""]:
            low, _, high = part.partition("-")
            numbers = [f"{n:0{len(low)}d}" for n in range(int(low), int(high) + 1)] if high else [low]
            names += [f"{prefix}{number}{suffix}" for number in numbers]
    return names


def tasks(text: str) -> list[int]:
    """Slurm's `2(x3),1` in full: 2, 2, 2, 1."""
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(count) for count, times in found for _ in range(int(times or 1))]


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens at now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def shares_of_cores(workers: int) -> list[set[int]]:
    """Cores for each of the workers on this machine: its own ones, where this process has enough.

    A worker that waits for the others would otherwise often wake up on a core where one of them computes.
    """
    cores = sorted(os.sched_getaffinity(0))
    size = max(1, len(cores) // workers)
    firsts = [i * size % len(cores) for i in range(workers)]
    return [set(cores[first : first + size]) for first in firsts]


@contextlib.contextmanager
def held_to(cores: set[int]) -> Iterator[None]:
    """The processes and threads that are started meanwhile run on these cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
