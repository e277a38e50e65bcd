"""Weight averaging: what is evaluated and kept may be a running average of the weights, not the last ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from etils import epy

from descent.types import Count, Flag, Fraction, Length, Positive, ProperFraction, part

with epy.lazy_imports():
    import tensorflow as tf

if TYPE_CHECKING:
    import keras


class Identity:
    """The averager that averages nothing: the model's own weights, no state."""

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.variables: list[tf.Variable] = []

    def update(self, step: tf.Tensor) -> None:
        """Nothing to do."""

    def reset(self) -> None:
        """Begins anew from the model's weights as they are."""

    def trainable(self) -> list[tf.Tensor]:
        return [tf.convert_to_tensor(v.value) for v in self.model.trainable_variables]

    def non_trainable(self) -> list[tf.Tensor]:
        return [tf.convert_to_tensor(v.value) for v in self.model.non_trainable_variables]


class _Copies(Identity):
    """An averager with a copy of every trainable weight, and of the statistics where these are averaged too."""

    def __init__(self, model: keras.Model, *, statistics: bool = False) -> None:
        super().__init__(model)
        self.followed = [*model.trainable_variables, *(model.non_trainable_variables if statistics else [])]
        self.copies = [tf.Variable(v.value, trainable=False) for v in self.followed]
        self.variables = self.copies

    def reset(self) -> None:
        for average, weight in zip(self.copies, self.followed, strict=True):
            average.assign(weight.value)

    def follow(self, share: tf.Tensor) -> None:
        """`a = a + share (w - a)`."""
        for average, weight in zip(self.copies, self.followed, strict=True):
            # Keras' seed states and counters are integers: the latest, not a mean.
            moved = average + tf.cast(share, average.dtype) * (weight.value - average)
            average.assign(moved if average.dtype.is_floating else weight.value)

    def trainable(self) -> list[tf.Tensor]:
        return [tf.convert_to_tensor(v) for v in self.copies[: len(self.model.trainable_variables)]]

    def non_trainable(self) -> list[tf.Tensor]:
        averaged = self.copies[len(self.model.trainable_variables) :]
        return [tf.convert_to_tensor(v) for v in averaged] if averaged else super().non_trainable()


class ExponentialAverager(_Copies):
    """See `Ema`."""

    def __init__(self, model: keras.Model, decay: float, *, warmup: bool, statistics: bool) -> None:
        super().__init__(model, statistics=statistics)
        self.decay, self.warmup = decay, warmup

    def update(self, step: tf.Tensor) -> None:
        t = tf.cast(step, tf.float32)
        decay = tf.minimum(self.decay, (1 + t) / (10 + t)) if self.warmup else tf.constant(self.decay)
        self.follow(1 - decay)


class StochasticAverager(_Copies):
    """See `Swa`."""

    def __init__(self, model: keras.Model, start: int, every: int) -> None:
        super().__init__(model, statistics=True)
        self.start, self.every = start, every
        self.taken = tf.Variable(0, trainable=False, dtype=tf.int64)  # counted: a step that is skipped gives no weight
        self.variables = [*self.copies, self.taken]

    def update(self, step: tf.Tensor) -> None:
        """The n-th weight taken in moves the mean by 1 / n of the way; before the start it is the weight itself."""
        since, taken = tf.cast(step, tf.int64) - self.start, self.taken.read_value()
        due = (taken == 0) | (since % self.every == 0)
        self.follow(tf.where(due, 1 / (tf.cast(taken, tf.float32) + 1), tf.zeros([])))
        self.taken.assign(taken + tf.cast(due & (since >= 0), tf.int64))


class LookaheadAverager(_Copies):
    """See `Lookahead`."""

    def __init__(self, model: keras.Model, every: int, share: float) -> None:
        super().__init__(model)
        self.every, self.share = every, share

    def update(self, step: tf.Tensor) -> None:
        due = (tf.cast(step, tf.int64) + 1) % self.every == 0
        self.follow(tf.where(due, self.share, 0.0))
        for slow, fast in zip(self.copies, self.followed, strict=True):
            fast.assign(tf.where(due, slow, fast.value))


@part
class NoAveraging:
    """Evaluate and keep the weights as they are."""

    def build(self, model: keras.Model, steps: int) -> Identity:
        return Identity(model)


@part
class Ema:
    """Exponential moving average of the weights, used for evaluation and kept as the best weights.

    Attributes:
        decay: the d of `a = d a + (1 - d) w`.
        half_life: steps in which a weight's share halves, in place of decay: `d = 2^(-1 / half_life)`; None: decay.
        warmup: start with a short memory, `min(d, (1 + t) / (10 + t))`, so that early weights fade.
        statistics: batch norm's running statistics: copied (they already are averages), or averaged like weights.
    """

    decay: ProperFraction = 0.999
    half_life: Positive | None = None
    warmup: Flag = True
    statistics: Literal["copy", "average"] = "copy"

    def build(self, model: keras.Model, steps: int) -> ExponentialAverager:
        decay = self.decay if self.half_life is None else 2 ** (-1 / self.half_life)
        return ExponentialAverager(model, decay, warmup=self.warmup, statistics=self.statistics == "average")


@part
class Swa:
    """Stochastic weight averaging (Izmailov et al. 2018, algorithm 1): the plain mean of the run's last part.

    The paper recomputes batch norm's statistics with a pass over the data; here they are averaged with the weights.

    Attributes:
        start: when averaging begins; before it, the weights are evaluated as they are.
        every: steps between the weights that are taken in.
    """

    lengths: ClassVar[tuple[str, ...]] = ("start",)

    start: Length = 0.75
    every: Count = 1

    def build(self, model: keras.Model, steps: int) -> StochasticAverager:
        return StochasticAverager(model, round(float(self.start) * steps), self.every)


@part
class Lookahead:
    """Lookahead (Zhang et al. 2019, algorithm 1): every k steps slow weights go part of the way, and fast ones join.

    The slow weights are evaluated.

    Attributes:
        every: steps k of the fast weights between two of the slow ones.
        share: part of the way that the slow weights go.
    """

    every: Count = 5
    share: Fraction = 0.5

    def build(self, model: keras.Model, steps: int) -> LookaheadAverager:
        return LookaheadAverager(model, self.every, self.share)
