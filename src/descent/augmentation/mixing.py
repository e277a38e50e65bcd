"""MixUp and CutMix: each sample is mixed with its mirror in the batch (sample i with sample b - 1 - i).

A plan is drawn in the pipeline (the Gamma draw has no XLA kernel) and applied in the compiled step. Partners are
mirrored, not shuffled: batches are in random order already, and a mirrored pair needs no gather.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from etils import epy

from descent import seeds
from descent.types import Batch, Fraction, Length, NonNegative, Plan, part

with epy.lazy_imports():
    import tensorflow as tf


@part
class NoMixing:
    """Batches as they are."""

    def draw(self, seed: tf.Tensor, shape: Sequence[int], progress: tf.Tensor) -> Plan:
        return {}

    def apply(self, plan: Plan, batch: Batch) -> Batch:
        return batch


@part
class Mixing:
    """MixUp (Zhang et al. 2018, eq. 2) and CutMix (Yun et al. 2019, eqs. 1-2), alone or taking turns.

    MixUp: `x = l x_i + (1 - l) x_j`. CutMix: a box of x_j, of area `1 - l` before it is cut at the border, is
    pasted into x_i, and l becomes the share of x_i that is left, exactly. Both: `y = l y_i + (1 - l) y_j`, with
    `l ~ Beta(alpha, alpha)`.

    Attributes:
        mixup_alpha: alpha of MixUp; 0 for none.
        cutmix_alpha: alpha of CutMix; 0 for none.
        prob: chance that a batch (pair, element: see mode) is mixed at all.
        switch_prob: where both are on, chance of CutMix rather than MixUp.
        mode: one draw for the whole batch, one for each mirrored pair, or one for each element.
        off_after: stop mixing at this point of the run.
    """

    lengths: ClassVar[tuple[str, ...]] = ("off_after",)

    mixup_alpha: NonNegative = 0.0
    cutmix_alpha: NonNegative = 0.0
    prob: Fraction = 1.0
    switch_prob: Fraction = 0.5
    mode: Literal["batch", "pair", "elem"] = "batch"
    off_after: Length = 1.0

    def __post_init__(self) -> None:
        if not self.mixup_alpha and not self.cutmix_alpha:
            raise ValueError("mixup_alpha or cutmix_alpha should be above 0 (or choose augmentation/batch=none)")

    def draw(self, seed: tf.Tensor, shape: Sequence[int], progress: tf.Tensor) -> Plan:
        """A plan for inputs of `shape` [b, h, w, c] (or [b, f], MixUp only) at `progress` in [0, 1].

        `lam` [b]: the label weight of the sample itself; `cut` [b] bool: CutMix rather than MixUp; `box` [b, 4]:
        top, bottom, left, right of CutMix's box, empty where nothing is pasted. A box cut at the border decides
        its `lam` here, from integers: 1 - pasted area / area, exactly.
        """
        coin, switch, mixup, box = seeds.split(seed, 4)
        count = {"batch": 1, "pair": (shape[0] + 1) // 2, "elem": shape[0]}[self.mode]
        mixed = (seeds.uniform(coin, [count]) < self.prob) & (progress < self.off_after)
        cut = mixed & (seeds.uniform(switch, [count]) < self._cut_share())
        lam = tf.where(mixed & ~cut, beta(mixup, count, self.mixup_alpha or 1.0), tf.ones([count]))
        plan = {"lam": lam}
        if self.cutmix_alpha:
            boxes = draw_boxes(box, count, shape[1], shape[2], self.cutmix_alpha)
            boxes = tf.where(cut[:, None], boxes, tf.zeros_like(boxes))
            area = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])
            left = 1 - tf.cast(area, tf.float32) / (shape[1] * shape[2])
            plan = {"lam": tf.where(cut, left, lam), "cut": cut, "box": boxes}
        return {name: self._spread(value, shape[0]) for name, value in plan.items()}

    def apply(self, plan: Plan, batch: Batch) -> Batch:
        """`x = m x + (1 - m) x[::-1]`, m being MixUp's weight or CutMix's mask; labels by `lam`.

        Ids of words are no quantities: their embeddings are mixed instead, by the model's first layer.
        """
        inputs, targets = batch.inputs, batch.targets
        if inputs.dtype.is_integer:
            share = plan["lam"][:, None]
            targets = share * targets + (1 - share) * targets[::-1]
            return batch._replace(targets=targets, mixture=(inputs[::-1], plan["lam"]))
        ones = [1] * (inputs.shape.rank - 1)
        share, mask = plan["lam"][:, None], tf.reshape(plan["lam"], [-1, *ones])
        if self.cutmix_alpha:
            outside = outside_box(plan["box"], inputs.shape[1], inputs.shape[2])
            mask = tf.where(tf.reshape(plan["cut"], [-1, *ones]), outside, mask)
        return batch._replace(
            # Not as a slice, whose kernel takes five times as long.
            inputs=mask * inputs + (1 - mask) * tf.reverse(inputs, [0]),
            targets=share * targets + (1 - share) * targets[::-1],
        )

    def _cut_share(self) -> float:
        if not self.cutmix_alpha:
            return 0.0
        return self.switch_prob if self.mixup_alpha else 1.0

    def _spread(self, draws: tf.Tensor, size: int) -> tf.Tensor:
        """From one draw per batch, pair or element to one row per element."""
        if self.mode == "batch":
            return tf.repeat(draws, size, axis=0)
        if self.mode == "pair":
            return tf.concat([draws, draws[: size // 2][::-1]], axis=0)
        return draws


def beta(seed: tf.Tensor, count: int, alpha: float) -> tf.Tensor:
    """Beta(alpha, alpha) draws, float32 [count], right for any alpha above 0.

    The ratio of two Gammas, in log space: log G(a) = log G(a + 1) + log(U) / a (Marsaglia & Tsang 2000,
    section 6); for small alpha the Gammas themselves underflow.
    """
    keys = seeds.split(seed, 4)

    def log_gamma(shape_key: tf.Tensor, boost_key: tf.Tensor) -> tf.Tensor:
        draw = tf.random.stateless_gamma([count], shape_key, alpha + 1.0)
        # U in (0, 1]: the draw lies in [0, 1), whose zero has no logarithm.
        return tf.math.log(draw) + tf.math.log(1 - seeds.uniform(boost_key, [count])) / alpha

    return tf.sigmoid(log_gamma(keys[0], keys[1]) - log_gamma(keys[2], keys[3]))


def draw_boxes(seed: tf.Tensor, count: int, height: int, width: int, alpha: float) -> tf.Tensor:
    """CutMix's boxes, int32 [count, 4] (top, bottom, left, right), cut at the image's border.

    Sides are `sqrt(1 - l)` of the image's (Yun et al. 2019, eq. 2), the centre is uniform over its pixels.
    """
    lams, centres_y, centres_x = seeds.split(seed, 3)
    side = tf.sqrt(1 - beta(lams, count, alpha))

    def edges(key: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
        centre = seeds.integers(key, [count], 0, size)
        length = tf.cast(tf.round(side * size), tf.int32)
        low = centre - length // 2
        return tf.clip_by_value(low, 0, size), tf.clip_by_value(low + length, 0, size)

    return tf.stack([*edges(centres_y, height), *edges(centres_x, width)], axis=1)


def outside_box(box: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """1 outside the box, 0 inside: float32 [b, h, w, 1]."""

    def within(low: tf.Tensor, high: tf.Tensor, size: int) -> tf.Tensor:
        places = tf.range(size)[None]
        return (places >= low[:, None]) & (places < high[:, None])

    rows = within(box[:, 0], box[:, 1], height)
    columns = within(box[:, 2], box[:, 3], width)
    return tf.cast(~(rows[:, :, None] & columns[:, None, :]), tf.float32)[..., None]
