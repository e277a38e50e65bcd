"""What is left when a run is over: its plots, and one page that needs nothing but a browser."""

from __future__ import annotations

import base64
import csv
import dataclasses
import io
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epy

from descent import metric, plot
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


def draw(folder: RunFolder, pipeline: Pipeline, best_step: int, targets: np.ndarray, outputs: np.ndarray) -> None:
    """The figures of a finished run; `targets` and `outputs` are those of the test split."""
    rows, spec = read_rows(folder.metrics), pipeline.spec
    plot.save(plot.learning_curves(rows, best_step), folder.plots, "learning_curves")
    plot.save(plot.learning_rate(rows), folder.plots, "learning_rate")
    if spec.kind == "image":
        pictures, captions = preview(pipeline)
        title = "first training batch, augmented and mixed, with its labels"
        plot.save(plot.images(pictures, captions, title), folder.plots, "preview")
    if spec.num_classes:
        table = metric.confusion(targets, outputs, spec.num_classes)
        accuracy = np.trace(table) / table.sum()
        made = plot.confusion(table, spec.class_names, f"test split, accuracy {accuracy:.2%}")
        plot.save(made, folder.plots, "confusion_matrix")
        classes(folder.path / CLASSES, table, spec.class_names)
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
    chunk = dataclasses.replace(pipeline.whole, chunk=1).chunk_at(tf.constant(step, tf.int64))
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
    import jinja2

    template = jinja2.Template(
        resources.files("descent").joinpath("report.html.j2").read_text(encoding="utf-8"), autoescape=True
    )
    figures = {path.stem: _embedded(path.read_bytes()) for path in sorted(folder.plots.glob("*.png"))}
    page = template.render(
        summary=summary,
        metrics={name: value for name, value in summary.items() if "/" in name},
        figures=figures,
        classes=_lines(folder.path / CLASSES),
        config=folder.config.read_text(encoding="utf-8"),
        environment=folder.read_json("environment.json"),
    )
    (folder.path / "report.html").write_text(page, encoding="utf-8")


def _lines(path: Path) -> list[list[str]]:
    """The lines of a CSV file; none where there is no such file."""
    return list(csv.reader(io.StringIO(path.read_text(encoding="utf-8")))) if path.exists() else []


def _embedded(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()
