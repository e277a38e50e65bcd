"""Writes the report of a sweep, or of one run, anew: python scripts/report.py outputs/run/sweep-...

The page `report.html`, which needs only a browser; of a sweep also the table `sweep.csv`, a row a run. Any folder with
runs below it will do.
"""

from __future__ import annotations

from pathlib import Path

from descent.command import script_words
from descent.entry import run_main
from descent.folder import RunFolder
from descent.types import UserError


def main() -> None:
    from descent import report as run_report
    from descent.sweep import report

    for folder in map(Path, script_words(__doc__)):
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such folder")
        if (folder / "summary.json").exists():
            run_report.write(RunFolder(folder), RunFolder(folder).read_json("summary.json"))
            print(folder / "report.html")
        else:
            print(report.write(folder))


if __name__ == "__main__":
    run_main(main)
