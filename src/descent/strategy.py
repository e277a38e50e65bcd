"""Where a run computes: on one device, on several of this machine, or on several machines."""

from __future__ import annotations

import functools
import inspect
import os
import time
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any, Protocol, runtime_checkable

from etils import epy
from pydantic import BeforeValidator, Field

from descent import cluster
from descent.cluster import LOST, Cluster, Lost
from descent.types import Count, Names, UserError, Whole, part

with epy.lazy_imports():
    import tensorflow as tf

PATIENCE = 600  # seconds in which all workers have to have started
ANSWER = 8  # seconds a worker has to answer whether it lives
BEGIN = 15  # seconds the watch over the workers may take to begin, once all have come


@runtime_checkable
class Strategy(Protocol):
    """Where the replicas are."""

    def workers(self) -> int:
        """Processes that compute together."""
        ...

    def worker(self) -> int:
        """Which of them this is; 0 is the chief, which alone writes what others read."""
        ...

    def replicas(self) -> int | None:
        """How many there are, where that is known before the run starts; at least the workers."""
        ...

    def build(self) -> tf.distribute.Strategy: ...


@part
class Single:
    """One replica: the first GPU if there is one, else the CPU."""

    def workers(self) -> int:
        return 1

    def worker(self) -> int:
        return 0

    def replicas(self) -> int | None:
        return 1

    def build(self) -> tf.distribute.Strategy:
        _gpus()
        return tf.distribute.get_strategy()


def _devices(value: Any) -> Any:
    names = isinstance(value, (list, tuple)) and value and all(isinstance(name, str) for name in value)
    number = isinstance(value, int) and not isinstance(value, bool) and value > 0
    if not (value is None or names or number):
        raise ValueError("should be a number of devices, of at least 1, or a list of names as in [GPU:0,GPU:2]")
    if names and len(set(value)) < len(value):
        raise ValueError("should name each device once")
    return tuple(value) if names else value


@part
class Mirrored(Single):
    """Several devices of this machine, each with a copy of all weights and an equal slice of each batch.

    Attributes:
        devices: how many, or their names as in [GPU:0, GPU:2]; None: every GPU. Where there is no GPU, logical devices
            of the CPU, two where no number is given: they are for trying things out, not faster.
    """

    devices: Annotated[int | tuple[str, ...] | None, BeforeValidator(_devices)] = None

    def replicas(self) -> int | None:
        return len(self.devices) if isinstance(self.devices, tuple) else self.devices

    def build(self) -> tf.distribute.Strategy:
        names = self.devices if isinstance(self.devices, tuple) else _first(self.devices, len(_gpus()))
        if any("CPU" in name.upper() for name in names):
            _divide(len(names))
        missing = [name for name in names if name not in _present()]
        if missing:
            raise UserError(f"strategy.devices: there is no {missing[0]}; there are {', '.join(_present())}")
        # Not the default, whose groups of devices may not differ between the runs of a process.
        sums = tf.distribute.NcclAllReduce if "GPU" in names[0] else tf.distribute.ReductionToOneDevice
        return tf.distribute.MirroredStrategy(list(names), cross_device_ops=sums())


@part
class MultiWorker(Single):
    """Several processes, on one machine or many, each with its GPUs or its CPU, speaking over the network.

    Which they are is said by `TF_CONFIG`, as Kubernetes' training operators and `scripts/launch.py` set it, or by
    Slurm's variables, or here.

    Attributes:
        addresses: host:port of every worker, the chief first; empty: as the environment says.
        task: which of them this process is; unused where the environment says so.
        port: under Slurm, where the first worker of a node listens, the next ones at the next ports.
    """

    addresses: Names = ()
    task: Whole = 0
    port: Annotated[Count, Field(le=65000)] = 23456

    def __post_init__(self) -> None:
        if self.addresses and self.task >= len(self.addresses):
            raise ValueError(f"task={self.task} should be below the {len(self.addresses)} addresses: it counts from 0")

    @cached_property
    def cluster(self) -> Cluster:
        """Who computes together.

        Raises:
            UserError: nothing says so.
        """
        own = Cluster(self.addresses, self.task) if self.addresses else cluster.found(os.environ, self.port)
        if own is None:
            raise UserError(
                "strategy=multi_worker: neither TF_CONFIG nor Slurm's variables say which processes compute together; "
                "start them with scripts/launch.py or srun, or name them in strategy.addresses"
            )
        return own

    def workers(self) -> int:
        return len(self.cluster.addresses)

    def worker(self) -> int:
        return self.cluster.task

    def replicas(self) -> int | None:
        known = self.addresses or cluster.found(os.environ, self.port)
        return self.workers() if known else None

    def build(self) -> tf.distribute.Strategy:
        _watch(self.workers())
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec({"worker": list(self.cluster.addresses)}),
            task_type="worker",
            task_id=self.worker(),
            rpc_layer="grpc",
            num_accelerators={"GPU": len(_gpus())},
        )
        try:
            return tf.distribute.MultiWorkerMirroredStrategy(resolver)
        except tf.errors.OpError as error:
            raise Lost(f"strategy=multi_worker: not all workers came: {' '.join(str(error).split())[:200]}") from error
        except RuntimeError as error:
            if "Timeout" in str(error):
                raise Lost("strategy=multi_worker: a worker that had come is lost") from error
            raise UserError(
                "strategy=multi_worker: TensorFlow already runs in this process, and can no longer join others; "
                "use a process of its own"
            ) from error


def _watch(workers: int) -> None:
    """Has every worker ask the others every few seconds whether they live, so that a stopped one is noticed too.

    It is TensorFlow's own watch, in shorter intervals: a lost worker makes the call under way fail on all others, after
    at most 5 + 2 * 8 seconds. The coordination service, which would be there instead, takes SIGTERM for itself.

    The watch begins with a sum over all workers, in which nobody is watched yet. Its time limit would have to be as
    long as a start may take, and a network cut then would go unnoticed as long; so they meet first, and it is short.

    Where it finds one lost it cancels the call under way, which does not always end the call: `LOST` says so too.
    """
    from tensorflow.python.distribute.collective_all_reduce_strategy import CollectiveAllReduceExtended as Watched
    from tensorflow.python.eager import context

    context.context().configure_coordination_service(service_type="")
    begin, watch = (inspect.unwrap(f) for f in (Watched._start_check_health_thread, Watched._check_health))

    @functools.wraps(begin)
    def met(own: Watched) -> None:
        _meet(workers)
        begin(own)

    @functools.wraps(watch)
    def telling(own: Watched) -> None:
        watch(own)
        if not own._check_health_thread_should_stop.is_set():
            LOST.set()

    Watched._start_check_health_thread, Watched._check_health = met, telling
    Watched._check_health_initial_timeout = BEGIN
    Watched._check_health_interval = 5
    Watched._check_health_timeout = ANSWER
    Watched._check_health_retry_limit = 2


def _meet(workers: int) -> None:
    """Waits until every worker has answered once.

    Raises:
        Lost: one has not in time.
    """
    until = time.monotonic() + PATIENCE
    for worker in range(workers):
        while not _answers(worker):
            if time.monotonic() > until:
                raise Lost(f"strategy=multi_worker: worker {worker} has not come within {PATIENCE} s")
            time.sleep(1)


def _answers(worker: int) -> bool:
    from tensorflow.python.eager import context

    try:
        context.context().check_collective_ops_peer_health(f"/job:worker/replica:0/task:{worker}", ANSWER * 1000)
    except (tf.errors.UnavailableError, tf.errors.DeadlineExceededError):
        return False
    return True


def _gpus() -> list[Any]:
    """The GPUs, of which TensorFlow then takes memory as it needs it."""
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    return gpus


def _first(count: int | None, gpus: int) -> tuple[str, ...]:
    kind, there = ("GPU", gpus) if gpus else ("CPU", 2)
    return tuple(f"{kind}:{i}" for i in range(count or there))


def _present() -> Sequence[str]:
    return [":".join(device.name.split(":")[-2:]) for device in tf.config.list_logical_devices()]


def _divide(count: int) -> None:
    """Makes that many logical devices of the CPU, before TensorFlow starts.

    Raises:
        UserError: it runs already, with fewer.
    """
    cpu = tf.config.list_physical_devices("CPU")[0]
    now = tf.config.get_logical_device_configuration(cpu) or [None]
    if len(now) >= count:
        return
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError as error:
        raise UserError(
            f"strategy.devices={count}: TensorFlow already runs in this process with {len(now)} CPU device(s), "
            "and cannot change; use a process of its own"
        ) from error
