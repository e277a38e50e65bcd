"""Recurrent layers: one product for the inputs of all time steps, a short loop over time, and gradients by hand.

Weights have the shapes, order and start of Keras' own layers, so they can be exchanged. Imported when a model is
built, never before: subclassing a Keras layer imports TensorFlow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import keras
import tensorflow as tf

from descent.model.layers import Dropout

Tensors = tuple[tf.Tensor, ...]


class Cell(Protocol):
    """One time step. `x` [b, k u] comes from the inputs, `r` [b, k u] from the state before; the first state is h."""

    parts: int  # k: blocks of `u` columns that the products have
    states: int
    grads: int  # different ones that `back` gives for x and r: 1 where only their sum counts

    def step(self, x: tf.Tensor, r: tf.Tensor, state: Tensors) -> tuple[Tensors, tf.Tensor]:
        """The new state, and what `back` needs, [b, any]."""
        ...

    def back(self, saved: tf.Tensor, before: Tensors, after: Tensors, grads: Tensors) -> tuple[tf.Tensor, ...]:
        """Gradients of x, of r, and of each state before (without the way through r), given those of the new state."""
        ...


class LstmCell:
    """Long short-term memory (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000); gates i f g o.

    `c' = f c + i g`, `h' = o tanh(c')`; i, f, o by the sigmoid, g by tanh.
    """

    parts, states, grads = 4, 2, 1

    def step(self, x: tf.Tensor, r: tf.Tensor, state: Tensors) -> tuple[Tensors, tf.Tensor]:
        a = x + r
        width = a.shape[1] // 4
        i, f = tf.split(tf.sigmoid(a[:, : 2 * width]), 2, axis=1)
        g, o = tf.tanh(a[:, 2 * width : 3 * width]), tf.sigmoid(a[:, 3 * width :])
        c = f * state[1] + i * g
        return (o * tf.tanh(c), c), tf.concat([i, f, g, o], axis=1)

    def back(self, saved: tf.Tensor, before: Tensors, after: Tensors, grads: Tensors) -> tuple[tf.Tensor, ...]:
        i, f, g, o = tf.split(saved, 4, axis=1)
        c = f * before[1] + i * g  # the new one, also where padding keeps the old
        squashed = tf.tanh(c)
        dc = grads[1] + grads[0] * o * (1 - squashed * squashed)
        parts = [
            dc * g * i * (1 - i),
            dc * before[1] * f * (1 - f),
            dc * i * (1 - g * g),
            grads[0] * squashed * o * (1 - o),
        ]
        da = tf.concat(parts, axis=1)
        return da, da, tf.zeros_like(grads[0]), dc * f


class GruCell:
    """The gated recurrent unit (Cho et al. 2014) with the reset after the product, as Keras has it; gates z r n.

    `n = tanh(x_n + r (h U_n + b_n))`, `h' = z h + (1 - z) n`.
    """

    parts, states, grads = 3, 1, 2

    def step(self, x: tf.Tensor, r: tf.Tensor, state: Tensors) -> tuple[Tensors, tf.Tensor]:
        width = x.shape[1] // 3
        z, reset = tf.split(tf.sigmoid(x[:, : 2 * width] + r[:, : 2 * width]), 2, axis=1)
        inner = r[:, 2 * width :]
        n = tf.tanh(x[:, 2 * width :] + reset * inner)
        return (z * state[0] + (1 - z) * n,), tf.concat([z, reset, n, inner], axis=1)

    def back(self, saved: tf.Tensor, before: Tensors, after: Tensors, grads: Tensors) -> tuple[tf.Tensor, ...]:
        z, reset, n, inner = tf.split(saved, 4, axis=1)
        dn = grads[0] * (1 - z) * (1 - n * n)
        dz = grads[0] * (before[0] - n) * z * (1 - z)
        dreset = dn * inner * reset * (1 - reset)
        dx, dr = tf.concat([dz, dreset, dn], axis=1), tf.concat([dz, dreset, dn * reset], axis=1)
        return dx, dr, grads[0] * z


class Pass(NamedTuple):
    """What a pass through time leaves: states after each step [t b u] each, and what the way back needs [t b s]."""

    states: Tensors
    saved: tf.Tensor


def forward(cell: Cell, x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor, mask: tf.Tensor, keep: tf.Tensor) -> Pass:
    """The loop over time. Padding (mask 0) keeps the state; `keep` [b u] multiplies h before every product."""
    length, width, zero = x.shape[0], kernel.shape[0], tf.zeros_like(keep)
    arrays = [tf.TensorArray(x.dtype, length, element_shape=[None, width]) for _ in range(cell.states)]
    saves = tf.TensorArray(x.dtype, length, element_shape=[None, 4 * width])
    inputs, masks = (tf.TensorArray(x.dtype, length).unstack(a) for a in (x, mask))

    def body(t: tf.Tensor, state: Tensors, arrays: Any, saves: tf.TensorArray) -> Any:
        r = tf.matmul(state[0] * keep, kernel) + bias
        new, saved = cell.step(inputs.read(t), r, state)
        live = masks.read(t)
        state = tuple(old + live * (now - old) for old, now in zip(state, new, strict=True))
        arrays = [a.write(t, s) for a, s in zip(arrays, state, strict=True)]
        return t + 1, state, arrays, saves.write(t, saved)

    start = (tf.constant(0), (zero,) * cell.states, arrays, saves)
    _, _, arrays, saves = tf.while_loop(lambda t, *_: t < length, body, start, maximum_iterations=length)
    return Pass(tuple(a.stack() for a in arrays), saves.stack())


def backward(
    cell: Cell, passed: Pass, kernel: tf.Tensor, mask: tf.Tensor, keep: tf.Tensor, grads: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, Tensors]:
    """The loop back: gradients of x and of r at every step [t b k u], given those of h [t b u]; the states before."""
    length, width = mask.shape[0], kernel.shape[0]
    zero = tf.zeros_like(keep)
    before = tuple(tf.concat([zero[None], s[:-1]], axis=0) for s in passed.states)
    sources = [tf.TensorArray(grads.dtype, length).unstack(a) for a in (*before, passed.saved, mask, grads)]
    columns = cell.parts * width
    results = [tf.TensorArray(grads.dtype, length, element_shape=[None, columns]) for _ in range(cell.grads)]
    transposed = tf.transpose(kernel)

    def body(t: tf.Tensor, carried: Tensors, results: Any) -> Any:
        *old, saved, live, own = (a.read(t) for a in sources)
        carried = (carried[0] + own, *carried[1:])
        dx, dr, *olds = cell.back(saved, tuple(old), (), tuple(live * g for g in carried))
        olds[0] = olds[0] + tf.matmul(dr, transposed) * keep
        carried = tuple((1 - live) * g + o for g, o in zip(carried, olds, strict=True))
        return t - 1, carried, [a.write(t, d) for a, d in zip(results, (dx, dr), strict=False)]

    start = (tf.constant(length - 1), (zero,) * cell.states, results)
    _, _, results = tf.while_loop(lambda t, *_: t >= 0, body, start, maximum_iterations=length)
    stacked = [array.stack() for array in results]
    return stacked[0], stacked[-1], before


def through_time(
    cell: Cell, x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor, mask: tf.Tensor, keep: tf.Tensor
) -> tf.Tensor:
    """H after every step [t b u], from the inputs' products x [t b k u], kernel [u k u], bias [k u], mask [t b 1].

    The gradients of kernel and bias are one product and one sum over all steps, not a sum of one a step.
    """

    @tf.custom_gradient
    def run(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> Any:
        passed = forward(cell, x, kernel, bias, mask, keep)

        def gradient(grads: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            dx, dr, before = backward(cell, passed, kernel, mask, keep, grads)
            flat = tf.reshape(dr, [-1, dr.shape[-1]])
            hidden = tf.reshape(before[0] * keep, [-1, kernel.shape[0]])
            return dx, tf.matmul(hidden, flat, transpose_a=True), tf.reduce_sum(flat, axis=0)

        return passed.states[0], gradient

    return run(x, kernel, bias)


class Recurrent(keras.layers.Layer):
    """Vectors [b t w] and mask [b t] to the output after every step [b t u], or after the last one [b u].

    Args:
        units: u.
        sequences: every step's output rather than the last.
        backwards: from the end of the text to its start; outputs stand at the places of their words.
        recurrent_dropout: share of the state silenced before every product, the same units at all steps of a text
            (Gal & Ghahramani 2016).
    """

    cell: Cell

    def __init__(
        self,
        units: int,
        *,
        sequences: bool = False,
        backwards: bool = False,
        recurrent_dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units, self.sequences, self.backwards = units, sequences, backwards
        self.recurrent_dropout = recurrent_dropout
        self.dropout = Dropout(recurrent_dropout, dtype=self.dtype_policy, name=f"{self.name}_recurrent")

    def build(self, input_shape: Sequence[Any]) -> None:
        width, columns = input_shape[0][-1], self.cell.parts * self.units
        self.kernel = self.add_weight(shape=[width, columns], initializer="glorot_uniform", name="kernel")
        self.recurrent_kernel = self.add_weight(
            shape=[self.units, columns], initializer="orthogonal", name="recurrent_kernel"
        )
        self.add_bias(columns)

    def add_bias(self, columns: int) -> None:
        raise NotImplementedError

    def biases(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Added to the product of the inputs, and to that of the state."""
        raise NotImplementedError

    def call(self, inputs: Sequence[tf.Tensor], training: bool = False) -> tf.Tensor:
        x, mask = inputs
        length, width = x.shape[1], x.shape[2]
        if self.backwards:
            x, mask = tf.reverse(x, [1]), tf.reverse(mask, [1])
        ours, theirs = (tf.cast(bias, x.dtype) for bias in self.biases())
        turned = tf.reshape(tf.transpose(x, [1, 0, 2]), [-1, width])
        products = tf.reshape(tf.matmul(turned, tf.cast(self.kernel, x.dtype)) + ours, [length, -1, ours.shape[0]])
        keep = self.dropout(tf.ones([tf.shape(x)[0], self.units], x.dtype), training=training)
        kernel = tf.cast(self.recurrent_kernel, x.dtype)
        outputs = through_time(self.cell, products, kernel, theirs, tf.transpose(mask)[..., None], keep)
        if not self.sequences:
            return outputs[-1]
        outputs = tf.transpose(outputs, [1, 0, 2])
        return tf.reverse(outputs, [1]) if self.backwards else outputs

    def compute_output_shape(self, input_shape: Sequence[Any]) -> Sequence[Any]:
        batch, length, _ = input_shape[0]
        return (batch, length, self.units) if self.sequences else (batch, self.units)

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("units", "sequences", "backwards", "recurrent_dropout")}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("descent")
class LSTM(Recurrent):
    """Keras' LSTM, weights and all; the bias of the forget gate starts at 1 (Jozefowicz et al. 2015)."""

    cell = LstmCell()

    def add_bias(self, columns: int) -> None:
        def start(shape: Any, dtype: Any = None) -> tf.Tensor:
            u = self.units
            return tf.cast(tf.concat([tf.zeros([u]), tf.ones([u]), tf.zeros([2 * u])], axis=0), dtype)

        self.bias = self.add_weight(shape=[columns], initializer=start, name="bias")

    def biases(self) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.convert_to_tensor(self.bias), tf.zeros(self.bias.shape)


@keras.saving.register_keras_serializable("descent")
class GRU(Recurrent):
    """Keras' GRU, weights and all, with `reset_after`."""

    cell = GruCell()

    def add_bias(self, columns: int) -> None:
        self.bias = self.add_weight(shape=[2, columns], initializer="zeros", name="bias")

    def biases(self) -> tuple[tf.Tensor, tf.Tensor]:
        ours, theirs = tf.unstack(tf.convert_to_tensor(self.bias))
        return ours, theirs
