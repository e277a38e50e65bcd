"""`model.fit`, and the custom loop of the tutorials, with Keras' own layers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmark_peers import plain
from benchmark_peers.task import Task
from benchmark_peers.turns import Turns
from descent import metric, seeds
from descent.step import scaled

SPAN = 32  # steps of one execution where several are asked for
# An epoch of fewer steps and FLOPs (of its forward passes) is one turn at least: nothing is called between its batches.
SHORT, LIGHT = 100, 1e11


class Rates(keras.optimizers.schedules.LearningRateSchedule):
    """The experiment's rate of every step."""

    def __init__(self, rates: np.ndarray) -> None:
        self.rates = tf.constant(rates)

    def __call__(self, step: Any) -> tf.Tensor:
        return tf.gather(self.rates, step)


def optimizer(task: Task, model: keras.Model) -> keras.Optimizer:
    made = task.experiment.optimizer.build(model.trainable_variables, len(task.rates))
    made._learning_rate = Rates(task.rates)
    if np.isfinite(task.max_norm):
        made.global_clipnorm = task.max_norm
    return made


def parts(task: Task) -> tuple[keras.Model, Any]:
    """The model and its loss."""
    run = task.experiment
    model = plain.model(run.model, task.ours, task.spec, run.regularization)
    mean, std = task.spec.target_mean, task.spec.target_std  # 0 and 1 for classes
    soften = run.regularization.soften if task.spec.num_classes else tf.identity
    return model, lambda targets, outputs: run.loss((soften(targets) - mean) / std, (outputs - mean) / std)


def arrays(task: Task, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Scaled inputs and one-hot (or real) targets."""
    inputs, targets = task.arrays[split]  # type: ignore[index]
    values = inputs * np.float32(task.spec.scale) if inputs.dtype.kind != "i" else inputs
    classes = task.spec.num_classes
    return values, np.eye(classes, dtype=np.float32)[targets] if classes else targets[:, None].astype(np.float32)


def dataset(task: Task) -> tf.data.Dataset:
    """Shuffled batches, augmented and mixed whole."""
    inputs, targets = task.arrays["train"]
    shape = [task.batch_size, *task.spec.shape]
    sample, mixing = task.experiment.augmentation.sample, task.experiment.augmentation.batch

    def augment(step: tf.Tensor, pair: Any) -> Any:
        key = seeds.key(0, step)
        images = sample.apply(sample.draw(key, shape), tf.ensure_shape(pair[0], shape))
        return mix(key, scaled(task.spec, images), pair[1])

    def mix(key: tf.Tensor, images: tf.Tensor, labels: tf.Tensor) -> Any:
        from descent.types import Batch

        batch = Batch(images, tf.one_hot(labels, task.spec.num_classes), tf.ones([task.batch_size]))
        return mixing.apply(mixing.draw(key, shape, tf.zeros([])), batch)[:2]

    data = tf.data.Dataset.from_tensor_slices((inputs, targets)).shuffle(len(inputs))
    batches = data.batch(task.batch_size, drop_remainder=True).enumerate()
    return batches.map(augment, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


class Boundary(keras.callbacks.Callback):
    """Calls the turns after every epoch, and between the batches of long ones.

    Args:
        epoch: steps of one.
        flops: of a step's forward pass.
    """

    def __init__(self, turns: Turns, epoch: int, flops: float) -> None:
        super().__init__()
        self.turns, self.epoch, self.steps = turns, epoch, 0
        if epoch >= SHORT or epoch * flops >= LIGHT:
            self.on_train_batch_end = self._on_batch

    def _on_batch(self, batch: int, logs: Any = None) -> None:
        if batch + 1 < self.epoch:
            self.turns(self.steps + batch + 1, logs["loss"])

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.steps += self.epoch
        self.turns(self.steps, logs["loss"])


def fit(task: Task, turns: Turns, *, jit: bool | str = "auto", steps: int = 1) -> None:
    """`model.fit`, with its defaults unless told otherwise."""
    model, loss = parts(task)
    several = min(steps, task.epoch)
    metrics = ["accuracy"] if task.spec.num_classes else ["mae"]
    made = optimizer(task, model)
    model.compile(made, loss, metrics=metrics, jit_compile=jit, steps_per_execution=several)
    common: dict[str, Any] = {
        "epochs": 10**9,
        "validation_data": arrays(task, "validation"),
        "validation_freq": max(1, round(task.evaluate_every / task.epoch)),
        "verbose": 0,
    }
    if task.augments:
        epoch, given = task.epoch, {"x": dataset(task)}
        common["validation_batch_size"] = task.batch_size
    else:
        x, y = arrays(task, "train")
        epoch, given = -(-len(x) // task.batch_size), {"x": x, "y": y}
        common["batch_size"] = task.batch_size
    model.fit(**given, **common, callbacks=[Boundary(turns, epoch, task.batch_size * metric.flops(task.ours))])


def loop(task: Task, turns: Turns) -> None:
    """One `tf.function` call a step, Keras metrics inside."""
    model, loss_of = parts(task)
    made = optimizer(task, model)
    accuracy = keras.metrics.CategoricalAccuracy() if task.spec.num_classes else keras.metrics.MeanAbsoluteError()
    mean = keras.metrics.Mean()

    @tf.function(autograph=False)
    def train_step(x: tf.Tensor, y: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            outputs = model(x, training=True)
            loss = tf.reduce_mean(loss_of(y, outputs))
        gradients = tape.gradient(loss, model.trainable_variables)
        made.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        mean.update_state(loss)
        accuracy.update_state(y, outputs)

    @tf.function(autograph=False)
    def test_step(x: tf.Tensor, y: tf.Tensor) -> None:
        accuracy.update_state(y, model(x, training=False))

    batches = dataset(task).repeat()
    held = tf.data.Dataset.from_tensor_slices(arrays(task, "validation")).batch(task.batch_size)
    for step, (x, y) in enumerate(batches, 1):
        train_step(x, y)
        if step % task.evaluate_every == 0:
            accuracy.reset_state()
            for pair in held:
                test_step(*pair)
            accuracy.result()
        if step % min(10, task.epoch) == 0 or step == 1:
            turns(step, float(mean.result()))
            mean.reset_state()


def keras_input(task: Task, turns: Turns) -> None:
    """The five layers of Keras nearest to `augmentation=standard`, in a map over batches; nothing is trained."""
    layers = keras.Sequential(
        [
            keras.layers.RandomFlip("horizontal"),
            keras.layers.RandomRotation(10 / 360, fill_mode="constant"),
            keras.layers.RandomZoom(0.1, fill_mode="constant"),
            keras.layers.RandomTranslation(0.1, 0.1, fill_mode="constant"),
            keras.layers.RandomContrast(0.2),
        ]
    )
    data = tf.data.Dataset.from_tensor_slices(task.arrays["train"]).shuffle(len(task.arrays["train"][0])).repeat()
    batches = data.batch(task.batch_size, drop_remainder=True).map(
        lambda x, y: (layers(tf.cast(x, tf.float32), training=True), y), num_parallel_calls=tf.data.AUTOTUNE
    )
    for step, _ in enumerate(batches.prefetch(tf.data.AUTOTUNE), 1):
        turns(step, 0.0)
