"""What an experienced eye looks for before, during and after training: plain functions of plain values.

`before` reads the experiment; `during` the rows of `metrics.jsonl`; `after` those and `summary.json`. A warning says
that the result should not be trusted or the run was wasted, a note that something could be better. The thresholds
are rules of thumb; each stands here with its reason. Sources: Karpathy 2019, "A recipe for training neural
networks"; Bengio 2012, "Practical recommendations for gradient-based training of deep architectures"; Godbole et
al. 2023, "Deep learning tuning playbook"; Prechelt 1998, "Early stopping - but when?".
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from rich.markup import escape

from descent.augmentation import NoMixing, NoSampleAugmentation
from descent.callback import Checkpoint, EarlyStopping, Plateau
from descent.clipping import GlobalNorm
from descent.loss import CrossEntropy
from descent.plot import series, smoothed
from descent.types import SPLITS, Spec, Split

if TYPE_CHECKING:
    from descent.experiment import Experiment

Status = Literal["pass", "note", "warning"]
Rows = Sequence[dict[str, float]]
COLORS: dict[Status, str] = {"pass": "green", "note": "cyan", "warning": "yellow"}

LEAK = 0.01  # share of a split also found in another: real collections have some twins, a leak has many
FEWEST_HELD_OUT = 225  # an accuracy of 90 % has a standard error of 2 points on so many, sqrt(.9 .1 / n)
SETTLED = 0.1  # the last rate over the peak below which weights come to rest (a tenth: one classic step decay)
FEWEST_UPDATES = 10  # an epoch: with fewer, the batch is nearly the whole set and its noise helps no more
SMALLEST_BATCH = 8  # below it batch statistics are mostly noise (Wu & He 2018, group normalization, figure 1)
FEWEST_ROWS = 20  # of training in the log: a curve of fewer points hides spikes
FEWEST_EVALUATIONS = 5  # best weights are picked among them
DIVERGING = 0.5  # share of what the loss had gained that it lost again
DIVERGING_RISE = 0.2  # ... and of the first loss, so that the noise of a curve near its end is no divergence
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
RISE = 0.1  # of val/loss over its best at the end: past the noise of a few hundred samples
GAP = 0.1  # of training over validation accuracy
ERROR_GAP = 1.5  # of validation over training error, for real targets
EARLY = 0.2  # of the run: best weights before it mean that the rest was of no use
FEWEST = 10  # rows from which a course is read at all


class Line(NamedTuple):
    """One point of the list: `finding` has the numbers behind it, `advice` what to do (empty where all is well)."""

    status: Status
    subject: str
    finding: str
    advice: str = ""


def text(lines: Sequence[Line], only: Collection[Status] = ("pass", "note", "warning")) -> str:
    """A line each, with rich's markup; `only` some of them."""
    return "\n".join(
        f"[{COLORS[line.status]}]{line.status:7}[/] {escape(f'{line.subject}: {line.finding}')}"
        + (f" [dim]({escape(line.advice)})[/]" if line.advice else "")
        for line in lines
        if line.status in only
    )


def _judged(fails: bool, status: Status, subject: str, finding: str, advice: str) -> Line:
    return Line(status, subject, finding, advice) if fails else Line("pass", subject, finding)


# --- before -------------------------------------------------------------------------------------------------------


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
    return _judged(bool(worst), status, "splits", f"{sizes} samples; equal ones: {told}", "take the twins out")


def _held_out(spec: Spec) -> Line:
    least = min(spec.sizes["validation"], spec.sizes["test"])
    error = math.sqrt(0.09 / max(1, least))
    finding = f"at least {least:,} samples: an accuracy of 90% has a standard error of {error:.1%}"
    return _judged(least < FEWEST_HELD_OUT, "note", "held-out data", finding, "compare means over several seeds")


def _augmentation(run: Experiment) -> Line:
    sample, batch = run.augmentation.sample, run.augmentation.batch
    off = isinstance(sample, NoSampleAugmentation) and isinstance(batch, NoMixing)
    finding = "off" if off else f"{type(sample).__name__} of samples, {type(batch).__name__} of batches"
    image = run.data.spec.kind == "image"
    return _judged(off and image, "note", "augmentation", finding, "augmentation=standard or mixup_cutmix")


def _schedule(run: Experiment) -> Line:
    rates = run.rates()
    peak, last = float(rates.max()), float(rates[-1])
    watched = any(isinstance(callback, Plateau) for callback in run.callback.values())
    finding = f"{type(run.schedule).__name__}: from {rates[0]:.2g} over {peak:.2g} to {last:.2g}"
    falls = last <= SETTLED * peak or watched
    return _judged(
        not falls, "note", "schedule", finding + ", plateau" * watched, "schedule=warmup_cosine lets it fall"
    )


def _regularization(run: Experiment) -> Line:
    names = ("l1", "l2", "dropout", "spatial_dropout", "stochastic_depth", "max_norm", "label_smoothing")
    rates = {name: getattr(run.regularization, name, 0.0) for name in names}
    rates["weight_decay"] = getattr(run.optimizer, "weight_decay", 0.0)
    chosen = ", ".join(f"{name} {rate}" for name, rate in rates.items() if np.any(np.asarray(rate)))
    return _judged(not chosen, "note", "regularization", chosen or "none", "regularization=standard")


def _evaluations(run: Experiment) -> int:
    return math.ceil(run.clock.steps / run.clock.in_steps(run.trainer.eval_every))


def _early_stopping(run: Experiment) -> Line:
    found = next((c for c in run.callback.values() if isinstance(c, EarlyStopping)), None)
    if found is None:
        return Line("note", "early stopping", "off", "callback=[checkpoint,early_stopping]")
    count = _evaluations(run)
    finding = f"after {found.patience} of {count} evaluations without a better {found.monitor}"
    advice = "it can never stop this run: lower callback.early_stopping.patience"
    return _judged(found.patience >= count, "note", "early stopping", finding, advice)


def _checkpoints(run: Experiment) -> Line:
    found = next((c for c in run.callback.values() if isinstance(c, Checkpoint)), None)
    if found is None:
        advice = "callback=[checkpoint,early_stopping] keeps the best weights and lets a run be continued"
        return Line("warning", "checkpoints", "none: the last weights are tested", advice)
    return Line("pass", "checkpoints", f"best by {found.monitor}; the last {found.keep} to continue from")


def _logging(run: Experiment) -> Line:
    rows, evaluations = run.clock.steps // run.trainer.log_every, _evaluations(run)
    finding = f"{rows} rows and {evaluations} evaluations in {', '.join(['metrics.jsonl', *run.logger])}"
    few = rows < FEWEST_ROWS or evaluations < FEWEST_EVALUATIONS
    return _judged(few, "note", "logging", finding, "lower trainer.log_every or trainer.eval_every for curves")


def _batch(run: Experiment) -> Line:
    size, updates = run.trainer.batch_size, run.clock.steps_per_epoch
    finding = f"batches of {size}: {updates:.4g} updates an epoch, {run.clock.steps:,} in all"
    if size < SMALLEST_BATCH:
        return Line("note", "batch size", finding, "batch norm needs more; trainer.batch_size=32")
    return _judged(updates < FEWEST_UPDATES, "note", "batch size", finding, "lower trainer.batch_size")


# --- during -------------------------------------------------------------------------------------------------------


def during(experiment: Experiment, rows: Rows) -> list[Line]:
    """What the log shows; a point that too few rows say nothing about is left out."""
    lines = (
        _finite(rows),
        _course(rows),
        _chance(experiment, rows),
        _rate(rows),
        _gradients(rows),
        _clipping(experiment, rows),
        _overfitting(rows),
    )
    return [line for line in lines if line]


def _values(rows: Rows, name: str) -> np.ndarray:
    values = np.asarray(series(rows, name)[1], np.float64)
    return values[np.isfinite(values)]


def _window(values: np.ndarray) -> int:
    return max(3, len(values) // 10)


def _finite(rows: Rows) -> Line | None:
    flags = series(rows, "train/finite")[1]
    if not len(flags):
        return None
    lost = int(np.sum(flags == 0))
    finding = f"{lost} of {len(flags)} logged steps with a loss or gradient that is not finite"
    return _judged(lost > 0, "warning", "finite", finding, "lower the rate, or clipping=global_norm")


def _levels(rows: Rows) -> tuple[float, float, float]:
    """Mean training loss at the start, at its smoothed best and at the end."""
    values = _values(rows, "train/loss")
    span = _window(values)
    return float(values[:span].mean()), float(smoothed(values, span).min()), float(values[-span:].mean())


def _diverges(rows: Rows) -> bool:
    first, best, last = _levels(rows)
    return last - best > max(DIVERGING * (first - best), DIVERGING_RISE * abs(first))


def _course(rows: Rows) -> Line | None:
    if len(_values(rows, "train/loss")) < FEWEST:
        return None
    first, best, last = _levels(rows)
    finding = f"train/loss {first:.4g} at the start, {best:.4g} at its best, {last:.4g} at the end"
    if _diverges(rows):
        return Line(
            "warning", "loss", f"diverging: {finding}", "lower optimizer.learning_rate, or schedule.warmup=0.05"
        )
    advice = "check the data and targets with debug=overfit, then raise optimizer.learning_rate"
    flat = first - best < FLAT * abs(first)
    return _judged(flat, "warning", "loss", f"{'flat: ' * flat}{finding}", advice)


def _chance(run: Experiment, rows: Rows) -> Line | None:
    """Cross-entropy of `1/n` everywhere is log n, whatever the labels, smoothed and mixed ones included."""
    classes, loss = run.data.spec.num_classes, run.loss
    plain = isinstance(loss, CrossEntropy) and not getattr(loss, "class_weights", ())
    train = np.array([row["train/loss"] - row.get("train/penalty", 0) for row in rows if "train/loss" in row])
    train = train[np.isfinite(train)]
    if not classes or not plain or len(train) < FEWEST:
        return None
    lowest = min([float(smoothed(train, 3).min()), *_values(rows, "val/loss")])
    finding = f"lowest loss {lowest:.4g}; guessing {classes} classes gives log {classes} = {math.log(classes):.4g}"
    advice = "nothing was learnt: check labels and inputs with debug=overfit, then the rate with scripts/find_lr.py"
    return _judged(lowest > CHANCE * math.log(classes), "warning", "chance level", finding, advice)


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
    values = _values(rows, "val/loss")
    if len(values) < FEWEST_EVALUATIONS:
        return 0.0, 0.0
    changes = np.diff(values)
    turns = float(np.mean(changes[1:] * changes[:-1] < 0))
    return float(np.median(np.abs(changes)) / max(np.median(np.abs(values)), 1e-30)), turns


def _rate(rows: Rows) -> Line | None:
    """Two signs of a wrong rate make a warning, one a note. Weights that grow hide large updates: both are read."""
    ratios = _ratios(rows)
    if len(ratios) < 3 or len(_values(rows, "train/loss")) < FEWEST:
        return None
    ratio, most = (float(np.quantile(ratios, q)) for q in (0.5, 0.9))
    (swing, turns), weights, (first, best, _) = _swings(rows), _values(rows, "train/param_norm"), _levels(rows)
    growth = float(weights.max() / weights[0])
    high = [most > RATIO_HIGH, growth > GROWTH, swing > SWING and turns >= SWINGING, _diverges(rows)]
    low = [ratio < RATIO_LOW, first - best < FLAT * abs(first)]
    finding = (
        f"updates of {ratio:.1e} of the weights (rule of thumb {RATIO:.0e}), a tenth over {most:.1e}; "
        f"weights grew {growth:.2f} times, val/loss swings by {swing:.1%}"
    )
    status: Status = "warning" if max(sum(high), sum(low)) > 1 else "note"
    if any(high):
        return Line(status, "rate", f"too high? {finding}", "lower optimizer.learning_rate threefold")
    return _judged(low[0], status, "rate", f"{'too low? ' * low[0]}{finding}", "raise it; scripts/find_lr.py tells")


def _gradients(rows: Rows) -> Line | None:
    norms = _values(rows, "train/grad_norm")
    if len(norms) < FEWEST:
        return None
    start, around = float(np.median(norms[: _window(norms)])), _running_median(norms)
    spike = float(np.max(norms / np.maximum(around, 1e-30), initial=0, where=around > 0))
    finding = f"norm {start:.2g} at the start, {norms.max():.2g} at most, {spike:.1f} times its neighbours"
    if start < VANISHED:
        return Line("warning", "gradients", f"vanishing: {finding}", "normalise, or shorten the network")
    advice = f"clipping=global_norm clipping.max_norm={2 * float(np.median(norms)):.2g}"
    return _judged(spike > SPIKE, "note", "gradients", finding, advice)


def _running_median(values: np.ndarray, reach: int = 10) -> np.ndarray:
    padded = np.pad(values, reach, mode="reflect" if len(values) > reach else "edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1), axis=1)


def _clipping(run: Experiment, rows: Rows) -> Line | None:
    """The share of steps whose joint norm is over the bound: exact for it, at most so for a bound per variable."""
    limit, norms = getattr(run.clipping, "max_norm", None), _values(rows, "train/grad_norm")
    if limit is None or not len(norms):
        return None
    share = float(np.mean(norms > limit))
    bound = "" if isinstance(run.clipping, GlobalNorm) else "at most "
    finding = f"{bound}{share:.0%} of the logged steps over max_norm {limit:g} (median norm {np.median(norms):.2g})"
    advice = "the bound, not the rate, sets most steps: raise clipping.max_norm, or lower the rate"
    return _judged(share > MOSTLY, "note", "clipping", finding, advice)


def _overfitting(rows: Rows) -> Line | None:
    losses = _values(rows, "val/loss")
    if len(losses) < FEWEST_EVALUATIONS or len(_values(rows, "train/loss")) < FEWEST:
        return None
    last, best = float(losses[-max(1, len(losses) // 10) :].mean()), float(losses.min())
    gap, wide = _gap(rows)
    finding = f"val/loss {best:.4g} at its best, {last:.4g} at the end{gap}"
    if last > (1 + RISE) * best and not _diverges(rows):
        return Line("warning", "overfitting", finding, "stop earlier, more augmentation or regularization, less model")
    return _judged(wide, "note", "overfitting", finding, "more augmentation, regularization or data")


def _gap(rows: Rows) -> tuple[str, bool]:
    """Training against validation at the end, in words, and whether they are far apart."""
    for name in ("accuracy", "mae"):
        train, val = _values(rows, f"train/{name}"), _values(rows, f"val/{name}")
        if len(train) and len(val):
            a, b = float(train[-_window(train) :].mean()), float(val[-1])
            wide = a - b > GAP if name == "accuracy" else b > ERROR_GAP * a
            return f"; {name} {a:.4g} in training, {b:.4g} in validation", wide
    return "", False


# --- after --------------------------------------------------------------------------------------------------------


def after(
    experiment: Experiment, rows: Rows, summary: Mapping[str, Any], files: Collection[str] | None = None
) -> list[Line]:
    """What the log and the summary show; `files` are the names in the run's folder, where they should be checked."""
    return [
        *during(experiment, rows),
        *_best(rows, summary),
        _tested(rows, summary),
        _recorded(experiment, files),
    ]


def _best(rows: Rows, summary: Mapping[str, Any]) -> list[Line]:
    """Nothing, where nothing was monitored."""
    best, evaluated = summary["best"], series(rows, "val/loss")[0]
    if not best["monitor"] or len(evaluated) < FEWEST_EVALUATIONS:
        return []
    share, rates = best["step"] / evaluated[-1], _values(rows, "train/learning_rate")
    finding = f"best {best['monitor']} {best['value']:.4g} at step {best['step']} of {int(evaluated[-1])}"
    if share < EARLY:
        return [Line("note", "best weights", finding, "most of the run was of no use: lower the rate, or regularise")]
    moving = len(rates) > 0 and rates[-1] > SETTLED * rates.max()
    late = best["step"] >= evaluated[-1] and moving
    return [_judged(late, "note", "best weights", finding, "it still improves: train longer, or let the rate fall")]


def _tested(rows: Rows, summary: Mapping[str, Any]) -> Line:
    tested = {name: value for name, value in summary.items() if name.startswith("test/")}
    if any(name.startswith("test/") for row in rows for name in row):
        return Line("warning", "test", "evaluated during training", "choose by validation; test once, at the end")
    if not tested:
        return Line("note", "test", f"not evaluated: the run is {summary['status']}", "continue it to its end")
    found = ", ".join(f"{name} {tested[name]:.4g}" for name in list(tested)[:2])
    if tested.get("test/r2", 1.0) <= 0:
        return Line("warning", "test", f"{found}, r2 {tested['test/r2']:.3g}", "no better than the mean target")
    return Line("pass", "test", f"evaluated once, on the best weights: {found}")


def _recorded(run: Experiment, files: Collection[str] | None) -> Line:
    wanted = ("config.yaml", "environment.json", "metrics.jsonl")
    missing = [name for name in wanted if files is not None and name not in files]
    finding = f"missing {', '.join(missing)}" if missing else f"seed {run.seed} and every setting in {wanted[0]}"
    return _judged(bool(missing), "warning", "record", finding, "without them the run cannot be repeated")
