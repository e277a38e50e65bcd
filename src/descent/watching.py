"""Who watches the runs of this process: the worker of a sweep shows how far its job is, and may end it early."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from descent.types import Record

# Given the record of every evaluation, and between them the latest; returns why the run is to stop, or "".
Watch = Callable[[Record], str]
_WATCH: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextlib.contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Inside, `watch` is given records of the runs: see `Watch`."""
    token = _WATCH.set(watch)
    try:
        yield
    finally:
        _WATCH.reset(token)


def told(record: Record) -> str:
    """What the watcher says to a record: why to stop, or ""."""
    watch = _WATCH.get()
    return watch(record) if watch else ""
