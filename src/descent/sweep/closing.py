"""The end of a sweep: the ranking, what failed, the report, and the exit code."""

from __future__ import annotations

from pathlib import Path

from descent.folder import RunFolder
from descent.sweep.board import Board
from descent.types import UserError

FAILED, STOPPED = 1, 130


def close(sweep: Path, board: Board, stopped: bool) -> None:
    """Says how the sweep ended.

    Raises:
        SystemExit: with 1 where a job failed, with 130 where the sweep was stopped.
    """
    board.close()
    write_report(sweep, board)
    states = [outcome.state for outcome in board.outcomes.values()]
    if stopped:
        board.say("stopped; the same command goes on from here")
        raise SystemExit(STOPPED)
    if "failed" in states:
        raise SystemExit(FAILED)


def write_report(sweep: Path, board: Board) -> None:
    from descent.sweep import report

    try:
        board.say(f"report  {RunFolder(report.write(sweep)).near}")
    except UserError as error:  # nothing is finished
        board.say(f"report  none: {error}")
