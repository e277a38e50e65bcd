"""Writes the report of a sweep anew: python scripts/report.py outputs/run/sweep-...

The page `report.html`, which needs only a browser, and the table `sweep.csv`, a row a run, both in the sweep's folder;
any folder with runs below it will do.
"""

from __future__ import annotations

from pathlib import Path

from descent.command import script_words
from descent.config import run_main
from descent.types import UserError


def main() -> None:
    from descent.sweep import report

    for word in script_words(__doc__):
        if not Path(word).is_dir():
            raise UserError(f"{word}: there is no such folder")
        print(report.write(Path(word)))


if __name__ == "__main__":
    run_main(main)
