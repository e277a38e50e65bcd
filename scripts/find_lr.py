"""Finds a learning rate: python scripts/find_lr.py optimizer=sgd [KEY=VALUE ...] [low=1e-6] [high=10] [steps=200].

Trains the run of any overrides of `train.py` from scratch while its rate grows from `low` to `high` by the same
factor at every step (the range test of Smith 2017, section 3.3), until the loss blows up. The suggestion is a peak
for `optimizer.learning_rate`, to be trusted within a factor of three. Writes the loss of every step, a PNG and an SVG
to `outputs/find_lr/`, or to `out=FOLDER`.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field

from descent import Experiment, UserError, compose, plot
from descent.averaging import NoAveraging
from descent.command import parted, script_words
from descent.config import PROJECT
from descent.entry import run_main
from descent.folder import write_atomic
from descent.rows import jsonable
from descent.schedule import Constant
from descent.types import Positive, part

LOST = 0.5  # share of what the smoothed loss had gained that it loses again where it blows up
SPAN = 20  # one part in so many of the test is smoothed over
LEAST = 0.1  # the loss must fall by this share of its start, or there is nothing to read
SAFE = 2.0  # the rate at which training blows up over the best one: exactly so for a parabola (LeCun et al. 1998,
# "Efficient BackProp", section 4.5), and 1.2 to 3.2 for five optimizers and three seeds on digits


class Reading(NamedTuple):
    """What a range test says.

    Attributes:
        smooth: the loss, smoothed, of the steps before it blew up.
        steepest: the rate at which it falls fastest, per factor of rate.
        lowest: the rate at which it is lowest.
        edge: the rate at which it blew up, or the last rate.
        suggestion: the peak to train with.
    """

    smooth: np.ndarray
    steepest: float
    lowest: float
    edge: float
    suggestion: float


@part
class FindLr:
    """The range of the test.

    Attributes:
        low: the first rate.
        high: the last rate.
        steps: how many rates are tried, one a step.
        out: the folder to write to.
    """

    low: Positive = 1e-6
    high: Positive = 10.0
    steps: Annotated[int, Field(ge=20)] = 200
    out: str = str(PROJECT / "outputs/find_lr")

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ValueError(f"low={self.low:g} should be below high={self.high:g}")

    def ramp(self) -> np.ndarray:
        """`low (high / low)^((t + 1/2) / steps)`: the rate of step t."""
        return self.low * (self.high / self.low) ** ((np.arange(self.steps) + 0.5) / self.steps)


def before_edge(losses: np.ndarray) -> np.ndarray:
    """The smoothed loss up to where it has lost half of its gain again, or is not finite."""
    span, finite = max(3, len(losses) // SPAN), np.isfinite(losses)
    losses = losses[: len(losses) if finite.all() else int(np.argmin(finite))]
    if not len(losses):
        return losses
    smooth = plot.smoothed(losses, span)
    best = np.minimum.accumulate(smooth)
    gain = smooth[0] - best
    over = (smooth - best > LOST * gain) & (gain > LEAST * abs(smooth[0]))
    # The running mean looks half a span ahead: what it saw of the blow-up is left out.
    end = int(np.argmax(over)) - span // 2 if over.any() else len(smooth)
    return plot.smoothed(losses[: max(0, end)], span)


def read(rates: np.ndarray, losses: np.ndarray) -> Reading:
    """What the losses of growing rates say.

    Smith 2017 reads the rate where the loss begins to rise; others take the steepest descent or a tenth of the rate
    of the lowest loss. On digits (five epochs, five optimizers, a grid of seven rates each) half the edge was
    within a factor of 1.7 of the best rate, the steepest descent of 15, a tenth of the lowest of 20.

    Raises:
        UserError: the loss does not fall anywhere.
    """
    smooth = before_edge(losses)
    if len(smooth) < 3 or smooth.min() > (1 - LEAST) * smooth[0]:
        raise UserError("the loss falls at no rate: try another range (low, high), more steps, or check the data")
    seen = rates[: len(smooth)]
    lowest = int(np.argmin(smooth))
    steepest = int(np.argmin(np.gradient(smooth, np.log(seen))[: lowest + 1]))
    edge = float(seen[-1])
    return Reading(smooth, float(seen[steepest]), float(seen[lowest]), edge, edge / SAFE)


def measure(experiment: Experiment, rates: np.ndarray) -> np.ndarray:
    """The training loss at each rate, on the run's own pipeline and step; shorter where it blew up before the end."""
    from descent import session
    from descent.trainer import train

    trainer = dataclasses.replace(experiment.trainer, epochs=None, steps=len(rates))
    run = dataclasses.replace(experiment, trainer=trainer, schedule=Constant(), averaging=NoAveraging()).resolved()
    built = session.build(run)
    built.step.rates.assign(rates)
    losses = np.zeros(0)
    for segment in train(built.step, built.pipeline, 0, []):
        losses = np.concatenate([losses, segment.column("loss")])
        if not np.isfinite(losses).all():
            break
    return losses


def write(folder: Path, name: str, rates: np.ndarray, losses: np.ndarray, reading: Reading) -> Path:
    """The log of the test and its figure; returns the path of the figure."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = zip(rates, losses, strict=False)
    rows = [{"step": i + 1, "train/learning_rate": float(r), "train/loss": float(x)} for i, (r, x) in enumerate(pairs)]
    write_atomic(folder / f"{name}.jsonl", "".join(json.dumps(jsonable(row)) + "\n" for row in rows))
    return plot.save(plot.range_test(rates, losses, reading.smooth, reading.suggestion), folder, name)


def main() -> None:
    words = script_words(__doc__)
    test, overrides = parted(FindLr, words)
    rates = test.ramp()
    losses = measure(compose(*overrides), rates)
    reading = read(rates, losses)
    name = re.sub(r"[^\w.+=-]+", "-", "-".join(overrides))[:100].strip("-") or "default"
    print(write(Path(test.out), name, rates, losses, reading))
    if len(reading.smooth) == len(rates):
        print(f"the loss did not blow up: high={10 * test.high:g} would tell more")
    print(f"loss steepest at {reading.steepest:.2g}, lowest at {reading.lowest:.2g}, lost at {reading.edge:.2g}")
    print(f"optimizer.learning_rate={reading.suggestion:.2g}")


if __name__ == "__main__":
    run_main(main)
