"""The end of a sweep: the ranking, what failed, the report, and the exit code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from descent.folder import RunFolder
from descent.sweep.board import Board
from descent.types import UserError

FAILED, STOPPED = 1, 130


def close(sweep: Path, board: Board, stopped: bool) -> int:
    """Says how the sweep ended; returns the exit code: 0, FAILED where a job failed, STOPPED where it was stopped."""
    board.close()
    write_report(sweep, board)
    if stopped:
        board.say("stopped; the same command goes on from here")
        return STOPPED
    return FAILED if "failed" in [outcome.state for outcome in board.outcomes.values()] else 0


def leave(codes: Sequence[int]) -> None:
    """Raises SystemExit with the gravest of the exit codes, unless all are 0."""
    if any(codes):
        raise SystemExit(max(codes))


def write_report(sweep: Path, board: Board) -> None:
    from descent.sweep import effects, report

    try:
        page = report.write(sweep)
        if found := report.effects_of(report.collect(sweep)):
            board.say(effects.text(found) + "\n")
        board.say(f"report  {RunFolder(page).near}")
    except UserError as error:  # nothing is finished
        board.say(f"report  none: {error}")
