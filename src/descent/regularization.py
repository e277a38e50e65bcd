"""Regularization: one dataclass for all of it, so that each rate has one owner and techniques combine freely."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from etils import epy

from descent import norm, seeds
from descent.types import NonNegative, Pattern, ProperFraction, Rates, UserError, part

with epy.lazy_imports():
    import tensorflow as tf

if TYPE_CHECKING:
    import keras


@part
class Regularization:
    """What holds a model back; every field at 0 is no regularization at all.

    Attributes:
        l1: coefficient of `sum |w|` over all kernels.
        l2: coefficient of `sum w^2` over all kernels (its gradient is `2 l2 w`).
        dropout: share of a dense layer's units silenced (Srivastava et al. 2014), the rest scaled up;
            a number, or a list with one rate for each layer that has dropout.
        spatial_dropout: share of a convolution's feature maps silenced whole (Tompson et al. 2015); likewise.
        recurrent_dropout: share of a recurrent layer's state silenced, the same units at all steps of a text (Gal &
            Ghahramani 2016); likewise.
        word_dropout: share of the words of a text whose vectors are silenced whole, the others scaled up (Iyyer et
            al. 2015, "word dropout").
        stochastic_depth: chance that the last residual branch is skipped for a sample; it grows linearly from
            the first branch to the last (Huang et al. 2016, section 3, "linear decay").
        max_norm: bound on the norm of each unit's incoming weights, held after every update that changes them
            (Srivastava et al. 2014, section 5.1); 0 for none.
        gradient_noise: eta of Gaussian noise on the clipped gradients, of variance `eta / (1 + t)^0.55` at step t
            (Neelakantan et al. 2015, eq. 1).
        penalize: regular expression on variable paths: which variables `l1` and `l2` penalise.
        label_smoothing: share of each target spread evenly over all classes (Szegedy et al. 2016, section 7).
    """

    l1: NonNegative = 0.0
    l2: NonNegative = 0.0
    dropout: Rates = 0.0
    spatial_dropout: Rates = 0.0
    recurrent_dropout: Rates = 0.0
    word_dropout: ProperFraction = 0.0
    stochastic_depth: ProperFraction = 0.0
    max_norm: NonNegative = 0.0
    gradient_noise: NonNegative = 0.0
    penalize: Pattern = r"(kernel|embeddings)$"
    label_smoothing: ProperFraction = 0.0

    def rates(self, name: str, count: int) -> list[float]:
        """The rate of each of a model's `count` layers that take `name`: one of the five fields above.

        Raises:
            UserError: a list has another number of rates than the model has such layers.
        """
        rate = getattr(self, name)
        if name == "stochastic_depth":
            return [rate * (i + 1) / count for i in range(count)]
        if not isinstance(rate, tuple):
            return [rate] * count
        if len(rate) != count:
            raise UserError(f"regularization.{name} has {len(rate)} rates, and the model has {count} such layers")
        return list(rate)

    def penalty(self, variables: Sequence[keras.Variable]) -> tf.Tensor:
        """`l1 sum |w| + l2 sum w^2` over what `penalize` matches: by default kernels and embeddings."""
        kernels = [v.value for v in variables if re.search(self.penalize, v.path)]
        total = tf.zeros([])
        if self.l1:
            total += self.l1 * sum(norm.total(tf.abs(w)) for w in kernels)
        if self.l2:
            total += self.l2 * sum(norm.total(tf.square(w)) for w in kernels)
        return total

    def disturb(self, gradients: list[tf.Tensor], seed: tf.Tensor, step: tf.Tensor) -> list[tf.Tensor]:
        """Adds gradient noise."""
        if not self.gradient_noise:
            return gradients
        deviation = tf.sqrt(self.gradient_noise / (1 + tf.cast(step, tf.float32)) ** 0.55)
        keys = seeds.split(seed, len(gradients))
        return [
            g + deviation * tf.random.stateless_normal(g.shape, key, alg="philox")
            for g, key in zip(gradients, keys, strict=True)
        ]

    def constrain(self, variables: Sequence[keras.Variable], before: Sequence[tf.Tensor]) -> None:
        """Scales the incoming weights of each unit down to `max_norm`, in kernels that the update changed."""
        if not self.max_norm:
            return
        for variable, old in zip(variables, before, strict=True):
            if variable.name.endswith("kernel"):
                size = tf.sqrt(tf.reduce_sum(tf.square(variable.value), norm.unit_axes(variable), keepdims=True))
                long = (size > self.max_norm) & tf.reduce_any(variable.value != old)  # frozen ones stay as they are
                variable.assign(variable.value * tf.where(long, self.max_norm / size, tf.ones_like(size)))

    def check(self, variables: Sequence[keras.Variable]) -> None:
        """Raises a UserError where there is a penalty, and `penalize` matches no variable."""
        paths = [v.path for v in variables]
        if (self.l1 or self.l2) and not any(re.search(self.penalize, path) for path in paths):
            raise UserError(f"regularization.penalize: {self.penalize} matches none of {', '.join(paths)}")

    def soften(self, targets: tf.Tensor) -> tf.Tensor:
        """`(1 - s) t + s / n`: rows keep summing to one. Without smoothing, the targets themselves."""
        if not self.label_smoothing:
            return targets
        classes = tf.cast(tf.shape(targets)[-1], targets.dtype)
        return (1 - self.label_smoothing) * targets + self.label_smoothing / classes
