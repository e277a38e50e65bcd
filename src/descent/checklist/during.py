"""During training: what the rows of the log show."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from descent.checklist.line import (
    FEWEST,
    FEWEST_EVALUATIONS,
    Line,
    Rows,
    Status,
    diverges,
    judged,
    levels,
    values_of,
    window,
)
from descent.clipping import GlobalNorm
from descent.loss import CrossEntropy
from descent.plot import series, smoothed

if TYPE_CHECKING:
    from descent.experiment import Experiment

FLAT = 0.01  # share of the first loss: a run that gains less has learnt nothing
CHANCE = 0.99  # of log n, the loss of guessing n classes: a batch falls a little below it by luck
RATIO = 1e-3  # update norm over weight norm of a healthy run, the rule of thumb (Karpathy, CS231n, "Babysitting")
RATIO_HIGH, RATIO_LOW = 30 * RATIO, RATIO / 10  # small networks do best at ten times the rule, so more room above
GROWTH = 2.0  # highest over first weight norm: on digits 1.0 to 1.2 at good rates, 3 and more at ruinous ones
SWING = 0.1  # typical relative change of val/loss from one evaluation to the next that is more than noise
SWINGING = 0.5  # share of turns in direction: about two thirds in pure noise, none in a smooth curve
SPIKE = 20.0  # gradient norm over its neighbours' median: batches differ by small factors, explosions by large ones
VANISHED = 1e-5  # gradient norm at the start, where a working network has about 1
MOSTLY = 0.5  # share of clipped steps above which clipping sets the step length, not the rate
APART = (
    10.0  # batch size and noise scale: within it neither steps nor samples are wasted tenfold (McCandlish et al. 2018)
)
RISE = 0.1  # of val/loss over its best at the end: past the noise of a few hundred samples
GAP = 0.1  # of training over validation accuracy
ERROR_GAP = 1.5  # of validation over training error, for real targets


def during(experiment: Experiment, rows: Rows) -> list[Line]:
    """What the log shows; a point that too few rows say nothing about is left out."""
    lines = (
        _finite(experiment, rows),
        _course(rows),
        _chance(experiment, rows),
        _rate(rows),
        _gradients(rows),
        _clipping(experiment, rows),
        _noise_scale(experiment, rows),
        _overfitting(rows),
    )
    return [line for line in lines if line]


def _finite(experiment: Experiment, rows: Rows) -> Line | None:
    flags = series(rows, "train/finite")[1]
    if not len(flags):
        return None
    losses = series(rows, "train/loss")[1]
    overflows = experiment.trainer.precision == "mixed_float16"  # their loss is finite, and the scale is halved
    lost = int(np.sum((flags == 0) & ~(overflows & np.isfinite(losses))))
    finding = f"{lost} of {len(flags)} logged steps with a loss or gradient that is not finite"
    return judged(lost > 0, "warning", "finite", finding, "lower the rate, or clipping=global_norm")


def _course(rows: Rows) -> Line | None:
    if len(values_of(rows, "train/loss")) < FEWEST:
        return None
    first, best, last = levels(rows)
    finding = f"train/loss {first:.4g} at the start, {best:.4g} at its best, {last:.4g} at the end"
    if diverges(rows):
        return Line(
            "warning", "loss", f"diverging: {finding}", "lower optimizer.learning_rate, or schedule.warmup=0.05"
        )
    advice = "check the data and targets with debug=overfit, then raise optimizer.learning_rate"
    flat = first - best < FLAT * abs(first)
    return judged(flat, "warning", "loss", f"{'flat: ' * flat}{finding}", advice)


def _chance(run: Experiment, rows: Rows) -> Line | None:
    """Cross-entropy of `1/n` everywhere is log n, whatever the labels, smoothed and mixed ones included."""
    classes, loss = run.data.spec.num_classes, run.loss
    plain = isinstance(loss, CrossEntropy) and not getattr(loss, "class_weights", ())
    train = np.array([row["train/loss"] - row.get("train/penalty", 0) for row in rows if "train/loss" in row])
    train = train[np.isfinite(train)]
    if not classes or not plain or len(train) < FEWEST:
        return None
    lowest = min([float(smoothed(train, 3).min()), *values_of(rows, "val/loss")])
    finding = f"lowest loss {lowest:.4g}; guessing {classes} classes gives log {classes} = {math.log(classes):.4g}"
    advice = "nothing was learnt: check labels and inputs with debug=overfit, then the rate with scripts/find_lr.py"
    return judged(lowest > CHANCE * math.log(classes), "warning", "chance level", finding, advice)


def _ratios(rows: Rows) -> np.ndarray:
    """Update norm over weight norm of the finite steps at half the highest rate or more."""
    names = [f"train/{name}" for name in ("update_norm", "param_norm", "learning_rate")]
    table = np.array([[row[name] for name in names] for row in rows if all(name in row for name in names)])
    table = table.reshape(-1, 3)
    table = table[np.isfinite(table).all(axis=1) & (table[:, 0] > 0) & (table[:, 1] > 0)]
    table = table[table[:, 2] >= 0.5 * table[:, 2].max(initial=0)]
    return table[:, 0] / table[:, 1]


def _swings(rows: Rows) -> tuple[float, float]:
    """Of val/loss: the median relative change between evaluations, and the share of turns in direction."""
    values = values_of(rows, "val/loss")
    if len(values) < FEWEST_EVALUATIONS:
        return 0.0, 0.0
    changes = np.diff(values)
    turns = float(np.mean(changes[1:] * changes[:-1] < 0))
    return float(np.median(np.abs(changes)) / max(np.median(np.abs(values)), 1e-30)), turns


def _rate(rows: Rows) -> Line | None:
    """Two signs of a wrong rate make a warning, one a note. Weights that grow hide large updates: both are read."""
    ratios = _ratios(rows)
    if len(ratios) < 3 or len(values_of(rows, "train/loss")) < FEWEST:
        return None
    ratio, most = (float(np.quantile(ratios, q)) for q in (0.5, 0.9))
    (swing, turns), weights, (first, best, _) = _swings(rows), values_of(rows, "train/param_norm"), levels(rows)
    growth = float(weights.max() / weights[0])
    high = [most > RATIO_HIGH, growth > GROWTH, swing > SWING and turns >= SWINGING, diverges(rows)]
    low = [ratio < RATIO_LOW, first - best < FLAT * abs(first)]
    finding = (
        f"updates of {ratio:.1e} of the weights (rule of thumb {RATIO:.0e}), a tenth over {most:.1e}; "
        f"weights grew {growth:.2f} times, val/loss swings by {swing:.1%}"
    )
    status: Status = "warning" if max(sum(high), sum(low)) > 1 else "note"
    if any(high):
        return Line(status, "rate", f"too high? {finding}", "lower optimizer.learning_rate threefold")
    return judged(low[0], status, "rate", f"{'too low? ' * low[0]}{finding}", "raise it; scripts/find_lr.py tells")


def _gradients(rows: Rows) -> Line | None:
    norms = values_of(rows, "train/grad_norm")
    if len(norms) < FEWEST:
        return None
    start, around = float(np.median(norms[: window(norms)])), _running_median(norms)
    spike = float(np.max(norms / np.maximum(around, 1e-30), initial=0, where=around > 0))
    finding = f"norm {start:.2g} at the start, {norms.max():.2g} at most, {spike:.1f} times its neighbours"
    if start < VANISHED:
        return Line("warning", "gradients", f"vanishing: {finding}", "normalise, or shorten the network")
    advice = f"clipping=global_norm clipping.max_norm={2 * float(np.median(norms)):.2g}"
    return judged(spike > SPIKE, "note", "gradients", finding, advice)


def _running_median(values: np.ndarray, reach: int = 10) -> np.ndarray:
    padded = np.pad(values, reach, mode="reflect" if len(values) > reach else "edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1), axis=1)


def _clipping(run: Experiment, rows: Rows) -> Line | None:
    """The share of steps whose joint norm is over the bound: exact for it, at most so for a bound per variable."""
    limit, norms = getattr(run.clipping, "max_norm", None), values_of(rows, "train/grad_norm")
    if limit is None or not len(norms):
        return None
    share = float(np.mean(norms > limit))
    bound = "" if isinstance(run.clipping, GlobalNorm) else "at most "
    finding = f"{bound}{share:.0%} of the logged steps over max_norm {limit:g} (median norm {np.median(norms):.2g})"
    advice = "the bound, not the rate, sets most steps: raise clipping.max_norm, or lower the rate"
    return judged(share > MOSTLY, "note", "clipping", finding, advice)


def _noise_scale(run: Experiment, rows: Rows) -> Line | None:
    """The batch against the noise scale of the second half of the run: it grows as the loss falls."""
    scales = values_of(rows, "train/noise_scale")
    if not len(scales):
        return None
    scale, batch = float(np.median(scales[len(scales) // 2 :])), run.trainer.batch_size
    finding = f"{scale:.3g} samples; batches of {batch}"
    if batch * APART < scale:
        advice = "too small? a batch twice as large needs about half the steps: raise trainer.batch_size and the rate"
        return Line("note", "gradient noise scale", finding, advice)
    advice = "too large? a smaller batch learns about as much in a step: lower trainer.batch_size"
    return judged(batch > APART * scale, "note", "gradient noise scale", finding, advice)


def _overfitting(rows: Rows) -> Line | None:
    losses = values_of(rows, "val/loss")
    if len(losses) < FEWEST_EVALUATIONS or len(values_of(rows, "train/loss")) < FEWEST:
        return None
    last, best = float(losses[-max(1, len(losses) // 10) :].mean()), float(losses.min())
    gap, wide = _gap(rows)
    finding = f"val/loss {best:.4g} at its best, {last:.4g} at the end{gap}"
    if last > (1 + RISE) * best and not diverges(rows):
        return Line("warning", "overfitting", finding, "stop earlier, more augmentation or regularization, less model")
    return judged(wide, "note", "overfitting", finding, "more augmentation, regularization or data")


def _gap(rows: Rows) -> tuple[str, bool]:
    """Training against validation at the end, in words, and whether they are far apart."""
    for name in ("accuracy", "mae"):
        train, val = values_of(rows, f"train/{name}"), values_of(rows, f"val/{name}")
        if len(train) and len(val):
            a, b = float(train[-window(train) :].mean()), float(val[-1])
            wide = a - b > GAP if name == "accuracy" else b > ERROR_GAP * a
            return f"; {name} {a:.4g} in training, {b:.4g} in validation", wide
    return "", False
