"""Test-time augmentation: the mean of what a model says to several views of each sample.

Averaging probabilities over shifted and mirrored views is as old as AlexNet (Krizhevsky et al. 2012, section 4.1).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np
from etils import epy

from descent import seeds
from descent.augmentation import NoSampleAugmentation
from descent.data.pipeline import Pipeline
from descent.metric import Outcome
from descent.types import Spec, Split, UserError

with epy.lazy_imports():
    import tensorflow as tf

if TYPE_CHECKING:
    from descent.session import Built

Views = Literal["augmentation", "shift"]
View = Callable[["tf.Tensor", int], "tf.Tensor"]  # raw elements [b, ...] of the batch of that number, seen anew
FAR = 28  # a shift is one pixel in so many
MOST = 10  # views by shifts: five places, each of them mirrored or not


def outcome(built: Built, split: Split, count: int, kind: Views) -> Outcome:
    """Logarithms of mean probabilities over `count` views, or mean real outputs; no losses: those are of one answer.

    The first view is the sample as it is. `augmentation` draws the others as the run's training would at steps past its
    end, so that evaluating again gives the same; `shift` takes mirror images, where they keep their label, and shifts
    of a pixel in 28.

    Raises:
        UserError: the run augmented nothing, or there are fewer views.
    """
    pipeline, evaluator = built.pipeline, built.evaluator
    size = pipeline.spec.sizes[split]
    batch = min(evaluator.batch_size, size)
    batches = -(-size // batch)
    views = _drawn(pipeline, count, batches) if kind == "augmentation" else _shifted(pipeline.spec, count)
    targets, means = [], []
    for number, chunk in enumerate(pipeline.evaluation(split, batch, chunk=1)):
        targets.append(chunk.targets[0].numpy())
        seen = [evaluator.answers(view(chunk.inputs[0], number)) for view in views]
        means.append(np.mean(seen, axis=0, dtype=np.float64))
    mean = np.concatenate(means)[:size]
    logits = np.log(np.maximum(mean, 1e-30)) if pipeline.spec.num_classes else mean
    return Outcome(np.concatenate(targets)[:size], logits)


def _drawn(pipeline: Pipeline, count: int, batches: int) -> list[View]:
    """The sample itself, and draws of the run's own augmentation."""
    if isinstance(pipeline.sample, NoSampleAugmentation):
        raise UserError("views=augmentation: the run augmented no samples; views=shift mirrors and shifts them")
    word = seeds.stream(pipeline.seed, "augment")

    @tf.function(autograph=False, reduce_retracing=True)
    def draw(raw: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        shape = raw.shape.as_list()
        return tf.ensure_shape(pipeline.sample.apply(pipeline.sample.draw(seeds.key(word, step), shape), raw), shape)

    def view(index: int) -> View:
        first = pipeline.steps + index * batches
        return lambda raw, number: draw(raw, tf.constant(first + number, tf.int64))

    return [lambda raw, _: raw, *(view(index) for index in range(count - 1))]


def _shifted(spec: Spec, count: int) -> list[View]:
    """The sample, its mirror image, then both shifted by a little in the four directions; the edge fills the gap."""
    if spec.kind != "image":
        raise UserError(f"views=shift: the run's data is {spec.kind}; only images can be shifted")
    step = max(1, round(min(spec.shape[:2]) / FAR))
    places = [(0, 0), (0, step), (0, -step), (step, 0), (-step, 0)]
    every = list(itertools.product(places, (False, True) if spec.mirrors else (False,)))
    if count > len(every):
        raise UserError(f"tta={count}: there are {len(every)} views by views=shift")
    return [lambda raw, _, how=how: moved(raw, *how) for how in every[:count]]  # type: ignore[misc]


def moved(images: tf.Tensor, shift: tuple[int, int], mirror: bool) -> tf.Tensor:
    """Images [b, h, w, c] mirrored left to right, then shifted down and right by whole pixels."""
    x = tf.reverse(images, [2]) if mirror else images
    height, width = images.shape[1:3]
    rows, columns = (np.clip(np.arange(n) - s, 0, n - 1) for n, s in zip((height, width), shift, strict=True))
    return tf.gather(tf.gather(x, rows, axis=1), columns, axis=2)
