"""A wish to stop from outside: SIGTERM, SIGINT (Ctrl-C) and SIGUSR1.

Python runs its handlers in the main thread, between two of its instructions: never while a compiled call of minutes
is under way. So the signal's number goes through a pipe (`signal.set_wakeup_fd`) to a thread that acts at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
LEFT = 130  # exit code of an interrupted run, whichever signal it was
SHOW_CURSOR = b"\x1b[?25h"


class Interruption:
    """While this context is open, a signal asks the run to stop; a second one ends the process at once.

    Attributes:
        received: the signal's number, 0 for none.
        ask: how the run is asked; None: there is nothing to save, the first signal ends the process.
    """

    def __init__(self) -> None:
        self.received = 0
        self.ask: Callable[[], object] | None = None
        self.depth = 0
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        self.depth += 1
        if self.depth == 1 and threading.current_thread() is threading.main_thread():
            self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.depth -= 1
        if self.before and not self.depth:
            signal.set_wakeup_fd(self.wakeup)
            for number, handler in self.before.items():
                signal.signal(number, handler)
            self.before = {}
            os.write(self.writing, b"\0")
            self.thread.join()
            os.close(self.reading)
            os.close(self.writing)

    def _listen(self) -> None:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.writing, False)
        # What is ignored (a background job's SIGINT) stays so. The wake-up needs a handler, if only an empty one.
        heard = [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
        self.before = {number: signal.signal(number, _nothing) for number in heard}
        self.wakeup = signal.set_wakeup_fd(self.writing, warn_on_full_buffer=False)
        self.thread = threading.Thread(target=self._read, name="signals", daemon=True)
        self.thread.start()

    def _read(self) -> None:
        while True:
            for number in os.read(self.reading, 64):
                if not number:
                    return
                if number in STOPPING:
                    self._receive(number)

    def _receive(self, number: int) -> None:
        ask = self.ask
        if ask is None or self.received:
            leave()
        else:
            self.received = number
            ask()


def leave() -> None:
    """Ends the process at once: every file is whole at any moment, so nothing has to be put away."""
    if sys.stdout is not None and sys.stdout.isatty():
        os.write(1, SHOW_CURSOR)
    os.write(2, b"\ninterrupted\n")
    os._exit(LEFT)


def _nothing(_: int, __: FrameType | None) -> None:
    """Does nothing; see `Interruption`."""
