"""The end of a sweep: the ranking, what failed, the report, and the exit code."""

from __future__ import annotations

import importlib
import threading
from pathlib import Path

from descent.folder import RunFolder
from descent.sweep.board import Board
from descent.sweep.illustrator import draw_left
from descent.types import UserError

COMPLETED, FAILED, STOPPED = 0, 1, 130


def preload() -> None:
    """Imports what the report needs, a second's work, while the jobs run."""

    def load() -> None:
        for name in ("descent.sweep.report", "matplotlib.figure", "matplotlib.backends.backend_svg"):
            importlib.import_module(name)

    threading.Thread(target=load, daemon=True).start()


def close(sweep: Path, board: Board, stopped: bool) -> int:
    """Says how the sweep ended; returns the exit code: 1 where a job failed, 130 where the sweep was stopped."""
    board.close()
    write_report(sweep, board)
    states = [outcome.state for outcome in board.outcomes.values()]
    if stopped:
        board.say("stopped; the same command goes on from here")
        return STOPPED
    return FAILED if "failed" in states else COMPLETED


def complete(sweep: Path, code: int) -> int:
    """Draws what no worker has drawn, unless the sweep was stopped; returns its exit code."""
    if code != STOPPED:
        draw_left(sweep)
    return code


def write_report(sweep: Path, board: Board) -> None:
    from descent.sweep import effects, report
    from descent.sweep.collected import collect

    try:
        found = collect(sweep)
        page = report.publish(found)
        if found.effects:
            board.say(effects.text(found.effects) + "\n")
        board.say(f"report  {RunFolder(page).near}")
    except UserError as error:  # nothing is finished
        board.say(f"report  none: {error}")
