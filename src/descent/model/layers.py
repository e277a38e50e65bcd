"""Our own layers: dropout keyed by the step, batch norm through the fused kernel, and parts of transformers.

Imported when a model is built, never before: subclassing a Keras layer imports TensorFlow.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import keras
import tensorflow as tf

from descent import replicas, seeds
from descent.model import computing

_noise: ContextVar[tf.Tensor | None] = ContextVar("noise", default=None)


@contextlib.contextmanager
def noise(key: tf.Tensor) -> Iterator[None]:
    """The key [2] from which layers draw while a training pass is traced or run inside this context."""
    token = _noise.set(key)
    try:
        yield
    finally:
        _noise.reset(token)


def _key(name: str) -> tf.Tensor:
    key = _noise.get()
    if key is None:
        raise RuntimeError(
            f"layer {name} draws at random in training, and its draws are keyed: "
            "call the model inside `with descent.model.layers.noise(key)`"
        )
    return tf.stack([key[0] ^ tf.constant(zlib.crc32(name.encode()), key.dtype), key[1]])


@keras.saving.register_keras_serializable("descent")
class Dropout(keras.layers.Layer):
    """Inverted dropout (Srivastava et al. 2014) whose mask is a function of (seed, step, layer name).

    Args:
        rate: share of units silenced in training; the rest are divided by `1 - rate`.
        spatial: silence whole feature maps (all positions of a channel) at once.
    """

    def __init__(self, rate: float, *, spatial: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate, self.spatial = rate, spatial
        self.supports_masking = True

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        if not training or not self.rate:
            return inputs
        drawn = self.noise_shape(inputs.shape.rank)
        shape = tf.where([size is None for size in drawn], tf.shape(inputs), 1)
        # Integer bits against a threshold: the same mask with XLA and without, which floats would not give.
        bits = seeds.bits(_key(self.name), shape)
        keep = tf.cast(bits >= tf.constant(round(self.rate * 2**32), tf.uint32), inputs.dtype)
        return inputs * (keep * tf.cast(1 / (1 - self.rate), inputs.dtype))

    def noise_shape(self, rank: int) -> list[int | None]:
        """As Keras' dropout takes it: None for each axis along which masks are drawn, 1 for one that shares them."""
        return [None, *[1] * (rank - 2), None] if self.spatial else [None] * rank

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> Sequence[int | None]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "spatial": self.spatial}


@keras.saving.register_keras_serializable("descent")
class StochasticDepth(Dropout):
    """Leaves out a residual branch for whole samples in training (Huang et al. 2016, section 3).

    The branches that stay are divided by `1 - rate` in training, rather than all multiplied by it afterwards.

    Args:
        rate: chance that a sample's branch is left out.
    """

    def noise_shape(self, rank: int) -> list[int | None]:
        return [None, *[1] * (rank - 1)]


@keras.saving.register_keras_serializable("descent")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' batch norm, weights and all, with images in training going through TensorFlow's fused kernel.

    The kernel's running variance is unbiased (n / (n - 1)); Keras keeps the biased one, and so do we. Between replicas
    the statistics are those of all their slices together. Inputs are taken as they come, and outputs are rounded.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)

    def call(self, inputs: tf.Tensor, training: bool = False, mask: tf.Tensor | None = None) -> tf.Tensor:
        plain = inputs.shape.rank != 4 or self.axis not in (-1, 3) or not (self.scale and self.center)
        if plain or not training or not self.trainable:
            return super().call(inputs, training=training, mask=mask)
        inputs = computing.wide(inputs)
        gamma, beta = (tf.cast(v.value, tf.float32) for v in (self.gamma, self.beta))
        if replicas.number() == 1:
            outputs, mean, biased = fused(inputs, gamma, beta, self.epsilon)
        else:
            outputs, mean, biased = synchronized(inputs, gamma, beta, self.moving_mean.value, self.epsilon)
        for running, now in ((self.moving_mean, mean), (self.moving_variance, biased)):
            running.assign(self.momentum * running.value + (1 - self.momentum) * now)
        return tf.cast(outputs, self.compute_dtype)

    def _moments(self, inputs: tf.Tensor, mask: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        if replicas.number() == 1 or mask is not None:
            return super()._moments(inputs, mask)
        return moments(inputs, list(self._reduction_axes), tf.stop_gradient(self.moving_mean.value))


def fused(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalised images [b h w c], and the mean and biased variance of each channel, in one kernel."""
    none = tf.zeros([0])
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=gamma, offset=beta, mean=none, variance=none, epsilon=epsilon, is_training=True
    )
    count = tf.cast(tf.reduce_prod(tf.shape(x)[:3]), tf.float32)
    return outputs, mean, variance * (count - 1) / count


def synchronized(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, near: tf.Tensor, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """`fused`, with the statistics of all replicas: one message forward, of each one's own, and one backward.

    With r = (variance + epsilon)^-1/2, n samples and pixels in all, and sums over all of them (Ioffe & Szegedy 2015,
    section 3): `dx = gamma r (dy - sum dy / n - xhat sum (dy xhat) / n)`. For `near` see `moments`.
    """
    kernel, gradient, none = tf.raw_ops.FusedBatchNormV3, tf.raw_ops.FusedBatchNormGradV3, tf.zeros([0])
    count = tf.cast(replicas.number() * tf.reduce_prod(tf.shape(x)[:3]), tf.float32)

    @tf.custom_gradient
    def normalize(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> Any:
        _, own, spread = fused(x, gamma, beta, epsilon)
        apart = own - near
        sums = replicas.total([apart, spread + apart * apart])
        shift, square = (value / replicas.number() for value in sums)
        mean, variance = near + shift, tf.maximum(square - shift * shift, 0.0)
        given = {"x": x, "scale": gamma, "epsilon": epsilon, "is_training": False}
        outputs = kernel(**given, offset=beta, mean=mean, variance=variance)[0]

        def backward(dy: tf.Tensor, *_: tf.Tensor) -> tuple[tf.Tensor, ...]:
            spaces = {"reserve_space_1": mean, "reserve_space_2": variance, "reserve_space_3": none}
            dx, dgamma, dbeta, *_ = gradient(y_backprop=dy, **given, **spaces)
            slope, level = replicas.total([dgamma, dbeta])
            root = tf.math.rsqrt(variance + epsilon)
            slope, level = gamma * root * root * slope / count, gamma * root * level / count
            return corrected(dx, x, slope, level - slope * mean), dgamma, dbeta

        return (outputs, mean, variance), backward

    return normalize(x, gamma, beta)


@tf.function(autograph=False, jit_compile=True)
def corrected(dx: tf.Tensor, x: tf.Tensor, slope: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """`dx - (slope x + level)` in one loop over memory.

    In float32 whatever x is: where the mean is large, its product and that of x all but cancel.
    """
    return tf.cast(tf.cast(dx, tf.float32) - (tf.cast(x, tf.float32) * slope + level), x.dtype)


def moments(inputs: tf.Tensor, axes: list[int], near: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and biased variance over axes and replicas, [c] for the axis that is left, in one message.

    By sums of `x - near` and of its square: where `near`, the same on all replicas, is not far from the mean, no digits
    are lost in their difference.
    """
    apart = inputs - tf.cast(near, inputs.dtype)
    count = tf.cast(replicas.number() * tf.size(inputs) // tf.size(near), tf.float32)
    first, second = replicas.total([tf.reduce_sum(x, axes) for x in (apart, apart * apart)])
    shift = first / count
    return near + shift, tf.maximum(second / count - shift * shift, 0.0)


@keras.saving.register_keras_serializable("descent")
class LayerScale(keras.layers.Layer):
    """`gamma x` with a learned factor for each channel (Touvron et al. 2021, section 2).

    Args:
        initial: what all factors start at.
    """

    def __init__(self, initial: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.initial = initial

    def build(self, input_shape: Sequence[Any]) -> None:
        start = keras.initializers.Constant(self.initial)
        self.gamma = self.add_weight(shape=[input_shape[-1]], initializer=start, name="gamma")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs * tf.cast(self.gamma, inputs.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "initial": self.initial}


@keras.saving.register_keras_serializable("descent")
class Positions(keras.layers.Layer):
    """Adds a learned vector for each position [b t w] (Dosovitskiy et al. 2021, eq. 1).

    Args:
        token: put a learned token before the others, whose features stand for the whole sequence.
    """

    def __init__(self, *, token: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.token = token

    def build(self, input_shape: Sequence[Any]) -> None:
        length, width = input_shape[1] + self.token, input_shape[2]
        small = keras.initializers.TruncatedNormal
        if self.token:
            self.first = self.add_weight(shape=[1, 1, width], initializer=small(stddev=0.02), name="token")
        self.position = self.add_weight(shape=[1, length, width], initializer=small(stddev=0.02), name="position")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        if self.token:
            first = tf.tile(tf.cast(self.first, inputs.dtype), [tf.shape(inputs)[0], 1, 1])
            inputs = tf.concat([first, inputs], axis=1)
        return inputs + tf.cast(self.position, inputs.dtype)

    def compute_output_shape(self, input_shape: Sequence[Any]) -> Sequence[Any]:
        return (input_shape[0], input_shape[1] + self.token, input_shape[2])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "token": self.token}


@keras.saving.register_keras_serializable("descent")
class FirstToken(keras.layers.Layer):
    """The first vector of a sequence: [b t w] to [b w]."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return inputs[:, 0]


@keras.saving.register_keras_serializable("descent")
class Attention(keras.layers.Layer):
    """`softmax(q k^T / sqrt(d)) v` of several heads (Vaswani et al. 2017, section 3.2), without weights of its own.

    Takes queries, keys and values beside one another [b t 3w], gives [b t w]; the softmax is in float32.

    Args:
        heads: how many; each works on `w / heads` channels.
    """

    def __init__(self, heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heads = heads

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        length, width = inputs.shape[1], inputs.shape[2] // 3
        parts = tf.reshape(inputs, [-1, length, 3, self.heads, width // self.heads])
        queries, keys, values = tf.unstack(tf.transpose(parts, [2, 0, 3, 1, 4]))
        scores = tf.matmul(queries * (width // self.heads) ** -0.5, keys, transpose_b=True)
        weights = tf.cast(tf.nn.softmax(tf.cast(scores, tf.float32)), inputs.dtype)
        mixed = tf.transpose(tf.matmul(weights, values), [0, 2, 1, 3])
        return tf.reshape(mixed, [-1, length, width])

    def compute_output_shape(self, input_shape: Sequence[Any]) -> Sequence[Any]:
        return (*input_shape[:2], input_shape[2] // 3)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "heads": self.heads}


@keras.saving.register_keras_serializable("descent")
class Preprocessing(keras.layers.Layer):
    """An application's own preprocessing of colour images that lie in [0, 1].

    Args:
        module: of `keras.applications`, whose `preprocess_input` takes images in [0, 255].
    """

    def __init__(self, module: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.module = module

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return getattr(keras.applications, self.module).preprocess_input(inputs * 255.0)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "module": self.module}
