"""The figures of a study: how it went, what mattered, a slice along each axis, and what cannot be had together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from descent.plot import APART, TRAIN, VALIDATION, figure, literal, styled, whole

if TYPE_CHECKING:
    import optuna
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from optuna.trial import FrozenTrial

LEAST = 8  # finished trials, below which shares of a variance say nothing


class Trials(NamedTuple):
    """The trials of a study that say something, in their order.

    Attributes:
        names: of the objectives.
        higher: for each, whether more is better.
        finished: with all values.
        pruned: given up, with the value at which they were.

    The space may change while a study goes on: `of_space` keeps those with the axes that it has now.
    """

    names: tuple[str, ...]
    higher: tuple[bool, ...]
    finished: list[FrozenTrial]
    pruned: list[FrozenTrial]

    def values(self, objective: int) -> np.ndarray:
        """Of the finished trials [m]."""
        return np.array([trial.values[objective] for trial in self.finished])

    def of_space(self) -> Trials:
        """Those that have the axes of the newest finished one: others have no place along each."""
        axes = set(self.finished[-1].params)
        kept = [[one for one in some if set(one.params) == axes] for some in (self.finished, self.pruned)]
        return self._replace(finished=kept[0], pruned=kept[1])


def trials(study: optuna.Study) -> Trials:
    known = study.get_trials(deepcopy=False)
    states = {name: [trial for trial in known if trial.state.name == name] for name in ("COMPLETE", "PRUNED")}
    names = study.user_attrs.get("objectives", [f"objective {i}" for i in range(len(study.directions))])
    higher = tuple(direction.name == "MAXIMIZE" for direction in study.directions)
    seen = [trial for trial in states["PRUNED"] if trial.intermediate_values]
    return Trials(tuple(names), higher, states["COMPLETE"], seen)


def drawn(study: optuna.Study) -> dict[str, Figure]:
    """All figures that make sense for this study, by title."""
    found = trials(study)
    if not found.finished:
        return {}
    made = {"The trials in their order": history(found)}
    if len(found.names) > 1:
        made["Pareto front: none of these is beaten in everything"] = pareto(found)
    shares = importance(study, found)
    if shares:
        made["What mattered: shares of the objective's variance (fANOVA, Hutter et al. 2014)"] = bars(shares)
    for objective, name in enumerate(found.names):
        made[f"Slices: {name} along each axis, later trials darker"] = slices(found, objective)
    return made


def importance(study: optuna.Study, found: Trials) -> dict[str, dict[str, float]]:
    """For each objective, the share of its variance over the space that each axis explains by itself or with others.

    By functional analysis of variance of a random forest (Hutter et al. 2014). Nothing where there is one axis, or
    where there are fewer than eight finished trials or no differences between them.
    """
    import optuna

    found = found.of_space()
    axes = [key for key in found.finished[0].params if len({trial.params[key] for trial in found.finished}) > 1]
    if len(axes) < 2 or len(found.finished) < LEAST:
        return {}

    def shares(objective: int) -> dict[str, float]:
        forest = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return optuna.importance.get_param_importances(
            study, evaluator=forest, params=axes, target=lambda trial: trial.values[objective]
        )

    return {name: shares(i) for i, name in enumerate(found.names) if np.ptp(found.values(i)) > 0}


def front(values: np.ndarray, higher: Sequence[bool]) -> np.ndarray:
    """Which rows of values [m, k] no other beats in one objective without being worse in another, as booleans [m]."""
    costs = np.where(higher, -1.0, 1.0) * values
    return np.array([not np.any(np.all(costs <= one, axis=1) & np.any(costs < one, axis=1)) for one in costs], bool)


def compromises(study: optuna.Study) -> tuple[list[str], list[list[str]]]:
    """The Pareto front of a study with several objectives, as a table: its head, and a row for each trial of it."""
    found = trials(study)
    if len(found.names) < 2 or not found.finished:
        return [], []
    kept = front(np.array([trial.values for trial in found.finished]), found.higher)
    best = [trial for trial, stays in zip(found.finished, kept, strict=True) if stays]
    best.sort(key=lambda trial: -trial.values[0] if found.higher[0] else trial.values[0])
    axes = list(dict.fromkeys(key for trial in reversed(found.finished) for key in trial.params))
    rows = [
        [str(trial.number), *(_cell(trial.params.get(key, "")) for key in axes), *(f"{v:.5g}" for v in trial.values)]
        for trial in best
    ]
    return ["trial", *axes, *found.names], rows


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


# --- drawing ---------------------------------------------------------------------------------------------------------


@styled
def history(found: Trials) -> Figure:
    """Each trial's value over its number, those given up as crosses, and the best so far."""
    made, axes = figure(len(found.names), 1, (7.2, 0.6 + 2.6 * len(found.names)))
    given_up = [_last(trial) for trial in found.pruned]
    for i, (axis, name) in enumerate(zip(axes[:, 0], found.names, strict=True)):
        numbers, values = [trial.number for trial in found.finished], found.values(i)
        best = np.maximum.accumulate(values) if found.higher[i] else np.minimum.accumulate(values)
        axis.plot(numbers, values, "o", color=VALIDATION, ms=4, mew=0, label="finished")
        if found.pruned and not i:
            axis.plot([t.number for t in found.pruned], given_up, "x", color=APART[1], ms=4, label="given up")
        axis.step(numbers, best, where="post", color="black", lw=1.0, label="best so far")
        axis.set(ylabel=name)
        whole(axis)
        _scale(axis.set_yscale, [*values, *(given_up if not i else [])])
    axes[-1][0].set(xlabel="trial")
    made.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return made


def _last(trial: FrozenTrial) -> float:
    return trial.intermediate_values[max(trial.intermediate_values)]


def _scale(scale: Callable[[str], None], values: Sequence[float] | np.ndarray) -> None:
    """A log scale for what is positive and spans more than a factor of ten."""
    some = np.array([value for value in values if np.isfinite(value)])
    if len(some) and some.min() > 0 and some.max() > 10 * some.min():
        scale("log")


@styled
def bars(shares: dict[str, dict[str, float]]) -> Figure:
    """The shares [0, 1] of each objective's axes, the largest first by the first objective."""
    order = list(next(iter(shares.values())))
    made, axes = figure(1, len(shares), (1.6 + 3.4 * len(shares), 0.9 + 0.3 * len(order)))
    for i, (axis, (name, share)) in enumerate(zip(axes[0], shares.items(), strict=True)):
        values = [share.get(key, 0.0) for key in order]
        axis.barh(range(len(order)), values, color=VALIDATION, height=0.62)
        for place, value in enumerate(values):
            axis.text(value + 0.01, place, f"{value:.0%}", va="center", fontsize=8)
        axis.set_yticks(range(len(order)), map(literal, order) if not i else [""] * len(order))
        axis.set(xlabel=f"share of the variance of {name}", xlim=(0, 1.1 * max(values)), ylim=(len(order) - 0.5, -0.5))
        axis.grid(False, axis="y")
    return made


@styled
def slices(found: Trials, objective: int) -> Figure:
    """The objective over each axis: a dot for each finished trial, a cross for each that was given up."""
    found = found.of_space()
    finished, keys = found.finished, list(found.finished[-1].params)
    columns = min(3, len(keys))
    rows = -(-len(keys) // columns)
    made, axes = figure(rows, columns, (max(4.0, 2.9 * columns), 2.6 * rows))
    given_up = found.pruned if objective == 0 else []
    for i, (axis, key) in enumerate(zip(axes.flat, keys, strict=False)):
        if given_up:
            axis.plot(
                _places(given_up, key), [_last(t) for t in given_up], "x", color=APART[1], ms=3.5, mew=0.9, alpha=0.8
            )
        values, numbers = [t.values[objective] for t in finished], [t.number for t in finished]
        axis.scatter(
            _places(finished, key), values, c=numbers, cmap="Blues", vmin=-max(numbers) / 2, s=16, lw=0, zorder=3
        )
        _scale(axis.set_yscale, [*values, *map(_last, given_up)])
        _axis(axis, [trial.distributions[key] for trial in finished])
        axis.set(xlabel=literal(key), ylabel=found.names[objective] if i % columns == 0 else "")
    for axis in axes.flat[len(keys) :]:
        axis.remove()
    return made


def _places(some: Sequence[FrozenTrial], key: str) -> list[float]:
    """Where the values of an axis stand: numbers as they are, choices by their place."""
    return [_place(trial.distributions[key], trial.params[key]) for trial in some]


def _place(distribution: Any, value: Any) -> float:
    choices = getattr(distribution, "choices", None)
    return float(value) if choices is None else float(choices.index(value))


def _axis(axis: Axes, searched: Sequence[Any]) -> None:
    """The whole range that was searched (bounds may be moved); on a log scale labels at the powers of ten alone."""
    from matplotlib.ticker import NullFormatter

    choices = getattr(searched[0], "choices", None)
    if choices is not None:
        axis.set_xticks(range(len(choices)), [literal(str(choice)[:14]) for choice in choices])
        axis.set_xlim(-0.5, len(choices) - 0.5)
        return
    low, high = min(one.low for one in searched), max(one.high for one in searched)
    if searched[-1].log:
        axis.set_xscale("log")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlim(low / (high / low) ** 0.04, high * (high / low) ** 0.04)
    else:
        axis.set_xlim(low - 0.04 * (high - low), high + 0.04 * (high - low))


@styled
def pareto(found: Trials) -> Figure:
    """The first objective against each of the others, with the front of each pair."""
    others = range(1, len(found.names))
    made, axes = figure(1, len(others), (4.6 * len(others) + 0.6, 3.6))
    for axis, other in zip(axes[0], others, strict=True):
        points = np.stack([found.values(other), found.values(0)], axis=1)
        best = points[front(points, (found.higher[other], found.higher[0]))]
        best = best[np.argsort(best[:, 0])]
        axis.plot(*points.T, "o", color=TRAIN, ms=4, mew=0, alpha=0.7, label="finished")
        axis.step(*best.T, where="post", color=VALIDATION, lw=1.4, marker="o", ms=5, label="front")
        axis.set(xlabel=found.names[other], ylabel=found.names[0])
        _scale(axis.set_xscale, points[:, 0])
        _scale(axis.set_yscale, points[:, 1])
    made.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return made
