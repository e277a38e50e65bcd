"""Draws learning rates without training: python scripts/plot_schedule.py schedule=cosine,one_cycle,wsd [KEY=VALUE ...].

Any overrides of `train.py` may follow: they make the run whose rates are drawn, over its steps. Where one lists
several values (schedule=cosine,wsd or schedule.warmup=0.1,5ep), each is a curve. Writes a PNG and an SVG to
`outputs/schedules/`, or to `out=FOLDER`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from descent import UserError, compose, plot
from descent.command import script_words
from descent.config import PROJECT
from descent.entry import run_main

MOST = 32  # curves in one figure that are still legible

# Commas inside brackets or quotes are part of one value.
LISTED = re.compile(r"([^=,\[\](){}'\"]+)=([^\[\](){}'\"]+(?:,[^\[\](){}'\"]+)+)")


def choices(word: str) -> list[str]:
    """An override for each of the values that it lists."""
    found = LISTED.fullmatch(word)
    return [f"{found[1]}={value}" for value in found[2].split(",")] if found else [word]


def jobs(words: list[str]) -> Iterator[tuple[str, list[str]]]:
    """A name and the overrides of each curve; the name says what the curves differ in."""
    listed = [choices(word) for word in words]
    varied = [i for i, values in enumerate(listed) if len(values) > 1]
    for job in itertools.product(*listed):
        differing = [job[i] for i in varied] or [word for word in job if word.startswith("schedule")]
        yield " ".join(word.removeprefix("schedule=").removeprefix("schedule.") for word in differing), list(job)


def rates(words: list[str]) -> dict[str, np.ndarray]:
    """The learning rate of every step, by the name of the curve."""
    listed = list(jobs(words))
    if len(listed) > MOST:
        raise UserError(f"{len(listed)} curves are too many for one figure; at most {MOST}")
    return {name or "learning rate": compose(*job).rates() for name, job in listed}


def main() -> None:
    words = script_words(__doc__)
    folders = [word.removeprefix("out=") for word in words if word.startswith("out=")]
    curves = rates([word for word in words if not word.startswith("out=")])
    name = re.sub(r"[^\w.+=-]+", "-", "-".join(curves))[:100].strip("-")
    print(plot.save(plot.schedules(curves), Path(*folders[-1:]) if folders else PROJECT / "outputs/schedules", name))


if __name__ == "__main__":
    run_main(main)
