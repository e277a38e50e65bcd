"""The end of a sweep: the ranking, what failed, the report, and the exit code."""

from __future__ import annotations

from pathlib import Path

from descent.folder import RunFolder
from descent.sweep.board import Board
from descent.sweep.illustrator import draw_left
from descent.types import UserError

COMPLETED, FAILED, STOPPED = 0, 1, 130


def close(sweep: Path, board: Board, stopped: bool) -> int:
    """Says how the sweep ended; returns the exit code: 1 where a job failed, 130 where the sweep was stopped."""
    if not stopped:
        draw_left(sweep)
    board.close()
    write_report(sweep, board)
    states = [outcome.state for outcome in board.outcomes.values()]
    if stopped:
        board.say("stopped; the same command goes on from here")
        return STOPPED
    return FAILED if "failed" in states else COMPLETED


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
