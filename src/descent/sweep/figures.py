"""The figures of a sweep: every variant with its interval, learning curves with bands, and what was varied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from descent import statistics
from descent.plot import APART, VALIDATION, figure, literal, logarithmic, styled
from descent.runs import losses_differ
from descent.sweep import study_figures
from descent.sweep.collected import Collected, order
from descent.sweep.ranking import Rank

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 40  # variants in one figure


def drawn(sweep: Collected) -> dict[str, Figure]:
    """All figures that make sense for this sweep, by title."""
    made = {} if sweep.study is None else study_figures.drawn(sweep.study)
    if not sweep.ranks:
        return made
    if sweep.study is None:
        made["Every variant, with its 95 % interval"] = variants(sweep)
    made["Learning curves of the best, with 95 % bands"] = curves(sweep)
    if len(sweep.axes) == 2 and sweep.study is None:
        made[f"{sweep.axes[1]} against {sweep.axes[0]}"] = heat_map(sweep)
    if len(sweep.axes) >= 3:
        made["Parallel coordinates: a line for each variant"] = parallel(sweep)
    if len(sweep.axes) >= 2 and sweep.study is None:
        made["Each axis by itself, over the values of the others"] = margins(sweep)
    return made


@styled
def variants(sweep: Collected) -> Figure:
    """What each variant reached: a dot for each run, the mean, and the interval of the mean."""
    ranks = sweep.ranks[:MOST]
    made, axes = figure(size=(7.2, 0.8 + 0.26 * len(ranks)))
    axis, places = axes[0][0], np.arange(len(ranks))
    for place, one in zip(places, ranks, strict=True):
        axis.plot(one.reached, np.full(len(one.reached), place), "o", color=APART[1], ms=4, mew=0, zorder=3)
        axis.plot([one.value.low, one.value.high], [place, place], color=VALIDATION, lw=1.6, solid_capstyle="butt")
        axis.plot(one.value.mean, place, "|", color="black", ms=9, mew=1.4)
    axis.set_yticks(places, [_short(sweep.label(one)) for one in ranks])
    axis.set(xlabel=ranks[0].basis.title, ylim=(len(ranks) - 0.4, -0.6))
    axis.grid(False, axis="y")
    return made


def _short(label: str, most: int = 70) -> str:
    """A user's text as it stands in a figure: not too long, and no formula."""
    return literal(label if len(label) <= most else f"{label[: most - 1]}…")


@styled
def curves(sweep: Collected) -> Figure:
    """Mean validation curves over the epochs, and the band of their 95 % intervals, of the loss and the next metric.

    Where the runs minimise different losses, these do not share a figure.
    """
    ranks = sweep.ranks[: len(APART)]
    own = losses_differ([run for one in ranks for run in one.variant.runs])
    names = [name for name in ("val/loss", "val/accuracy", "val/mae") if _has(ranks, name)]
    names = [name for name in names if not own or name != "val/loss"] or names
    made, axes = figure(1, len(names), (3.6 * len(names) + 0.4, 3.6))
    for axis, name in zip(axes[0], names, strict=True):
        if name == "val/loss":
            logarithmic(axis, "y")
        for color, one in zip(APART, ranks, strict=False):
            _band(axis, one, name, color, _short(sweep.label(one)))
        axis.set(xlabel="epoch", ylabel=name)
        if name == "val/accuracy":
            axis.set_ylim(top=min(1.0, axis.get_ylim()[1]))
    handles, labels = axes[0][0].get_legend_handles_labels()
    made.legend(handles, labels, loc="outside lower center", ncols=1 if max(map(len, labels)) > 40 else 2)
    return made


def _has(ranks: Sequence[Rank], name: str) -> bool:
    return any(name in row for one in ranks for run in one.variant.runs for row in run.rows)


def _band(axis: Axes, one: Rank, name: str, color: str, label: str) -> None:
    series = [{row["epoch"]: row[name] for row in run.rows if name in row} for run in one.variant.runs]
    epochs = sorted({epoch for run in series for epoch in run})
    values = np.array([[run.get(epoch, np.nan) for epoch in epochs] for run in series])
    over_seeds = statistics.log_band if axis.get_yscale() == "log" else statistics.band
    mean, low, high = over_seeds(values)
    axis.plot(epochs, mean, color=color, lw=1.4, label=label, marker="o" if len(epochs) < 3 else "")
    axis.fill_between(epochs, low, high, color=color, alpha=0.15, lw=0)


def _table(sweep: Collected, first: str, second: str) -> tuple[list[str], list[str], np.ndarray]:
    """Means of the best value for each pair of values of two axes [rows, columns]; NaN where there is none."""
    columns, rows = sweep.values(first), sweep.values(second)
    cells: dict[tuple[str, str], list[float]] = {}
    for one in sweep.ranks:
        setting = dict(zip(sweep.axes, sweep.settings(one), strict=True))
        cells.setdefault((setting[second], setting[first]), []).append(one.value.mean)
    means = [[np.mean(cells.get((row, column), [np.nan])) for column in columns] for row in rows]
    return columns, rows, np.array(means)


@styled
def heat_map(sweep: Collected) -> Figure:
    """The mean best value for each pair of values."""
    columns, rows, means = _table(sweep, sweep.axes[0], sweep.axes[1])
    made, axes = figure(size=(2.4 + 0.95 * len(columns), 1.4 + 0.5 * len(rows)))
    axis, higher = axes[0][0], sweep.ranks[0].basis.higher
    image = axis.imshow(means, cmap="viridis" if higher else "viridis_r", aspect="auto")
    axis.grid(False)
    middle = (np.nanmin(means) + np.nanmax(means)) / 2
    for (i, j), value in np.ndenumerate(means):
        if np.isfinite(value) and means.size <= 100:
            dark = (value < middle) == higher
            axis.text(j, i, f"{value:.4g}", ha="center", va="center", fontsize=7, color="white" if dark else "black")
    axis.set_xticks(range(len(columns)), map(_short, columns))
    axis.set_yticks(range(len(rows)), map(_short, rows))
    axis.set(xlabel=literal(sweep.axes[0]), ylabel=literal(sweep.axes[1]))
    made.colorbar(image, ax=axis, label=sweep.ranks[0].basis.title)
    return made


@styled
def parallel(sweep: Collected) -> Figure:
    """A line for each variant through its values, coloured by what it reached; the best drawn last."""
    names = [*sweep.axes, sweep.ranks[0].basis.title]
    made, axes = figure(size=(1.6 * len(names) + 1, 3.8))
    axis, known = axes[0][0], [one for one in sweep.ranks if np.isfinite(one.value.mean)]
    reached = np.array([one.value.mean for one in known])
    heights = [_heights(sweep.values(key), [sweep.settings(one)[i] for one in known], axis, i)
               for i, key in enumerate(sweep.axes)]  # fmt: skip
    heights.append(_scaled(reached))
    quality = heights[-1] if known[0].basis.higher else 1 - heights[-1]
    import matplotlib as mpl

    for line, good in list(zip(np.array(heights).T, quality, strict=True))[::-1]:
        axis.plot(range(len(names)), line, color=mpl.colormaps["viridis_r"](0.05 + 0.9 * good), lw=1.1, alpha=0.8)
    for share, value in ((0, reached.min()), (1, reached.max())):
        axis.text(len(names) - 0.95, share, f"{value:.4g}", va="center", fontsize=7)
    axis.set_xticks(range(len(names)), map(literal, names), rotation=20, ha="right")
    axis.set_yticks([])
    axis.set(xlim=(-0.3, len(names) - 0.4), ylim=(-0.06, 1.06))
    axis.spines[:].set_visible(False)
    return made


def _scaled(values: np.ndarray) -> np.ndarray:
    spread = float(np.ptp(values))
    return (values - values.min()) / spread if spread else np.full(len(values), 0.5)


def _heights(values: Sequence[str], own: Sequence[str], axis: Axes, place: int) -> np.ndarray:
    """Where the values of one axis stand: numbers by size, on a log scale where they span it; words evenly."""
    numbers = np.array([order(value)[0] for value in values])
    if np.isfinite(numbers).all() and len(values) > 8:
        wide = numbers.min() > 0 and numbers.max() > 20 * numbers.min()
        heights = _scaled(np.log(numbers) if wide else numbers)
        labelled = [int(np.argmin(numbers)), int(np.argmax(numbers))]
    else:
        heights, labelled = _scaled(np.arange(len(values), dtype=float)), list(range(len(values)))
    for i in labelled:
        text = f"{numbers[i]:.3g}" if np.isfinite(numbers[i]) else _short(values[i])
        axis.text(place - 0.05, heights[i], text, ha="right", va="center", fontsize=7)
    return heights[[list(values).index(value) for value in own]]


@styled
def margins(sweep: Collected) -> Figure:
    """What each value of an axis reached, over all values of the others: a slice through the space."""
    count = len(sweep.axes)
    columns = min(count, 3)
    made, axes = figure(-(-count // columns), columns, (2.9 * columns, 2.5 * -(-count // columns)))
    for i, (axis, key) in enumerate(zip(axes.flat, sweep.axes, strict=False)):
        values = sweep.values(key)
        numbers = [order(value)[0] for value in values]
        numeric = bool(np.isfinite(numbers).all()) and len(values) > 4
        for one in sweep.ranks:
            value = sweep.settings(one)[i]
            place = float(value) if numeric else values.index(value)
            axis.plot(place, one.value.mean, "o", color=VALIDATION, alpha=0.5, ms=4, mew=0)
        if not numeric:
            axis.margins(x=0.2)
            axis.set_xticks(range(len(values)), [_short(value, 14) for value in values], rotation=30, ha="right")
        elif min(numbers) > 0 and max(numbers) > 20 * min(numbers):
            axis.set_xscale("log")
        axis.set(xlabel=literal(key), ylabel=sweep.ranks[0].basis.title if i % columns == 0 else "")
    for axis in axes.flat[count:]:
        axis.remove()
    return made
