"""A process that draws the figures of finished runs, so that their worker goes on with the next."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable
from concurrent.futures import wait as wait_for
from pathlib import Path
from typing import Any

from pebble import ProcessFuture, ProcessPool

from descent.folder import UNDRAWN
from descent.sweep import worker
from descent.types import UserError


def process(prepare: Callable[..., None], *arguments: Any) -> ProcessPool:
    """A pool of one process, which prepares itself first."""
    context = multiprocessing.get_context("spawn")
    return ProcessPool(max_workers=1, context=context, initializer=prepare, initargs=arguments)


def prepare() -> None:
    """Makes this process one that draws."""
    worker.bind()
    os.nice(5)  # who trains comes first
    import matplotlib.figure  # noqa: F401  (the half second that all runs share)


class Illustrator:
    """Draws what runs have left undrawn, one after the other; what it does not is left to `draw_left`.

    Attributes:
        drawings: what is being drawn or waits for it, by folder.
    """

    def __init__(self) -> None:
        self.pool: ProcessPool | None = None
        self.drawings: dict[Path, ProcessFuture] = {}

    def warm(self) -> ProcessPool:
        """Starts the process, which imports what draws at once."""
        self.pool = self.pool or process(prepare)
        _ = self.pool.active  # asking starts it
        return self.pool

    def draw(self, folder: Path) -> None:
        self.drawings[folder] = self.warm().schedule(worker.draw, args=(folder,))

    def look(self) -> None:
        """Forgets what is drawn, and what failed; then, lest the process was killed, another goes on."""
        over = [(folder, future) for folder, future in self.drawings.items() if future.done()]
        for folder, _ in over:
            del self.drawings[folder]
        if any(future.exception() for _, future in over):
            waiting = list(self.drawings)
            self.close()
            for folder in waiting:
                self.draw(folder)

    def settle(self) -> None:
        """Waits until all is drawn, or has failed; this process draws too, from the other end."""
        for folder in reversed(list(self.drawings)):
            with contextlib.suppress(Exception):  # as the process beside: `draw_left` meets it again, and tells
                worker.draw(folder)
        while self.drawings:
            wait_for(self.drawings.values(), return_when="FIRST_COMPLETED")
            self.look()

    def close(self) -> None:
        """Ends the process at once."""
        if self.pool is not None:
            self.pool.stop()
            self.pool.join()
        self.pool = None
        self.drawings.clear()


def draw_left(sweep: Path) -> None:
    """Draws, in this process, what is still undrawn in the folders of a sweep's jobs."""
    for path in sorted(sweep.glob(f"*/{UNDRAWN}")):
        try:
            worker.draw(path.parent)
        except (OSError, UserError) as error:
            told = f"{path.parent}: its figures could not be drawn: {error}; the same sweep tries again"
            print(told, file=sys.stderr)
