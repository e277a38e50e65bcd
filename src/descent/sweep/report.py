"""The report of a sweep: one page that needs only a browser, and a table for everything else."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from descent import page as pages
from descent.folder import RunFolder, write_atomic
from descent.plot import svg
from descent.sweep import effects, figures, ranking, study_figures, tuning
from descent.sweep.board import clock
from descent.sweep.collected import Collected, collect

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write(folder: Path) -> Path:
    """`report.html` and `sweep.csv` of a sweep folder, anew; returns the page's path.

    Raises:
        UserError: the folder holds no completed run.
    """
    return publish(collect(folder))


def publish(sweep: Collected) -> Path:
    """As `write`, of what is collected already."""
    sweep.write_csv()
    if sweep.effects:
        effects.write(sweep.effects, sweep.folder)
    path = sweep.folder / "report.html"
    write_atomic(path, page(sweep))
    return path


def page(sweep: Collected) -> str:
    """The page of a sweep."""
    environment = json.loads((sweep.runs[-1].path / "environment.json").read_text(encoding="utf-8"))
    command, environment = pages.reproduction(environment, alone=False)
    found = sweep.effects
    drawn = {"Which technique helps": effects.drawn(found)} if found else {}
    return pages.render(
        "sweep/sweep.html.j2",
        sweep=sweep,
        name=sweep.runs[0].summary.get("name", "sweep"),
        states=Counter(str(row["status"]) for row in sweep.rows()),
        command=command,
        environment=environment,
        estimate=ranking.estimate,
        clock=clock,
        figures={title: _embedded(figure) for title, figure in (drawn | figures.drawn(sweep)).items()},
        rows=list(sweep.rows()),
        effects=effects.table(found) if found else [],
        idle=sweep.plan.idle if sweep.plan else [],
        tuned=tuning.read(sweep.folder),
        compromises=study_figures.compromises(sweep.study) if sweep.study else ([], []),
        pages={sweep.place(run.path) for run in sweep.runs if _has_page(RunFolder(run.path))},
    )


def _has_page(folder: RunFolder) -> bool:
    """Whether a run has its own page, or is about to get it."""
    return (folder.path / "report.html").exists() or folder.undrawn.exists()


def _embedded(figure: Figure) -> str:
    return pages.embedded(svg(figure), "svg+xml")
