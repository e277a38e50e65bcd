"""Probes: callbacks that look into a run after evaluations, and change nothing of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, runtime_checkable

import numpy as np
from pydantic import Field

from descent.types import Count, ProperFraction, Record, Verdict, part

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import HistogramProto

BUCKETS = 30  # of a histogram, as TensorBoard itself draws


class Inspected(Protocol):
    """A run as a probe sees it: all can be read, nothing is changed."""

    @property
    def step(self) -> int:
        """Updates done so far."""
        ...

    @property
    def batch_size(self) -> int:
        """Samples of one update."""
        ...

    @property
    def folder(self) -> str: ...

    def weights(self) -> dict[str, np.ndarray]:
        """The trainable weights, by path."""
        ...

    def gradients(self) -> dict[str, np.ndarray]:
        """The gradients, before clipping, of the batch that is trained on next (at the end, of the last whole one)."""
        ...

    def squares(self, count: int) -> tuple[float, float, int]:
        """Of `count` batches: mean squared norm of their gradients, that of the mean gradient, how many there were."""
        ...

    def draw_batch(self) -> None:
        """Draws the batch of `gradients`, augmented and mixed, into the run's plots; of images only."""
        ...


@runtime_checkable
class Probe(Protocol):
    """A callback that also looks into the run after each evaluation; what it finds joins the record."""

    def look(self, memory: dict[str, Any], run: Inspected) -> tuple[dict[str, Any], Record]: ...


def _due(memory: dict[str, Any], every: int) -> tuple[dict[str, Any], bool]:
    """The memory with one more evaluation counted, and whether this is the first or an `every`-th after it."""
    seen = memory.get("evaluations", 0)
    return {**memory, "evaluations": seen + 1}, seen % every == 0


class _Silent:
    """As a callback, a probe has nothing to say."""

    def __call__(self, memory: dict[str, Any], record: Record) -> Verdict:
        return Verdict(memory)


@part
class Histograms(_Silent):
    """Histograms of weights and gradients, each variable by itself, for TensorBoard (`tensorboard/histograms`).

    Attributes:
        every: evaluations from one to the next.
    """

    every: Count = 1

    def look(self, memory: dict[str, Any], run: Inspected) -> tuple[dict[str, Any], Record]:
        memory, due = _due(memory, self.every)
        if due:
            named = {f"weights/{path}": w for path, w in run.weights().items()}
            named |= {f"gradients/{path}": g for path, g in run.gradients().items()}
            _write(Path(run.folder, "tensorboard/histograms"), run.step, named)
        return memory, {}


def _write(folder: Path, step: int, arrays: Mapping[str, np.ndarray]) -> None:
    """An event file for each step, named by it: a continued run writes those after its checkpoint anew."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    values = [Summary.Value(tag=name, histo=histogram(array)) for name, array in arrays.items()]
    now = time.time()
    events = [
        Event(wall_time=now, file_version="brain.Event:2"),
        Event(wall_time=now, step=step, summary=Summary(value=values)),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"events.out.tfevents.{step:010d}").open("wb") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString())


def histogram(array: np.ndarray) -> HistogramProto:
    """Counts in `BUCKETS` equal buckets, and the moments of the finite values."""
    from tensorboard.compat.proto.summary_pb2 import HistogramProto

    values = array[np.isfinite(array)].astype(np.float64)
    counts, edges = np.histogram(values, BUCKETS)
    return HistogramProto(
        min=values.min(initial=np.inf),
        max=values.max(initial=-np.inf),
        num=values.size,
        sum=values.sum(),
        sum_squares=np.square(values).sum(),
        bucket_limit=edges[1:],
        bucket=counts,
    )


def gradient_statistics(small_square: float, big_square: float, small: float, big: float) -> tuple[float, float]:
    """Unbiased estimates of `|G|^2` and `tr(Sigma)` from squared gradient norms at two batch sizes.

    As `E |G_B|^2 = |G|^2 + tr(Sigma) / B` (McCandlish et al. 2018, "An empirical model of large-batch training", eqs.
    A.1 to A.3).
    """
    signal = (big * big_square - small * small_square) / (big - small)
    variance = (small_square - big_square) / (1 / small - 1 / big)
    return signal, variance


@part
class NoiseScale(_Silent):
    """The gradient noise scale `tr(Sigma) / |G|^2`, in samples (McCandlish et al. 2018, eq. 2.9).

    It is recorded as `train/noise_scale`. Batches far smaller are mostly noise: with one twice as large half the steps
    do. Batches far larger are mostly alike: one half as large makes about as good a step. Both parts are averaged over
    evaluations before the ratio is taken (section A.1); while `|G|^2` is not known to be positive, nothing is recorded.

    Attributes:
        batches: how many batches the gradient is taken of, each by itself and of all together.
        decay: of the running means, from one estimate to the next.
        every: evaluations from one estimate to the next.
    """

    batches: Annotated[Count, Field(ge=2)] = 8
    decay: ProperFraction = 0.9
    every: Count = 1

    def look(self, memory: dict[str, Any], run: Inspected) -> tuple[dict[str, Any], Record]:
        memory, due = _due(memory, self.every)
        if not due:
            return memory, {}
        small, big, count = run.squares(self.batches)
        if count < 2 or not np.isfinite(small):
            return memory, {}
        found = gradient_statistics(small, big, run.batch_size, count * run.batch_size)
        signal, variance = (
            self.decay * memory.get(name, 0.0) + (1 - self.decay) * value
            for name, value in zip(("signal", "variance"), found, strict=True)
        )
        known = signal > 0 and variance >= 0
        record = {"train/noise_scale": variance / signal} if known else {}
        return {**memory, "signal": signal, "variance": variance}, record


@part
class BatchPreview(_Silent):
    """Draws a training batch as the model sees it, augmented and mixed, into `plots/` and the report; of images only.

    Attributes:
        every: evaluations from one to the next.
    """

    every: Count = 10

    def look(self, memory: dict[str, Any], run: Inspected) -> tuple[dict[str, Any], Record]:
        memory, due = _due(memory, self.every)
        if due:
            run.draw_batch()
        return memory, {}
