"""From a batch to its gradients: weighted means, in as many parts as memory asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from etils import epy

from descent import metric, replicas, seeds
from descent.types import Batch, Loss, Pass, Regularization, Spec

with epy.lazy_imports():
    import tensorflow as tf

if TYPE_CHECKING:
    import keras

NOTHING = 1e-30  # what a slice weighs at least: in the last batch of a run, a replica may have none of the samples


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gradient:
    """Gradients of `sum_i w_i loss_i / sum_i w_i + penalty` over the batch, of which each replica has a slice.

    Attributes:
        trained: of each trainable variable of the model, whether the optimizer ever moves it; the gradient of one it
            does not is zero, and takes no time.
        word: of the stream that dropout draws from (int64); a variable, so that a program serves every seed.
        accumulate: equal parts the batch is computed in, one after the other; sums are over samples, so only
            batch norm (whose statistics are those of a part) and dropout can tell.
    """

    model: keras.Model
    spec: Spec
    loss: Loss
    regularization: Regularization
    trained: Sequence[bool]
    word: tf.Variable
    accumulate: int = 1

    def __call__(self, batch: Batch, step: tf.Tensor, scale: tf.Tensor) -> Pass:
        """The record of the batch and a gradient for each trainable variable, computed at a loss times `scale`."""
        key = replicas.own_key(seeds.key(self.word, step))
        total = tf.maximum(tf.reduce_sum(batch.weight), NOTHING)
        if self.accumulate == 1:
            record, gradients = self._part(batch, key, total, scale)
        else:
            record, gradients = self._sum(batch, key, total, scale)
        record, gradients = replicas.mean((record, gradients), total)
        return record, [tf.cast(g, tf.float32) / scale for g in gradients]

    def _sum(self, batch: Batch, key: tf.Tensor, total: tf.Tensor, scale: tf.Tensor) -> Pass:
        """The sum over the parts, in a loop of the graph: memory and compile time are those of one part."""
        parts = tf.nest.map_structure(
            lambda t: tf.reshape(t, [self.accumulate, t.shape[0] // self.accumulate, *t.shape[1:]]), batch
        )

        def body(i: tf.Tensor, sums: Pass) -> Pass:
            part = tf.nest.map_structure(lambda t: tf.gather(t, i), parts)
            own = tf.stack([key[0] + tf.cast(i, tf.int64), key[1]])
            return tf.nest.map_structure(tf.add, sums, self._part(part, own, total, scale))

        zeros = {name: tf.zeros([]) for name in self.names}, [tf.zeros(v.shape) for v in self.model.trainable_variables]
        return replicas.repeated(body, self.accumulate, zeros)

    @property
    def names(self) -> tuple[str, ...]:
        return ("loss", *metric.on_batch_names(self.spec), "penalty")

    def losses(self, targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """The loss of each sample [b]; of real targets, as the loss sees them: standardised."""
        if self.spec.num_classes:
            return self.loss(targets, outputs)
        mean, std = self.spec.target_mean, self.spec.target_std
        return self.loss((targets - mean) / std, (outputs - mean) / std)

    def logits(self, outputs: tf.Tensor) -> tf.Tensor:
        """What the outputs [b, n] say of classes, as logits: of most losses they are such; real ones as they are."""
        read = getattr(self.loss, "logits", None) if self.spec.num_classes else None
        return read(outputs) if read else outputs

    def _part(self, batch: Batch, key: tf.Tensor, total: tf.Tensor, scale: tf.Tensor) -> Pass:
        """One part's share of the record and of the gradients of this replica's slice, which weighs `total`."""
        from descent.model.layers import noise
        from descent.model.text_layers import mixture

        variables = [v.value for v in self.model.trainable_variables]
        pairs = list(zip(variables, self.trained, strict=True))
        moving = [v for v, trained in pairs if trained]

        def share(values: tf.Tensor) -> tf.Tensor:
            return tf.reduce_sum(values * batch.weight) / total

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(moving)
            with noise(key), mixture(batch.mixture):
                outputs = tf.cast(self.model(batch.inputs, training=True), tf.float32)
            losses = self.losses(self.regularization.soften(batch.targets), outputs)
            penalty = self.regularization.penalty(self.model.trainable_variables) / self.accumulate
            objective = share(losses) + penalty
            scaled = objective * scale
        zero = tf.UnconnectedGradients.ZERO
        found = iter(tape.gradient(scaled, moving, unconnected_gradients=zero))
        gradients = [next(found) if trained else tf.zeros(v.shape) for v, trained in pairs]
        metrics = metric.on_batch(self.spec, batch.targets, outputs)
        record = {"loss": objective, **{name: share(v) for name, v in metrics.items()}, "penalty": penalty}
        return record, [tf.convert_to_tensor(g) for g in gradients]
