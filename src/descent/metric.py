"""Metrics: exact, over whole splits, in float64 on the host; and the one a training step reports on its batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from etils import epy

from descent.types import Record, Spec, Split

with epy.lazy_imports():
    import tensorflow as tf

if TYPE_CHECKING:
    import keras

PREFIX: dict[Split, str] = {"train": "train", "validation": "val", "test": "test"}


class Outcome(NamedTuple):
    """What a model answers to the samples of a split: targets [m], outputs [m, n] and, where known, losses [m].

    Targets are labels or real values, outputs logits or real values in the target's unit; losses are plain, without
    penalties or smoothing.
    """

    targets: np.ndarray
    outputs: np.ndarray
    losses: np.ndarray | None = None


def names(spec: Spec) -> tuple[str, ...]:
    """What is evaluated on a split, without its prefix."""
    return ("loss", "accuracy") if spec.num_classes else ("loss", "mse", "mae", "r2")


def evaluate(spec: Spec, split: Split, outcome: Outcome) -> Record:
    """Means over samples of the losses, where they are known, and metrics, in the target's unit."""
    targets, outputs, losses = outcome
    record = {} if losses is None else {"loss": float(np.mean(losses, dtype=np.float64))}
    if spec.num_classes:
        record["accuracy"] = float(np.mean(np.argmax(outputs, axis=-1) == targets))
    else:
        error = outputs[:, 0].astype(np.float64) - targets
        record["mse"] = float(np.mean(error**2))
        record["mae"] = float(np.mean(np.abs(error)))
        record["r2"] = r2(targets, error)
    return {f"{PREFIX[split]}/{name}": value for name, value in record.items()}


def r2(targets: np.ndarray, error: np.ndarray) -> float:
    """`1 - sum e^2 / sum (t - mean t)^2`: the share of the spread that is explained; 0 for a constant guess.

    Of targets that are all the same, 1 where they are met and 0 otherwise.
    """
    spread = float(np.sum((targets - np.mean(targets, dtype=np.float64)) ** 2, dtype=np.float64))
    missed = float(np.sum(error**2))
    return 1 - missed / spread if spread else float(not missed)


def on_batch_names(spec: Spec) -> tuple[str, ...]:
    return ("accuracy",) if spec.num_classes else ("mae",)


def on_batch(spec: Spec, targets: tf.Tensor, outputs: tf.Tensor) -> dict[str, tf.Tensor]:
    """Per-sample values [b] of a training batch. On mixed labels, a hit is the label of the larger weight."""
    if spec.num_classes:
        hits = tf.equal(tf.argmax(outputs, axis=-1), tf.argmax(targets, axis=-1))
        return {"accuracy": tf.cast(hits, tf.float32)}
    return {"mae": tf.reduce_mean(tf.abs(targets - outputs), axis=-1)}


def confusion(targets: np.ndarray, outputs: np.ndarray, classes: int) -> np.ndarray:
    """Counts [n, n]: rows are the true classes, columns the predicted ones."""
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (targets.astype(int), np.argmax(outputs, axis=-1)), 1)
    return table


def final_names(spec: Spec) -> tuple[str, ...]:
    """What `final` gives, without its prefix."""
    if not spec.num_classes:
        return ()
    return ("macro_f1", "log_loss", "ece", *(("top5_accuracy",) if spec.num_classes > 5 else ()))


def final(spec: Spec, split: Split, outcome: Outcome) -> Record:
    """What is worth knowing at the end, beside the metrics of every evaluation; of logits, for classes."""
    if not spec.num_classes:
        return {}
    targets, outputs, _ = outcome
    probabilities = softmax(outputs)
    record = {
        "macro_f1": macro_f1(confusion(targets, outputs, spec.num_classes)),
        "log_loss": float(-np.mean(np.log(np.maximum(probabilities[np.arange(len(targets)), targets], 1e-300)))),
        "ece": calibration_error(targets, probabilities),
    }
    if spec.num_classes > 5:
        record["top5_accuracy"] = float(np.mean(np.any(np.argsort(-outputs)[:, :5] == targets[:, None], axis=1)))
    return {f"{PREFIX[split]}/{name}": value for name, value in record.items()}


def softmax(outputs: np.ndarray) -> np.ndarray:
    """Probabilities [m, n] in float64."""
    shifted = np.exp(outputs.astype(np.float64) - outputs.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def macro_f1(table: np.ndarray) -> float:
    """Mean over classes of `2 hits / (predicted + true)`; a class that neither occurs nor is predicted is left out."""
    both = table.sum(axis=0) + table.sum(axis=1)
    return float(np.mean(2 * np.diag(table)[both > 0] / both[both > 0]))


def calibration_error(targets: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017, eq. 3): mean gap of confidence and accuracy over equal bins."""
    samples, confidence, accuracy = reliability(targets, probabilities, bins)
    return float((samples * np.abs(confidence - accuracy)).sum() / len(targets))


class Reliability(NamedTuple):
    """Of each of the equal bins of confidence: samples, mean confidence and accuracy (0 where there are none), [bins].

    The confidence is the probability of the predicted class (Guo et al. 2017, section 2).
    """

    samples: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def reliability(targets: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> Reliability:
    """How often predictions are right, by how sure they are; bin m holds confidences in ((m - 1) / bins, m / bins]."""
    confidence, hits = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    samples = np.bincount(which, minlength=bins)
    sure, right = (np.bincount(which, weights=w, minlength=bins) for w in (confidence, hits))
    return Reliability(samples, sure / np.maximum(1, samples), right / np.maximum(1, samples))


class PerClass(NamedTuple):
    """Of each class [n]: precision and recall (0 where nothing was predicted or true), their harmonic mean, samples."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    samples: np.ndarray


def per_class(table: np.ndarray) -> PerClass:
    """From a confusion matrix [n, n]."""
    hits, predicted, true = np.diag(table), table.sum(axis=0), table.sum(axis=1)
    f1 = 2 * hits / np.maximum(1, predicted + true)
    return PerClass(hits / np.maximum(1, predicted), hits / np.maximum(1, true), f1, true)


def class_report(table: np.ndarray, names: Sequence[str]) -> str:
    """Precision, recall, F1 and samples of each class, as text, from a confusion matrix [n, n]."""
    width = max(5, *(len(name) for name in names))
    lines = [f"{'class':{width}}  precision  recall     f1  samples"]
    for name, precision, recall, f1, samples in zip(names, *per_class(table), strict=True):
        lines.append(f"{name:{width}}  {precision:9.3f}  {recall:6.3f}  {f1:5.3f}  {samples:7d}")
    return "\n".join(lines)


def flops(model: keras.Model) -> int:
    """Floating-point operations of one sample's forward pass: 2 for each multiply-add in products.

    Counted from the graph's matrix products and convolutions, so a user's own model counts too. The body of a loop
    counts as often as it runs at most; once, where the graph does not say how often.
    """
    spec = tf.TensorSpec([1, *model.inputs[0].shape[1:]], model.inputs[0].dtype)
    traced = tf.function(lambda x: model(x, training=False), autograph=False).get_concrete_function(spec)
    return _graph_flops(traced.graph)


def _graph_flops(graph: tf.Graph) -> int:
    """Of a graph and of the functions it calls."""
    total = 0
    for operation in graph.get_operations():
        if operation.type in ("PartitionedCall", "StatefulPartitionedCall"):
            total += _graph_flops(graph._get_function(operation.get_attr("f").name).graph)
        elif operation.type in ("While", "StatelessWhile"):
            total += _rounds(operation) * _graph_flops(graph._get_function(operation.get_attr("body").name).graph)
        else:
            total += _product_flops(operation)
    return total


def _rounds(loop: tf.Operation) -> int:
    """How often a loop runs at most: its second input, `maximum_iterations`, is -1 where it was not given."""
    most = tf.get_static_value(loop.inputs[1])
    return 1 if most is None or most < 0 else int(most)


def _product_flops(operation: tf.Operation) -> int:
    """Two for each multiply-add: the output's entries times the depth of the sum behind each."""
    shapes = [t.shape for t in operation.inputs[:2]]
    if operation.type not in _DEPTH or not all(s.is_fully_defined() for s in (*shapes, operation.outputs[0].shape)):
        return 0
    return int(2 * np.prod(operation.outputs[0].shape) * _DEPTH[operation.type](operation, *shapes))


def _einsum_depth(operation: tf.Operation, left: tf.TensorShape, right: tf.TensorShape) -> int:
    """The product of the indices that are summed over."""
    sides, output = operation.get_attr("equation").decode().split("->")
    sizes = {letter: n for side, shape in zip(sides.split(","), (left, right), strict=True)
             for letter, n in zip(side, shape, strict=True)}  # fmt: skip
    return int(np.prod([n for letter, n in sizes.items() if letter not in output]))


_DEPTH = {
    "Conv2D": lambda _, left, right: np.prod(right[:3]),
    "DepthwiseConv2dNative": lambda _, left, right: np.prod(right[:2]),
    "MatMul": lambda op, left, right: left[-2 if op.get_attr("transpose_a") else -1],
    "BatchMatMulV2": lambda op, left, right: left[-2 if op.get_attr("adj_x") else -1],
    "Einsum": _einsum_depth,
}
