"""What the processes of a run say to each other between calls of the compiled program; alone, nothing."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
from etils import epy

from descent import replicas
from descent.cluster import LOST, Lost
from descent.trainer import CallFailed

with epy.lazy_imports():
    import tensorflow as tf

T = TypeVar("T")
GRACE = 4  # seconds a process has to end by itself after another is lost


class Alone:
    """One process: it is the chief, and agrees with itself.

    Attributes:
        chief: whether this process writes what others read.
        alone: whether a call may end where this process wants it to.
    """

    chief, alone = True, True

    def shared(self, make: Callable[[], T]) -> T:
        """What the chief makes."""
        return make()

    def agreed(self, wish: bool) -> bool:
        """Whether any of the processes wishes it; all ask at the same point of the run."""
        return wish

    @contextlib.contextmanager
    def watched(self, last: Callable[[], object] = bool) -> Iterator[None]:
        """Where others are spoken to: one that is lost ends this process too, after a `last` thing is done."""
        yield


class Workers(Alone):
    """One of several processes. What is said goes through sums over all replicas, as gradients do."""

    alone = False

    def __init__(self, strategy: tf.distribute.Strategy, worker: int, workers: int, folder: Path) -> None:
        self.strategy, self.worker, self.chief, self.folder = strategy, worker, worker == 0, folder
        self.speaks = worker * strategy.num_replicas_in_sync // workers  # its first replica
        self._summed = tf.function(self._sum, autograph=False, reduce_retracing=True)

    def _sum(self, words: tf.Tensor) -> tf.Tensor:
        def one() -> tf.Tensor:
            own = tf.where(tf.equal(replicas.index(), self.speaks), words, tf.zeros_like(words))
            return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, own)

        return self.strategy.experimental_local_results(self.strategy.run(one))[0]

    def _total(self, words: np.ndarray) -> np.ndarray:
        return self._summed(tf.constant(words, tf.int32)).numpy()

    def shared(self, make: Callable[[], T]) -> T:
        content = pickle.dumps(make()) if self.chief else b""
        length = int(self._total(np.array([len(content)]))[0])
        words = np.zeros(-(-length // 4), np.int32)
        words.view(np.uint8)[: len(content)] = np.frombuffer(content, np.uint8)
        return pickle.loads(self._total(words).tobytes()[:length])

    def agreed(self, wish: bool) -> bool:
        return bool(self._total(np.array([int(wish)]))[0])

    @contextlib.contextmanager
    def watched(self, last: Callable[[], object] = bool) -> Iterator[None]:
        with watched(self.worker, self.folder, last):
            yield


@contextlib.contextmanager
def watched(worker: int, folder: Path, last: Callable[[], object] = bool) -> Iterator[None]:
    """Ends the process where another is lost; the folder of one that is not the chief is of no use to anyone."""
    over = threading.Event()
    threading.Thread(target=_wait, args=(over, worker, folder), name="lost", daemon=True).start()
    try:
        yield
    except (tf.errors.OpError, CallFailed) as error:
        cause = error.__cause__ or error
        if not (LOST.is_set() or isinstance(cause, _gone())):
            raise
        last()
        _end(worker, folder, _short(cause))
    finally:
        over.set()


def _wait(over: threading.Event, worker: int, folder: Path) -> None:
    """Ends the process some seconds after another is lost, unless it is over then.

    A call that waits for another may go on waiting after it was cancelled, and saving may hang with a network's disk.
    """
    while not over.is_set():
        if LOST.wait(1) and not over.wait(GRACE):
            _end(worker, folder, "it does not answer")


def _end(worker: int, folder: Path, reason: str) -> NoReturn:
    if worker:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\nworker {worker}: another worker is lost: {reason}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(Lost.code)  # TensorFlow's own end would wait for the others


def _gone() -> tuple[type[Exception], ...]:
    errors = tf.errors
    return (
        errors.UnavailableError,
        errors.AbortedError,
        errors.CancelledError,
        errors.DeadlineExceededError,
        errors.FailedPreconditionError,
        errors.InternalError,
    )


def _short(error: Any) -> str:
    return " ".join(str(getattr(error, "message", error)).split())[:200]


def peers(strategy: tf.distribute.Strategy, worker: int, workers: int, folder: Path) -> Alone:
    """How this process, which writes to a folder, speaks to the others of its run."""
    return Alone() if workers == 1 else Workers(strategy, worker, workers, folder)
