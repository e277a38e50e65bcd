"""The report of a sweep: one page that needs only a browser, and a table for everything else."""

from __future__ import annotations

import base64
import io
import json
import shlex
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from descent.folder import write_atomic
from descent.plot import STYLE
from descent.sweep import figures, ranking
from descent.sweep.board import clock
from descent.sweep.collected import Collected, collect

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write(folder: Path) -> Path:
    """`report.html` and `sweep.csv` of a sweep folder, anew; returns the page's path.

    Raises:
        UserError: the folder holds no completed run.
    """
    sweep = collect(folder)
    sweep.write_csv()
    write_atomic(folder / "report.html", page(sweep))
    return folder / "report.html"


def page(sweep: Collected) -> str:
    """The page: it loads nothing, and prints well."""
    import jinja2

    text = resources.files("descent.sweep").joinpath("sweep.html.j2").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(text)
    environment = json.loads((sweep.runs[-1].path / "environment.json").read_text(encoding="utf-8"))
    return template.render(
        sweep=sweep,
        name=sweep.runs[0].summary.get("name", "sweep"),
        states=Counter(str(row["status"]) for row in sweep.rows()),
        command=shlex.join(["python", *environment.pop("command")]),
        environment={key: environment[key] for key in environment if key not in ("overrides", "seed")},
        estimate=ranking.estimate,
        clock=clock,
        figures={title: _embedded(figure) for title, figure in figures.drawn(sweep).items()},
        rows=list(sweep.rows()),
    )


def _embedded(figure: Figure) -> str:
    import matplotlib as mpl

    file = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()
