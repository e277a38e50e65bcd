"""A run as probes see it: weights, gradients, batches. What is computed here changes nothing of the run."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from etils import epy

from descent import plot, report
from descent.data.pipeline import Pipeline
from descent.folder import RunFolder
from descent.state import State
from descent.step import Step, scaled, to_batch
from descent.types import Record

with epy.lazy_imports():
    import keras
    import tensorflow as tf

if TYPE_CHECKING:
    from collections.abc import Callable

JUDGED = 256  # samples on which a unit is called dead


@dataclasses.dataclass(frozen=True)
class Inspector:
    """See `probe.Inspected`. The gradients are those of the compiled step, in a program of their own."""

    state: State
    compiled: Step
    pipeline: Pipeline
    place: RunFolder

    @property
    def step(self) -> int:
        return int(self.state.step.numpy())

    @property
    def batch_size(self) -> int:
        return self.pipeline.batch_size

    @property
    def folder(self) -> str:
        return str(self.place.path)

    def _whole(self, count: int) -> range:
        """The next `count` steps, or the last ones whose batches are whole: the very last may be padded."""
        end = max(1, self.pipeline.steps - 1)
        first = max(0, min(self.step, end - count))
        return range(first, min(first + count, end))

    def weights(self) -> dict[str, np.ndarray]:
        return {v.path: np.array(v.value) for v in self.state.model.trainable_variables}

    def gradients(self) -> dict[str, np.ndarray]:
        found = self._gradients(tf.constant(self._whole(1)[0], tf.int64))
        paths = [v.path for v in self.state.model.trainable_variables]
        return {path: gradient.numpy() for path, gradient in zip(paths, found, strict=True)}

    def squares(self, count: int) -> tuple[float, float, int]:
        steps, each, total = self._whole(count), 0.0, None
        for step in steps:
            gradients = self._gradients(tf.constant(step, tf.int64))
            each += float(tf.linalg.global_norm(gradients)) ** 2 / len(steps)
            total = gradients if total is None else [a + b for a, b in zip(total, gradients, strict=True)]
        return each, (float(tf.linalg.global_norm(total)) / len(steps)) ** 2, len(steps)

    def draw_batch(self) -> None:
        if self.pipeline.spec.kind != "image":
            return
        step = self._whole(1)[0]
        made = plot.images(*report.preview(self.pipeline, step), f"training batch of step {step + 1}")
        plot.save(made, self.place.plots, f"batch_{step + 1:06d}")

    @cached_property
    def _gradients(self) -> Callable[[tf.Tensor], list[tf.Tensor]]:
        return tf.function(self._compute, autograph=False)

    def _compute(self, step: tf.Tensor) -> list[tf.Tensor]:
        """The gradients of a step's batch at the weights as they are; batch statistics are put back."""
        raw = tf.nest.map_structure(lambda t: t[0], dataclasses.replace(self.pipeline.whole, chunk=1).chunk_at(step))
        batch = self.pipeline.mixing.apply(raw.plan, to_batch(self.pipeline.spec, raw))
        others = [v.value for v in self.state.model.non_trainable_variables]
        before = [tf.identity(v) for v in others]
        _, gradients = self.compiled.gradient(batch, step, self.state.scaling.scale())
        with tf.control_dependencies(gradients):
            for variable, value in zip(others, before, strict=True):
                variable.assign(value)
        return gradients


def dead_units(model: keras.Model, pipeline: Pipeline) -> Record:
    """The share of ReLU units (channels) that are zero on all of `JUDGED` validation samples: no gradient reaches them.

    Empty where the model shows no such layer.
    """
    try:
        found = [layer.output for layer in model.layers if _rectifies(layer)]
    except (AttributeError, ValueError):  # a subclassed model has no graph, a shared layer several outputs
        return {}
    if not found:
        return {}
    size = min(JUDGED, pipeline.spec.sizes["validation"])
    raw = next(iter(pipeline.evaluation("validation", size, 1))).inputs[0]
    outputs = keras.Model(model.inputs, found)(scaled(pipeline.spec, raw), training=False)
    alive = [np.array(x).reshape(-1, x.shape[-1]).max(axis=0) > 0 for x in tf.nest.flatten(outputs)]
    return {"dead_units": 1 - float(np.mean(np.concatenate(alive)))}


def _rectifies(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.layers.ReLU) or getattr(layer, "activation", None) is keras.activations.relu
