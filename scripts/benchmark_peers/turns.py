"""Lets training loops of several processes run in turns: a loop calls `turns(steps, loss)` and may be held there."""

from __future__ import annotations

import json
import time
from typing import Any, TextIO


class Finished(Exception):
    """No more turns: the loop is to be left where it is."""


class Turns:
    """The worker's side: one line in for each turn ("go SECONDS" or "end"), one JSON line out.

    Attributes:
        curve: the mean training loss since the call before, at each call: (steps, loss).
    """

    def __init__(self, orders: TextIO, answers: TextIO) -> None:
        self.orders, self.answers = orders, answers
        self.curve: list[tuple[int, float]] = []
        self.begun: tuple[float, int] | None = None
        self.seconds = 0.0

    def answer(self, **row: Any) -> None:
        self.answers.write(json.dumps(row) + "\n")
        self.answers.flush()

    def __call__(self, steps: int, loss: float) -> None:
        """`steps` updates (batches, where nothing is trained) are done.

        Raises:
            Finished: there are no more turns.
        """
        self.curve.append((steps, loss))
        if self.begun is None:
            self.answer(steps=steps)
            self._wait(steps)
        elif (spent := time.perf_counter() - self.begun[0]) >= self.seconds:
            self.answer(steps=steps - self.begun[1], seconds=spent)
            self._wait(steps)

    def _wait(self, steps: int) -> None:
        order = self.orders.readline().split()
        if order[:1] != ["go"]:
            raise Finished
        self.seconds, self.begun = float(order[1]), (time.perf_counter(), steps)
