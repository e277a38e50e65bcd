"""Draws what augmentation does: python scripts/preview.py augmentation=strong data=fashion_mnist [KEY=VALUE ...].

Any overrides of `train.py` may follow. Each row is an image and what becomes of it at the first steps; below is the
first training batch, augmented and mixed, with its labels, as the model sees it. Writes `preview.png` and
`preview.svg` to `outputs/preview/`, or to `out=FOLDER`. Texts are shown beside what becomes of them, words that are new
in green and words that are gone in red, and written to `preview.html`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from descent import UserError, compose
from descent.command import script_words
from descent.config import PROJECT
from descent.entry import run_main

if TYPE_CHECKING:
    from descent.data.pipeline import Pipeline

IMAGES, STEPS = 5, 7
STYLE = (
    "body{font-family:sans-serif;max-width:75em;margin:1em auto}table{margin-bottom:2em}th{text-align:left;width:6em;"
    "vertical-align:top}td{padding:.2em}ins{background:#d4f4d4;text-decoration:none}del{background:#f8d4d4}"
)


def raw_batches(pipeline: Pipeline) -> Iterator[np.ndarray]:
    """The first samples of the training split: as they are, then augmented as at each of the first steps."""
    import tensorflow as tf

    from descent import seeds

    indices = tf.range(pipeline.batch_size) % pipeline.spec.sizes["train"]
    raw, _ = pipeline.source.gather("train", indices)
    yield raw.numpy()
    for step in range(STEPS):
        key = seeds.key(seeds.stream(pipeline.seed, "augment"), tf.constant(step))
        plan = pipeline.sample.draw(key, raw.shape.as_list())
        yield pipeline.sample.apply(plan, raw).numpy()


def versions(pipeline: Pipeline) -> tuple[np.ndarray, list[str]]:
    """A row for each of a few images: itself, then its augmented versions."""
    versions = np.stack([batch[:IMAGES] * pipeline.spec.scale for batch in raw_batches(pipeline)], axis=1)
    captions = ["original", *(f"step {step}" for step in range(STEPS))] * len(versions)
    return versions.reshape(-1, *versions.shape[2:]), captions


def marked(before: list[str], after: list[str]) -> Iterator[tuple[str, str]]:
    """The words of both texts in order, each with what became of it: same, gone or new."""
    import difflib

    for tag, a, b, c, d in difflib.SequenceMatcher(a=before, b=after, autojunk=False).get_opcodes():
        yield from ((word, "same" if tag == "equal" else "gone") for word in before[a:b])
        yield from ((word, "new") for word in after[c:d] if tag != "equal")


def show_texts(pipeline: Pipeline, folder: Path) -> Path:
    """Prints a few texts beside what becomes of them at the first steps; writes the same as a page."""
    from html import escape

    from rich.console import Console
    from rich.text import Text

    words, styles = pipeline.spec.words, {"same": "", "gone": "red strike", "new": "bold green"}
    tags = {"same": "{}", "gone": "<del>{}</del>", "new": "<ins>{}</ins>"}
    console, rows = Console(soft_wrap=True), []
    original, *steps = [[[words[i] for i in ids if i] for ids in batch[:IMAGES]] for batch in raw_batches(pipeline)]
    for i, before in enumerate(original):
        console.print(Text("original  " + " ".join(before)))
        cells = [f"<th>original</th><td>{escape(' '.join(before))}</td>"]
        for step, batch in enumerate(steps):
            changes = list(marked(before, batch[i]))
            parts = [part for word, mark in changes for part in ((word, styles[mark]), " ")]
            console.print(Text.assemble(f"step {step}    ", *parts))
            text = " ".join(tags[mark].format(escape(word)) for word, mark in changes)
            cells.append(f"<th>step {step}</th><td>{text}</td>")
        rows.append("".join(f"<tr>{cell}</tr>" for cell in cells))
        console.print()
    folder.mkdir(parents=True, exist_ok=True)
    page = "<!doctype html><meta charset=utf-8><title>preview</title><style>" + STYLE + "</style>"
    (folder / "preview.html").write_text(page + "".join(f"<table>{row}</table>" for row in rows), encoding="utf-8")
    return folder / "preview.html"


def preview(overrides: list[str], folder: Path) -> Path:
    """Writes the figure; returns where it is."""
    experiment = compose(*overrides)
    if experiment.data.spec.kind == "tabular":
        raise UserError("data is tabular: only images and texts can be shown")
    from descent import plot, report
    from descent.session import build

    pipeline = build(experiment.resolved()).pipeline
    if experiment.data.spec.kind == "text":
        return show_texts(pipeline, folder)
    title = "first training batch, augmented and mixed, with its labels"
    grids = {"the same images over steps": versions(pipeline), title: report.preview(pipeline)}
    return plot.save(plot.image_grids(grids, 1 + STEPS), folder, "preview")


def main() -> None:
    words = script_words(__doc__)
    folders = [word.removeprefix("out=") for word in words if word.startswith("out=")]
    overrides = [word for word in words if not word.startswith("out=")]
    print(preview(overrides, Path(folders[-1]) if folders else PROJECT / "outputs/preview"))


if __name__ == "__main__":
    run_main(main)
