"""What is left when a run is over: its plots, and one page that needs nothing but a browser."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from etils import epy

from descent import display, metric, page, plot
from descent.data.pipeline import Pipeline
from descent.folder import RunFolder, read_rows, write_atomic
from descent.step import to_batch
from descent.types import Spec

with epy.lazy_imports():
    import tensorflow as tf

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PREVIEW = 24
CLASSES = "class_report.csv"
LARGEST = 2**26  # bytes that are left to another process; a run with more draws itself

_APART: ContextVar[bool] = ContextVar("apart", default=False)


@contextlib.contextmanager
def drawn_apart() -> Iterator[None]:
    """Inside, what ends a run leaves its figures and its page to another process, which calls `complete`."""
    token = _APART.set(True)
    try:
        yield
    finally:
        _APART.reset(token)


class Material(NamedTuple):
    """What the figures of a completed run show beside its log: numbers and words, for whatever process draws them.

    Attributes:
        targets: of the test split [n].
        outputs: of the best weights on it [n, k].
        classes: their names [k]; none where the target is real.
        pictures: of the first training batch, as the model sees them [m, h, w, c]; none where it is not of images.
        captions: their labels in words [m].
    """

    targets: np.ndarray
    outputs: np.ndarray
    classes: np.ndarray
    pictures: np.ndarray
    captions: np.ndarray

    @classmethod
    def of(cls, pipeline: Pipeline, tested: metric.Outcome) -> Material:
        spec = pipeline.spec
        pictures, captions = preview(pipeline) if spec.kind == "image" else (np.zeros(0), [])
        names = spec.class_names if spec.num_classes else ()
        return cls(tested.targets, tested.outputs, np.array(names, str), pictures, np.array(captions, str))

    @property
    def leaves(self) -> bool:
        """Whether another process is to draw it, and it is of a size to be handed over."""
        return _APART.get() and sum(array.nbytes for array in self) <= LARGEST

    def save(self, path: Path) -> None:
        content = io.BytesIO()
        np.savez(content, **self._asdict())
        write_atomic(path, content.getvalue())

    @classmethod
    def load(cls, path: Path) -> Material:
        with np.load(path) as file:
            return cls(**file)


def conclude(folder: RunFolder, summary: dict[str, Any], shown: Material, say: Callable[[str], object]) -> None:
    """Figures, page, and last of all the mark that the run is complete.

    Raises:
        OSError: the mark could not be written; figures and page, which can be made again, are only told of.
    """
    derived(lambda: draw(folder, summary["best"]["step"], shown), say)
    derived(lambda: write(folder, summary), say)
    folder.write_json("done.json", {"step": summary["steps"]})
    folder.undrawn.unlink(missing_ok=True)


def complete(folder: Path) -> None:
    """Draws what a run has left undrawn, if anything.

    Raises:
        UserError: another process has the folder.
        OSError: see `conclude`.
    """
    place = RunFolder(folder)
    with place.held():
        if place.undrawn.exists():
            conclude(place, place.read_json("summary.json"), Material.load(place.undrawn), print)


def derived(write: Callable[[], object], say: Callable[[str], object]) -> None:
    """Writes what can be made again from the rest; that it fails ends no run."""
    try:
        write()
    except OSError as error:
        say(f"the report or a figure could not be written: {error}")


def draw(folder: RunFolder, best_step: int, shown: Material | None = None) -> None:
    """The figures of a run that is over; `shown`, where its test split was evaluated, is what those of it show."""
    rows = read_rows(folder.metrics)
    if any(name.startswith("val/") for row in rows for name in row):
        plot.save(plot.learning_curves(rows, best_step), folder.plots, "learning_curves")
    if rows:
        plot.save(plot.learning_rate(rows), folder.plots, "learning_rate")
    if shown is not None:
        _draw_test(folder, shown)


def _draw_test(folder: RunFolder, shown: Material) -> None:
    targets, outputs, names = shown.targets, shown.outputs, shown.classes.tolist()
    if len(shown.pictures):
        title = "first training batch as the model sees it, with its labels"
        plot.save(plot.images(shown.pictures, shown.captions.tolist(), title), folder.plots, "preview")
    if names:
        table = metric.confusion(targets, outputs, len(names))
        accuracy = np.trace(table) / table.sum()
        made = plot.confusion(table, names, f"test split, accuracy {accuracy:.2%}")
        plot.save(made, folder.plots, "confusion_matrix")
        classes(folder.path / CLASSES, table, names)
        probabilities = metric.softmax(outputs)
        plot.save(calibration(targets, probabilities, "test split"), folder.plots, "calibration")
    else:
        found = outputs[:, 0].astype(np.float64)
        title = f"test split, R2 {metric.r2(targets, found - targets):.3f}"
        plot.save(plot.predictions(targets, found, title), folder.plots, "predictions")


def calibration(targets: np.ndarray, probabilities: np.ndarray, what: str) -> Figure:
    """The reliability diagram of a split, with its calibration error."""
    error = metric.calibration_error(targets, probabilities)
    return plot.reliability(*metric.reliability(targets, probabilities), f"{what}, calibration error {error:.2%}")


def classes(path: Path, table: np.ndarray, names: Sequence[str]) -> None:
    """Precision, recall, F1 and samples of each class, as CSV, from a confusion matrix [n, n]."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["class", *metric.PerClass._fields])
    for name, *values, samples in zip(names, *metric.per_class(table), strict=True):
        lines.writerow([name, *(f"{value:.6f}" for value in values), samples])
    write_atomic(path, text.getvalue())


def preview(pipeline: Pipeline, step: int = 0) -> tuple[np.ndarray, list[str]]:
    """Samples of a training batch, by default the first, as the model sees them, and their labels in words."""
    make = tf.autograph.experimental.do_not_convert(dataclasses.replace(pipeline.whole, chunk=1).chunk_at)
    chunk = make(tf.constant(step, tf.int64))
    raw = tf.nest.map_structure(lambda t: t[0], chunk)
    batch = pipeline.mixing.apply(raw.plan, to_batch(pipeline.spec, raw))
    pictures = batch.inputs.numpy()[:PREVIEW]
    return pictures, [caption(pipeline.spec, target) for target in batch.targets.numpy()[:PREVIEW]]


def caption(spec: Spec, target: np.ndarray) -> str:
    """A label in words: the class, or each class of a mixture with its weight."""
    if not spec.num_classes:
        return f"{target[0]:.3g}"
    order = [i for i in np.argsort(-target) if target[i] > 0.005][:2]
    if len(order) == 1:
        return spec.class_names[order[0]]
    return "\n".join(f"{spec.class_names[i]} {target[i]:.2f}" for i in order)


def write(folder: RunFolder, summary: dict[str, Any]) -> None:
    """`report.html`: one self-contained page."""
    command, environment = page.reproduction(folder.read_json("environment.json"), alone=True)
    text = page.render(
        "report.html.j2",
        summary=summary,
        folder=folder.path.name,
        headline=_headline(summary),
        metrics=_table(summary),
        figures={
            path.stem.replace("_", " ").capitalize(): _picture(path.read_bytes())
            for path in sorted(folder.plots.glob("*.png"), key=lambda path: (_ORDER.get(path.stem, 9), path.stem))
        },
        classes=_lines(folder.path / CLASSES),
        config=folder.config.read_text(encoding="utf-8"),
        command=command,
        environment=environment,
    )
    write_atomic(folder.path / "report.html", text)


def _picture(png: bytes) -> tuple[str, int]:
    """A figure to embed, and its width on the page: as wide as it was drawn."""
    pixels = int.from_bytes(png[16:20], "big")  # the first field of a PNG's header
    return page.embedded(png, "png"), round(pixels * 96 / plot.DPI)


_ORDER = {"learning_curves": 0, "learning_rate": 1, "confusion_matrix": 2, "calibration": 3, "predictions": 4}


def _headline(summary: dict[str, Any]) -> dict[str, str]:
    """What is looked at first, as text: results of the test split, the best monitored value, size and time."""
    best = summary.get("best", {})
    shown = {name: display.number(summary[name], name) for name in summary if name in ("test/accuracy", "test/loss")}
    if best.get("value") is not None:
        name = f"best {best['monitor']}, at step {best['step']:,}"
        shown[name] = display.number(best["value"], best["monitor"])
    parts = {"parameters": f"{summary['parameters']:,}", "seconds": f"{summary['seconds']:.1f}"}
    return {**shown, **parts, "training samples a second": f"{summary['samples_per_second']:,.0f}"}


def _table(summary: dict[str, Any]) -> dict[str, list[float | None]]:
    """The final values of each metric on the three splits; None where it was not evaluated."""
    names = dict.fromkeys(name.split("/", 1)[1] for name in summary if "/" in name)
    return {name: [summary.get(f"{split}/{name}") for split in metric.PREFIX.values()] for name in names}


def _lines(path: Path) -> list[list[str]]:
    """The lines of a CSV file; none where there is no such file."""
    return list(csv.reader(io.StringIO(path.read_text(encoding="utf-8")))) if path.exists() else []
