"""What a run's speed is measured against: its own arithmetic, and the machine's peaks."""

from __future__ import annotations

import time
from collections.abc import Callable

from descent import Experiment

SECONDS = 1.0  # of each measurement, after a first call
SIDE = 2048  # of the square matrices: large enough that packing them costs nothing
IMAGES, SIZE, CHANNELS = 128, 14, (128, 256)  # of the convolution: a middle layer of a network for small images


def facts(experiment: Experiment) -> dict[str, float]:
    """FLOPs of a sample's forward pass, and the peaks in FLOP/s of products and convolutions in both precisions."""
    from descent import environment, metric

    environment.prepare(experiment.trainer)
    spec = experiment.data.spec
    found = {"flops": float(metric.flops(experiment.model.build(spec, experiment.regularization)))}
    for dtype in ("float32", "bfloat16"):
        found |= {f"gemm_{dtype}": gemm(dtype), f"conv_{dtype}": convolution(dtype)}
    return found


def gemm(dtype: str) -> float:
    import tensorflow as tf

    a, b = (tf.cast(tf.random.stateless_normal([SIDE, SIDE], [0, i]), dtype) for i in range(2))
    return 2 * SIDE**3 * _rate(tf.function(lambda: tf.matmul(a, b), autograph=False))


def convolution(dtype: str) -> float:
    import tensorflow as tf

    x = tf.cast(tf.random.stateless_normal([IMAGES, SIZE, SIZE, CHANNELS[0]], [0, 0]), dtype)
    w = tf.cast(tf.random.stateless_normal([3, 3, *CHANNELS], [0, 1]), dtype)
    call = tf.function(lambda: tf.nn.conv2d(x, w, 1, "SAME"), autograph=False)
    return 2 * 9 * IMAGES * SIZE**2 * CHANNELS[0] * CHANNELS[1] * _rate(call)


def _rate(call: Callable[[], object]) -> float:
    """Calls a second: of the fastest one, as a peak is what the machine can do."""
    call()
    best, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        began = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - began)
    return 1 / best
