"""Figures of a finished run, of a quality to put in a paper. Drawn from the log, after training."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[dict[str, float]]

STYLE: dict[Any, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.axisbelow": True,
    "axes.titlesize": "medium",
    "axes.titley": 1.0,  # else it is looked for anew at each drawing
    "font.size": 9,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "svg.hashsalt": "descent",  # with no date, so that the same run gives the same bytes
}
DPI = 160  # of a PNG
SHARP = 48  # pixels of a side up to which images are shown with their pixels' edges
TRAIN, VALIDATION = "#8a94a6", "#1f5fbf"
# Colours that colour-blind readers can tell apart (Okabe & Ito 2008).
APART = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#000000")


Drawing = TypeVar("Drawing", bound=Callable[..., Any])


def styled(draw: Drawing) -> Drawing:
    """Runs a drawing function in our style, leaving the user's own settings alone."""

    @functools.wraps(draw)
    def inner(*args: Any, **kwargs: Any) -> Any:
        import matplotlib as mpl

        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return cast(Drawing, inner)


def figure(rows: int = 1, columns: int = 1, size: tuple[float, float] = (6.4, 3.6)) -> tuple[Figure, np.ndarray]:
    """A figure that needs no window system, and its axes as a 2-D array."""
    from matplotlib.figure import Figure

    made = Figure(figsize=size, layout="constrained")
    return made, made.subplots(rows, columns, squeeze=False)


@styled
def save(made: Figure, folder: Path, name: str) -> Path:
    """As PNG to look at and as SVG to print."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.svg").write_bytes(svg(made))
    made.set_dpi(DPI)
    FigureCanvasAgg(made).print_png(folder / f"{name}.png")
    return folder / f"{name}.png"


@styled
def svg(made: Figure) -> bytes:
    """As SVG; laid out for good."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    if engine := made.get_layout_engine():
        engine.execute(made)
        made.set_layout_engine("none")  # it would do so again for each format
    file = io.BytesIO()
    # Not `savefig`, which draws each format twice: the first time to find bounds that nobody asks for.
    FigureCanvasSVG(made).print_svg(file, metadata={"Date": None})
    return file.getvalue()


def series(rows: Rows, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of one metric."""
    pairs = [(row["step"], row[name]) for row in rows if name in row]
    steps, values = zip(*pairs, strict=True) if pairs else ((), ())
    return np.array(steps), np.array(values)


def smoothed(values: np.ndarray, span: int) -> np.ndarray:
    """Centred running mean over `span` rows, narrower at the ends."""
    if span < 2 or len(values) < 3:
        return values
    half = span // 2
    total = np.concatenate([[0.0], np.cumsum(np.nan_to_num(values))])
    low = np.clip(np.arange(len(values)) - half, 0, None)
    high = np.clip(np.arange(len(values)) + half + 1, None, len(values))
    return (total[high] - total[low]) / (high - low)


@styled
def learning_curves(rows: Rows, best_step: int | None) -> Figure:
    """Loss and the second metric of training batches (thin, smoothed) and of the validation split."""
    names = [name for name in ("loss", "accuracy", "mae") if any(f"val/{name}" in row for row in rows)]
    made, axes = figure(1, len(names), (3.6 * len(names) + 0.6, 3.2))
    for axis, name in zip(axes[0], names, strict=True):
        _curve(axis, rows, name)
        if best_step:
            axis.axvline(best_step, color="black", lw=0.8, ls=":", label="best weights")
        axis.set(xlabel="step", ylabel=name)
        whole(axis)
    axes[0][0].legend()
    return made


def _curve(axis: Axes, rows: Rows, name: str) -> None:
    steps, values = series(rows, f"train/{name}")
    if len(steps):
        axis.plot(steps, values, color=TRAIN, lw=0.5, alpha=0.35)
        axis.plot(steps, smoothed(values, len(values) // 30), color=TRAIN, lw=1.4, label="training batches (smoothed)")
    steps, values = series(rows, f"val/{name}")
    axis.plot(
        steps,
        values,
        color=VALIDATION,
        lw=1.6,
        marker="o" if len(steps) < 12 else "",
        ms=3,
        label="validation",
    )
    if name == "loss" and len(values) and np.nanmin(values) > 0:
        logarithmic(axis, "y")


def logarithmic(axes: Axes, which: Literal["x", "y"]) -> None:
    """Gives one axis a log scale, with plain numbers: to set powers takes half a second the first time."""
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    axes.set(**{f"{which}scale": "log"})
    axis = getattr(axes, f"{which}axis")
    axis.set_major_formatter(Plain())
    axis.set_minor_formatter(Plain(minor_thresholds=(2, 1)))  # decades shown: all within one, some within two


@styled
def learning_rate(rows: Rows) -> Figure:
    """The learning rate of every logged step, and the gradient's norm below it."""
    made, axes = figure(2, 1, (6.0, 4.2))
    for axis, name, label in (
        (axes[0][0], "learning_rate", "learning rate"),
        (axes[1][0], "grad_norm", "gradient norm"),
    ):
        axis.plot(*series(rows, f"train/{name}"), color=VALIDATION, lw=1.2)
        axis.set(ylabel=label, ylim=(0, None))
        whole(axis)
    axes[1][0].set(xlabel="step")
    return made


def whole(axes: Axes) -> None:
    """Ticks along x at whole numbers alone, however few there are."""
    axes.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]


@styled
def schedules(curves: Mapping[str, np.ndarray]) -> Figure:
    """Named learning rates of every step, over the steps; the rate of a step stands at its middle.

    A few are drawn over each other, the earlier ones wider, so that none is hidden; many, each in a panel.
    """
    few = len(curves) <= len(APART)
    rows, columns = (1, 1) if few else (-(-len(curves) // 4), 4)
    made, axes = figure(rows, columns, (5.2 if len(curves) == 1 else 7.6, 3.4 if few else 0.5 + 1.45 * rows))
    limits = {"xlim": (0, max(map(len, curves.values()))), "ylim": (0, 1.05 * max(map(np.max, curves.values())) or 1)}
    for axis in axes.flat:
        axis.set(**limits)
        whole(axis)
    (_overlaid if few and len(curves) > 1 else _panels)(made, axes, curves)
    made.supxlabel("step", fontsize="medium")
    made.supylabel("learning rate", fontsize="medium")
    return made


def _overlaid(made: Figure, axes: np.ndarray, curves: Mapping[str, np.ndarray]) -> None:
    for i, (name, rates) in enumerate(curves.items()):
        width = 1.4 + 0.6 * (len(curves) - 1 - i)
        axes[0][0].plot(np.arange(len(rates)) + 0.5, rates, color=APART[i], lw=width, label=name, clip_on=False)
    made.legend(loc="outside right upper")


def _panels(made: Figure, axes: np.ndarray, curves: Mapping[str, np.ndarray]) -> None:
    for axis, (name, rates) in zip(axes.flat, curves.items(), strict=False):
        axis.plot(np.arange(len(rates)) + 0.5, rates, color=VALIDATION, lw=1.4, clip_on=False)
        axis.set_title(name)
    for axis in axes.flat[len(curves) :]:
        axis.remove()
    for axis in axes[:, 1:].flat:
        axis.tick_params(labelleft=False)
    for axis in axes.flat[: max(0, len(curves) - axes.shape[1])]:
        axis.tick_params(labelbottom=False)


@styled
def range_test(rates: np.ndarray, losses: np.ndarray, smooth: np.ndarray, suggestion: float) -> Figure:
    """The loss of every step of a range test over its rate, raw and smoothed, and the suggested rate."""
    made, axes = figure(1, 1, (5.2, 3.4))
    axis, seen = axes[0][0], min(len(losses), int(1.1 * len(smooth)))
    axis.plot(rates[:seen], losses[:seen], color=TRAIN, lw=0.5, alpha=0.6, label="each step")
    axis.plot(rates[: len(smooth)], smooth, color=VALIDATION, lw=1.6, label="smoothed")
    axis.axvline(suggestion, color="black", lw=0.8, ls=":", label=f"suggested: {suggestion:.2g}")
    low, high = float(np.min(smooth)), float(np.max(smooth))
    logarithmic(axis, "x")
    axis.set(xlabel="learning rate", ylabel="training loss")
    axis.set_ylim(low - 0.2 * (high - low), high + 0.4 * (high - low))
    axis.legend(loc="lower left")
    return made


def literal(text: str) -> str:
    """A user's text, in which a dollar begins no formula."""
    return text.replace("$", r"\$")


@styled
def confusion(table: np.ndarray, names: Sequence[str], title: str) -> Figure:
    """A confusion matrix: colour by share of the true class, counts written in."""
    size, shown = 2.2 + 0.42 * len(names), [literal(name) for name in names]
    made, axes = figure(1, 1, (size, size * 0.92))
    axis = axes[0][0]
    share = table / np.maximum(1, table.sum(axis=1, keepdims=True))
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1, interpolation="none")
    axis.grid(False)
    if len(names) <= 25:
        for (i, j), count in np.ndenumerate(table):
            if count:
                color = "white" if share[i, j] > 0.5 else "black"
                axis.text(j, i, str(count), ha="center", va="center", fontsize=7, color=color)
        axis.set_xticks(range(len(names)), shown, rotation=45, ha="right")
        axis.set_yticks(range(len(names)), shown)
    axis.set(xlabel="predicted", ylabel="true", title=title)
    return made


@styled
def reliability(count: np.ndarray, confidence: np.ndarray, accuracy: np.ndarray, title: str) -> Figure:
    """How often predictions are right, by how sure they are (DeGroot & Fienberg 1983), and how many are how sure."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(3.8, 4.6), layout="constrained")
    upper, lower = made.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    bins, some = len(count), count > 0
    middles = (np.arange(bins) + 0.5) / bins
    upper.bar(middles[some], accuracy[some], 0.92 / bins, color=VALIDATION, alpha=0.55, label="accuracy")
    upper.vlines(confidence[some], accuracy[some], confidence[some], color=APART[1], lw=1.6, label="gap")
    upper.plot([0, 1], [0, 1], color="black", lw=0.9, ls="--", label="calibrated")
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy", title=title)
    made.legend(loc="outside lower center", ncols=3)
    lower.bar(middles, count / max(1, count.sum()), 0.92 / bins, color=TRAIN)
    lower.set(xlabel="confidence", ylabel="share of samples", ylim=(0, None))
    return made


@styled
def images(pictures: np.ndarray, captions: Sequence[str], title: str, columns: int = 8) -> Figure:
    """A captioned grid of images [m, h, w, c] with values in [0, 1]."""
    return _grids({title: (pictures, captions)}, columns)


@styled
def image_grids(grids: Mapping[str, tuple[np.ndarray, Sequence[str]]], columns: int = 8) -> Figure:
    """Captioned grids below each other: images [m, h, w, c] with values in [0, 1] and their captions, by title."""
    return _grids(grids, columns)


def _grids(grids: Mapping[str, tuple[np.ndarray, Sequence[str]]], columns: int) -> Figure:
    sizes = [-(-len(pictures) // columns) * _tall(captions) for pictures, captions in grids.values()]
    shape = next(iter(grids.values()))[0].shape
    from matplotlib.figure import Figure

    made = Figure(figsize=(columns, sum(sizes) * shape[1] / shape[2] + 0.3 * len(grids)), layout="constrained")
    axes = made.subplots(len(grids), 1, squeeze=False, height_ratios=sizes)[:, 0]
    for axis, (title, (pictures, captions)) in zip(axes, grids.items(), strict=True):
        _grid(axis, pictures, captions, columns)
        axis.set_title(title)
    return made


def _tall(captions: Sequence[str]) -> float:
    """Height of a row of the grid, where the height of an image is 1."""
    return 1 + 0.14 * (1 + max(caption.count("\n") for caption in captions))


def _grid(axis: Axes, pictures: np.ndarray, captions: Sequence[str], columns: int) -> None:
    """Images drawn as one picture (many axes are slow)."""
    count, height, width, _ = pictures.shape
    rows, gap, tall = -(-count // columns), 0.08, _tall(captions)
    shown: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1, "aspect": "auto"}
    if max(height, width) <= SHARP:
        shown["interpolation"] = "none"
    axis.axis("off")
    for i, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        left, bottom = i % columns + gap, (i // columns + 1) * tall
        extent = (left, left + 1 - 2 * gap, bottom - gap, bottom - 1 + gap)
        axis.imshow(_visible(np.clip(picture, 0, 1)), extent=extent, **shown)
        axis.text(left + 0.5 - gap, bottom - 1 + gap / 2, literal(caption), ha="center", va="bottom", fontsize=6)
    axis.set(xlim=(0, columns), ylim=(rows * tall, 0), aspect=height / width)


def _visible(picture: np.ndarray) -> np.ndarray:
    """An image [h w c] as it can be drawn: of other than three channels their mean, as grey."""
    return picture if picture.shape[-1] == 3 else picture.mean(axis=-1)


@styled
def predictions(targets: np.ndarray, outputs: np.ndarray, title: str) -> Figure:
    """Real targets [m] against outputs [m], and how the errors are spread."""
    made, axes = figure(1, 2, (7.2, 3.4))
    left, right = axes[0]
    left.scatter(targets, outputs, s=8, alpha=0.5, color=VALIDATION, lw=0)
    ends = [min(targets.min(), outputs.min()), max(targets.max(), outputs.max())]
    left.plot(ends, ends, color="black", lw=0.8, ls=":", label="as it should be")
    left.set(xlabel="true", ylabel="predicted", title=title)
    left.legend()
    right.hist(outputs - targets, bins="auto", color=VALIDATION, alpha=0.7)
    right.axvline(0, color="black", lw=0.8, ls=":")
    right.set(xlabel="predicted less true", ylabel="samples", title="errors")
    return made


Band = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@styled
def bands(curves: Mapping[str, Band], name: str, *, log: bool) -> Figure:
    """Curves by label: epochs, mean, and the bounds of the mean, each [m]."""
    import matplotlib as mpl

    made, axes = figure(1, 1, (7.2, 4.2))
    axis = axes[0][0]
    wheel = APART if len(curves) <= len(APART) else [mpl.colormaps["tab20"](i % 20) for i in range(len(curves))]
    for color, (label, (epochs, mean, low, high)) in zip(wheel, curves.items(), strict=False):
        axis.plot(epochs, mean, color=color, lw=1.6, label=literal(label))
        axis.fill_between(epochs, low, high, color=color, alpha=0.18, lw=0)
    if log:
        logarithmic(axis, "y")
    axis.set(xlabel="epoch", ylabel=name)
    axis.legend(fontsize=8)
    return made
