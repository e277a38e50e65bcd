"""Compares variants over seeds: python scripts/compare.py runs=outputs/optimizer_comparison/... [baseline=LABEL].

`runs` is a folder with run folders in it, or a list of them: [outputs/a,outputs/b]. Runs that differ in nothing but
seed and fold are one variant; those that only set a variant's rate (`sweep=tuned`) are left out. Prints a table and
writes `comparison.html`, `curves.png`, `curves.svg`, `variants.csv` and `pairs.csv` to `outputs/comparison/`, or to
`out=FOLDER`. Other keys: `curve=val/accuracy` is drawn, `metric=test/loss` is tested, `target=0.02` is the value of the
curve whose first step is the cost.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from descent.command import run_script
from descent.config import PROJECT
from descent.types import Number, part


def _several(value: object) -> object:
    return tuple(value) if isinstance(value, list) else (value,)


@part
class Compare:
    """What to compare.

    Attributes:
        runs: folders with finished runs in or below them.
        curve: name of an evaluated metric, drawn over the epochs; None: the validation loss, where it compares.
        metric: name of a final metric; None: the test accuracy where there is one, else the test loss.
        baseline: label of the variant that the others are compared with; None: each with each.
        target: value of the curve; None: the worst of the variants' mean best values.
        out: folder to write to.
    """

    runs: Annotated[tuple[str, ...], BeforeValidator(_several), Field(min_length=1)]
    curve: str | None = None
    metric: str | None = None
    baseline: str | None = None
    target: Number | None = None
    out: str = str(PROJECT / "outputs/comparison")

    def __call__(self) -> None:
        from descent import compare
        from descent.runs import find

        found = compare.compare(
            find(self.runs), curve=self.curve, metric=self.metric, baseline=self.baseline, target=self.target
        )
        print(compare.text(found))
        print(compare.write(found, Path(self.out)))


if __name__ == "__main__":
    run_script(Compare)
