"""Before training: what can be told from the config and the data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from descent import environment, processor
from descent.augmentation import NoMixing, NoSampleAugmentation
from descent.callback import Checkpoint, EarlyStopping, Plateau
from descent.checklist.line import FEWEST_EVALUATIONS, SETTLED, Line, Status, judged
from descent.types import SPLITS, Spec, Split

if TYPE_CHECKING:
    from descent.experiment import Experiment

LEAK = 0.01  # share of a split also found in another: real collections have some twins, a leak has many
FEWEST_HELD_OUT = 225  # an accuracy of 90 % has a standard error of 2 points on so many, sqrt(.9 .1 / n)
FEWEST_UPDATES = 10  # an epoch: with fewer, the batch is nearly the whole set and its noise helps no more
SMALLEST_BATCH = 8  # below it batch statistics are mostly noise (Wu & He 2018, group normalization, figure 1)
REGULARIZATIONS = (
    "l1", "l2", "dropout", "spatial_dropout", "recurrent_dropout", "word_dropout", "stochastic_depth", "max_norm",
    "gradient_noise", "label_smoothing",
)  # fmt: skip
FEWEST_ROWS = 20  # of training in the log: a curve of fewer points hides spikes


def before(experiment: Experiment, inputs: Mapping[Split, np.ndarray] | None = None) -> list[Line]:
    """What can be told from the config alone; and from the raw `inputs` [m, ...] of each split, when given."""
    spec = experiment.data.spec
    return [
        _splits(spec, inputs),
        _held_out(spec),
        _augmentation(experiment),
        _schedule(experiment),
        _regularization(experiment),
        _early_stopping(experiment),
        _checkpoints(experiment),
        _logging(experiment),
        _batch(experiment),
        *_precision(experiment),
    ]


def _splits(spec: Spec, inputs: Mapping[Split, np.ndarray] | None) -> Line:
    sizes = " / ".join(f"{spec.sizes[split]:,}" for split in SPLITS)
    if inputs is None:
        return Line("pass", "splits", f"{sizes} samples for train / validation / test, cut disjointly")
    found = {split: {hash(np.ascontiguousarray(x).tobytes()) for x in inputs[split]} for split in SPLITS}
    pairs = (("train", "validation"), ("train", "test"), ("validation", "test"))
    twins = {f"{a} and {b}": len(found[a] & found[b]) for a, b in pairs}  # type: ignore[index]
    worst = max(len(found[a] & found[b]) / max(1, len(found[b])) for a, b in pairs)  # type: ignore[index]
    told = ", ".join(f"{count} in both {pair}" for pair, count in twins.items() if count) or "none in two splits"
    status: Status = "warning" if worst > LEAK else "note"
    return judged(bool(worst), status, "splits", f"{sizes} samples; equal ones: {told}", "take the twins out")


def _held_out(spec: Spec) -> Line:
    least = min(spec.sizes["validation"], spec.sizes["test"])
    error = math.sqrt((0.09 if spec.num_classes else 1) / max(1, least))
    what = "an accuracy of 90% has a standard error" if spec.num_classes else "a mean error is known to a share"
    finding = f"at least {least:,} samples: {what} of {error:.1%}"
    return judged(least < FEWEST_HELD_OUT, "note", "held-out data", finding, "compare means over several seeds")


def _augmentation(run: Experiment) -> Line:
    sample, batch = run.augmentation.sample, run.augmentation.batch
    off = isinstance(sample, NoSampleAugmentation) and isinstance(batch, NoMixing)
    finding = "off" if off else f"{type(sample).__name__} of samples, {type(batch).__name__} of batches"
    image = run.data.spec.kind == "image"
    advice = "augmentation=standard or mixup_cutmix" if run.data.spec.num_classes else "augmentation=standard"
    return judged(off and image, "note", "augmentation", finding, advice)


def _schedule(run: Experiment) -> Line:
    rates = run.rates()
    peak, last = float(rates.max()), float(rates[-1])
    watched = any(isinstance(callback, Plateau) for callback in run.callback.values())
    finding = f"{type(run.schedule).__name__}: from {rates[0]:.2g} over {peak:.2g} to {last:.2g}"
    falls = last <= SETTLED * peak or watched
    return judged(not falls, "note", "schedule", finding + ", plateau" * watched, "schedule=warmup_cosine lets it fall")


def _regularization(run: Experiment) -> Line:
    rates = {name: getattr(run.regularization, name, 0.0) for name in REGULARIZATIONS}
    rates["weight_decay"] = getattr(run.optimizer, "weight_decay", 0.0)
    chosen = ", ".join(f"{name} {rate}" for name, rate in rates.items() if np.any(np.asarray(rate)))
    advice = "regularization=standard" if run.data.spec.num_classes else "regularization=dropout"
    return judged(not chosen, "note", "regularization", chosen or "none", advice)


def _early_stopping(run: Experiment) -> Line:
    found = next((c for c in run.callback.values() if isinstance(c, EarlyStopping)), None)
    if found is None:
        return Line("note", "early stopping", "off", "callback=[checkpoint,early_stopping]")
    count = len(run.trainer.evaluations(run.clock))
    finding = f"after {found.patience} evaluations without a better {found.monitor}; there are {count} in all"
    advice = "it can never stop this run: lower callback.early_stopping.patience"
    idle = found.patience >= count >= FEWEST_EVALUATIONS  # of fewer, logging is the line that tells
    return judged(idle, "note", "early stopping", finding, advice)


def _checkpoints(run: Experiment) -> Line:
    found = next((c for c in run.callback.values() if isinstance(c, Checkpoint)), None)
    if found is None:
        advice = "callback=[checkpoint,early_stopping] keeps the best weights and lets a run be continued"
        return Line("warning", "checkpoints", "none: the last weights are tested", advice)
    return Line("pass", "checkpoints", f"best by {found.monitor}; the last {found.keep} to continue from")


def _logging(run: Experiment) -> Line:
    rows, evaluations = run.clock.steps // run.trainer.log_every, len(run.trainer.evaluations(run.clock))
    finding = f"rows: {rows}, evaluations: {evaluations}; in {', '.join(['metrics.jsonl', *run.logger])}"
    few = rows < FEWEST_ROWS or evaluations < FEWEST_EVALUATIONS
    return judged(few, "note", "logging", finding, "lower trainer.log_every or trainer.eval_every for curves")


def _batch(run: Experiment) -> Line:
    size, updates = run.trainer.batch_size, run.clock.steps_per_epoch
    finding = f"batches of {size}: {updates:.4g} updates an epoch, {run.clock.steps:,} in all"
    if size < SMALLEST_BATCH:
        return Line("note", "batch size", finding, "batch norm needs more; trainer.batch_size=32")
    return judged(updates < FEWEST_UPDATES, "note", "batch size", finding, "lower trainer.batch_size")


def _precision(run: Experiment) -> list[Line]:
    """Convolutions in bfloat16 take half the time, as accurate, where the processor has it; where not, more time."""
    chosen, native = run.trainer.precision, processor.multiplies_bfloat16()
    if native and getattr(run.model, "convolves", False):
        finding = f"{chosen} convolutions, on a processor with instructions for bfloat16"
        advice = "trainer.precision=mixed_bfloat16 takes about two thirds of the time"
        return [judged(chosen == "float32", "note", "precision", finding, advice)]
    if chosen == "mixed_bfloat16" and not native and environment.device().startswith("CPU"):
        finding = f"{chosen}, on a processor without instructions for it"
        return [Line("warning", "precision", finding, "trainer.precision=float32 is faster here")]
    return []
