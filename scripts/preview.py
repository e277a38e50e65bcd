"""Draws what augmentation does: python scripts/preview.py augmentation=strong data=fashion_mnist [KEY=VALUE ...].

Any overrides of `train.py` may follow. Each row is an image and what becomes of it at the first steps; below is the
first training batch, augmented and mixed, with its labels, as the model sees it. Writes `preview.png` and
`preview.svg` to `outputs/preview/`, or to `out=FOLDER`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from descent import UserError, compose
from descent.config import PROJECT, run_main, script_words

if TYPE_CHECKING:
    from descent.data.pipeline import Pipeline

IMAGES, STEPS = 5, 7


def batches(pipeline: Pipeline) -> Iterator[np.ndarray]:
    """The first samples of the training split, scaled: as they are, then augmented as at each of the first steps."""
    import tensorflow as tf

    from descent import seeds

    indices = tf.range(pipeline.batch_size) % pipeline.spec.sizes["train"]
    raw, _ = pipeline.source.gather("train", indices)
    yield raw.numpy() * pipeline.spec.scale
    for step in range(STEPS):
        key = seeds.key(seeds.stream(pipeline.seed, "augment"), tf.constant(step))
        plan = pipeline.sample.draw(key, raw.shape.as_list())
        yield pipeline.sample.apply(plan, raw).numpy() * pipeline.spec.scale


def versions(pipeline: Pipeline) -> tuple[np.ndarray, list[str]]:
    """A row for each of a few images: itself, then its augmented versions."""
    versions = np.stack([batch[:IMAGES] for batch in batches(pipeline)], axis=1)
    captions = ["original", *(f"step {step}" for step in range(STEPS))] * len(versions)
    return versions.reshape(-1, *versions.shape[2:]), captions


def preview(overrides: list[str], folder: Path) -> Path:
    """Writes the figure; returns where it is."""
    experiment = compose(*overrides)
    if experiment.data.spec.kind != "image":
        raise UserError(f"data is {experiment.data.spec.kind}: only images can be drawn")
    from descent import plot, report
    from descent.session import build

    pipeline = build(experiment.resolved()).pipeline
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
