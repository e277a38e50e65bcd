"""Which technique helps: what each adds to the recipe and by itself, with its interval; as table and as figure."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from descent import display, plot
from descent.callback import higher_is_better
from descent.folder import RunFolder, write_atomic
from descent.plot import APART, VALIDATION, figure, styled
from descent.runs import FinishedRun, losses_differ, read
from descent.statistics import Estimate, holm, paired
from descent.sweep.ablation import FULL, Arm, Kind, Plan
from descent.types import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOSS = "test/loss"  # does not compare where a level is another loss
METRICS = ("test/accuracy", LOSS, "test/mae")
WAYS = {  # of an effect: its colour, marker and filling, and the shift of its row
    "all together": ("black", "s", "black", 0.0),
    "in the recipe": (VALIDATION, "o", VALIDATION, -0.14),
    "alone": (APART[1], "o", "white", 0.14),
    "factor": (APART[2], "D", APART[2], 0.0),
}
MEANS = {
    "all together": "the recipe against none of it",
    "in the recipe": "what taking it out of the recipe loses",
    "alone": "what it gains by itself",
    "factor": "this level against the recipe's own",
}


class Effect(NamedTuple):
    """What a technique adds: of an arm and its reference the paired difference over the repetitions both completed.

    Attributes:
        gain: positive where the technique (or the level of a factor) is better, whichever way the metric goes.
        p: two-sided, by `statistics.paired`; `adjusted` by Holm's correction over all effects on the metric.
    """

    subject: str
    kind: Kind
    metric: str
    gain: Estimate
    p: float
    adjusted: float

    @property
    def sure(self) -> bool:
        """At 5 %, after the correction; two pairs are too few to tell a spread by."""
        return self.gain.n > 2 and self.adjusted < 0.05


def measured(sweep: Path, found: Plan) -> list[Effect]:
    """All effects that the runs in the sweep's folder tell of, metric by metric.

    Raises:
        UserError: no run of the full recipe is completed.
    """
    runs = {name: [_completed(sweep / folder) for folder in folders] for name, folders in found.folders.items()}
    full = [run for run in runs[FULL] if run]
    if not full:
        raise UserError(f"{sweep}: no run of the full recipe is completed")
    compared = [arm for arm in found.arms if arm.subject and not found.is_idle(arm)]
    own = losses_differ([run for runs_of in runs.values() for run in runs_of if run])
    names = [name for name in METRICS if all(name in run.summary for run in full) and not (own and name == LOSS)][:2]
    return [effect for name in names for effect in _of_metric(compared, runs, name)]


def _completed(folder: Path) -> FinishedRun | None:
    """A run that is completed, if its figures are still to be drawn, too."""
    done = (folder / "done.json").exists() or RunFolder(folder).undrawn.exists()
    return read(folder) if done else None


def _of_metric(compared: Sequence[Arm], runs: Mapping[str, Sequence[FinishedRun | None]], name: str) -> list[Effect]:
    sign = 1.0 if higher_is_better(name, "auto") else -1.0
    values = {key: sign * np.array([run.final(name) if run else np.nan for run in own]) for key, own in runs.items()}
    rows = []
    for arm in compared:
        ours, reference = values[arm.name], values[arm.reference]
        taken_out = arm.kind in ("in the recipe", "all together")
        rows.append((arm, paired(reference, ours) if taken_out else paired(ours, reference)))
    adjusted = holm([result.p for _, result in rows])
    return [
        Effect(arm.subject, arm.kind, name, result.difference, result.p, float(chance))
        for (arm, result), chance in zip(rows, adjusted, strict=True)
    ]


# --- what is written -------------------------------------------------------------------------------------------------


def subjects(found: Sequence[Effect]) -> list[str]:
    """All together first, then the techniques by what they add to the recipe, then the factors' levels.

    Last those that have an effect alone only: in the recipe another one hides them.
    """
    first = [effect for effect in found if effect.metric == found[0].metric]
    gains = {effect.subject: effect.gain.mean for effect in first if effect.kind == "in the recipe"}
    together = [effect.subject for effect in first if effect.kind == "all together"]
    levels = [effect.subject for effect in first if effect.kind == "factor"]
    known = [*together, *sorted(gains, key=lambda name: -np.nan_to_num(gains[name], nan=-np.inf)), *levels]
    return list(dict.fromkeys([*known, *(effect.subject for effect in found)]))  # what is alone only, last


def table(found: Sequence[Effect]) -> list[list[str]]:
    """A row for each subject: in the recipe (or as a level), then alone, of each metric; the first row is the head."""
    names = list(dict.fromkeys(effect.metric for effect in found))
    cells = {(e.subject, e.metric, e.kind == "alone"): shown(e) for e in found}
    heads = [f"{name}, {way}" for name in names for way in ("in the recipe", "alone")]
    rows = [
        [subject, *(cells.get((subject, name, alone), "") for name in names for alone in (False, True))]
        for subject in subjects(found)
    ]
    return [["technique", *heads], *rows]


def shown(effect: Effect) -> str:
    """The gain and half its interval; with a star where it is sure."""
    gain, share = effect.gain, effect.metric.endswith("accuracy")
    if np.isnan(gain.mean):
        return "-"
    scale, digits = (100.0, 2) if share else (1.0, 4)
    half = "" if np.isnan(gain.high) else f" ± {scale * (gain.high - gain.mean):.{digits}f}"
    return f"{scale * gain.mean:+.{digits}f}{half}{' *' if effect.sure else ''}"


def text(found: Sequence[Effect]) -> str:
    """The table for a terminal."""
    about = "gain ± half of its 95 % interval (accuracy in points); *: sure at 5 % (Holm)"
    return f"{display.columns(table(found))}\n{about}"


def write(found: Sequence[Effect], sweep: Path) -> None:
    """`ablation.csv`, a row for each effect, and the figure `ablation.png` and `ablation.svg`."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["subject", "kind", "metric", "gain", "low", "high", "pairs", "p", "p_holm"])
    writer.writerows([e.subject, e.kind, e.metric, *e.gain, e.p, e.adjusted] for e in found)
    write_atomic(sweep / "ablation.csv", out.getvalue())
    plot.save(drawn(found), sweep, "ablation")


@styled
def drawn(found: Sequence[Effect]) -> Figure:
    """What each technique adds, with its 95 % interval: in the recipe and alone, and what levels of factors change."""
    names, rows = list(dict.fromkeys(effect.metric for effect in found)), subjects(found)
    made, axes = figure(1, len(names), (1.6 + 3.4 * len(names), 1.5 + 0.34 * len(rows)))
    for axis, name in zip(axes[0], names, strict=True):
        axis.axvline(0, color="black", lw=0.8)
        for effect in found:
            if effect.metric == name:
                _effect(axis, effect, rows.index(effect.subject))
        points = name.endswith("accuracy")
        axis.set(xlabel=f"gain in {name}, points" if points else f"{name} lower by", ylim=(len(rows) - 0.5, -0.5))
        axis.set_yticks(range(len(rows)), map(plot.literal, rows) if axis is axes[0][0] else [""] * len(rows))
        axis.grid(False, axis="y")
    handles = {
        way: axes[0][0].plot([], [], color=c, marker=m, mfc=f, ms=5, lw=1.4)[0] for way, (c, m, f, _) in WAYS.items()
    }
    kinds = [way for way in WAYS if any(effect.kind == way for effect in found)]
    made.legend(
        [handles[way] for way in kinds],
        [MEANS[way] for way in kinds],
        title="mean and 95 % interval of the differences between runs of one seed; * sure at 5 %, corrected (Holm)",
        loc="outside lower center",
        ncols=2,
    )
    return made


def _effect(axis: Axes, effect: Effect, row: int) -> None:
    color, marker, inside, shift = WAYS[effect.kind]
    scale = 100.0 if effect.metric.endswith("accuracy") else 1.0
    place, gain = row + shift, effect.gain
    axis.plot([scale * gain.low, scale * gain.high], [place, place], color=color, lw=1.4, solid_capstyle="butt")
    axis.plot(scale * gain.mean, place, marker, color=color, mfc=inside, ms=5)
    if effect.sure:
        axis.annotate("*", (scale * gain.high, place), (3, -4), textcoords="offset points", color=color)
