"""The update rules that Keras lacks, or has otherwise than the paper; and what changes the steps of single variables.

Imported when an optimizer is built, never before: subclassing a Keras optimizer imports TensorFlow. Formulas and
sources are in the docstrings of the parts of the same name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from descent.norm import norm_of, unit_axes
from descent.optimizer.base import SPARED, is_kernel

# Jordan et al. 2024: the steepest start at zero that still ends near 1.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class Rule(keras.optimizers.Optimizer):
    """A rule is `change`, what one step takes off the weights, and `slots`, what it remembers of each variable."""

    def __init__(self, *, learning_rate: float, weight_decay: float | None) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay)

    def slots(self, variable: keras.Variable) -> Mapping[str, Sequence[int]]:
        """Names and shapes of what is remembered of a variable; it starts at zero."""
        raise NotImplementedError

    def change(self, i: int, w: tf.Tensor, g: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        """What a step takes off variable number i, whose value is w and whose gradient is g."""
        raise NotImplementedError

    def build(self, variables: list[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self.memory = [{name: self._slot(v, name, shape) for name, shape in self.slots(v).items()} for v in variables]

    def _slot(self, variable: keras.Variable, name: str, shape: Sequence[int]) -> keras.Variable:
        name = f"{variable.path.replace('/', '_')}_{name}"
        return self.add_variable(shape=shape, dtype=variable.dtype, name=name)

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: Any) -> None:
        g, rate = tf.cast(gradient, variable.dtype), tf.cast(learning_rate, variable.dtype)
        w = tf.convert_to_tensor(variable)
        self.assign_sub(variable, self.change(self._get_variable_index(variable), w, g, rate))

    def get(self, i: int, name: str) -> tf.Tensor:
        return tf.convert_to_tensor(self.memory[i][name])

    def put(self, i: int, name: str, value: tf.Tensor) -> tf.Tensor:
        self.assign(self.memory[i][name], value)
        return value

    def mean(self, i: int, name: str, beta: float | tf.Tensor, value: tf.Tensor) -> tf.Tensor:
        """The running mean of a value."""
        return self.put(i, name, beta * self.get(i, name) + (1 - beta) * value)

    def time(self, dtype: tf.DType) -> tf.Tensor:
        """The number of this step, from 1."""
        return tf.cast(self.iterations + 1, dtype)


class Momentum(Rule):
    def __init__(self, *, momentum: float, nesterov: bool, **common: Any) -> None:
        super().__init__(**common)
        self.momentum, self.nesterov = momentum, nesterov

    def slots(self, variable: keras.Variable) -> Mapping[str, Sequence[int]]:
        return {"velocity": variable.shape} if self.momentum else {}

    def change(self, i: int, w: tf.Tensor, g: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        if not self.momentum:
            return rate * g
        v = self.put(i, "velocity", self.momentum * self.get(i, "velocity") + g)
        return rate * (g + self.momentum * v if self.nesterov else v)


class AdamRule(Rule):
    """What is built on the moments of Adam."""

    def __init__(self, *, beta_1: float, beta_2: float, epsilon: float, **common: Any) -> None:
        super().__init__(**common)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def slots(self, variable: keras.Variable) -> Mapping[str, Sequence[int]]:
        return {"momentum": variable.shape, "velocity": variable.shape}

    def adam(self, i: int, g: tf.Tensor) -> tf.Tensor:
        """Adam's step at rate 1: Kingma & Ba 2015, algorithm 1."""
        m = self.mean(i, "momentum", self.beta_1, g) / (1 - self.beta_1 ** self.time(g.dtype))
        return m / self.root(i, g)

    def root(self, i: int, g: tf.Tensor) -> tf.Tensor:
        """The root of the corrected mean of squares, plus epsilon."""
        v = self.mean(i, "velocity", self.beta_2, g * g) / (1 - self.beta_2 ** self.time(g.dtype))
        return tf.sqrt(v) + self.epsilon


class Nadam(AdamRule):
    def __init__(self, *, momentum_decay: float, **common: Any) -> None:
        super().__init__(**common)
        self.momentum_decay = momentum_decay

    def build(self, variables: list[keras.Variable]) -> None:
        if not self.built:
            self.product = self.add_variable((), "ones", aggregation="only_first_replica", name="momentum_product")
        super().build(variables)

    def mu(self, t: tf.Tensor) -> tf.Tensor:
        return self.beta_1 * (1 - 0.5 * 0.96 ** (t * self.momentum_decay))

    def _backend_update_step(self, grads: Any, trainable_variables: Any, learning_rate: Any) -> None:
        # Once a step, not once a variable.
        self.product.assign(self.product * self.mu(self.time(tf.as_dtype(self.product.dtype))))
        super()._backend_update_step(grads, trainable_variables, learning_rate)

    def change(self, i: int, w: tf.Tensor, g: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        t, product = self.time(g.dtype), tf.cast(self.product, g.dtype)
        now, ahead = self.mu(t), self.mu(t + 1)
        m = self.mean(i, "momentum", self.beta_1, g)
        m_hat = ahead * m / (1 - product * ahead) + (1 - now) * g / (1 - product)
        return rate * m_hat / self.root(i, g)


class Adafactor(Rule):
    def __init__(
        self, *, decay_power: float, epsilons: tuple[float, float], clip: float, relative: bool, **common: Any
    ) -> None:
        super().__init__(**common)
        self.decay_power, self.epsilons = decay_power, epsilons
        self.clip, self.relative = clip, relative

    def slots(self, variable: keras.Variable) -> Mapping[str, Sequence[int]]:
        shape = tuple(variable.shape)
        if len(shape) < 2:
            return {"velocity": shape}
        return {"row": shape[:-1], "column": (*shape[:-2], shape[-1])}

    def change(self, i: int, w: tf.Tensor, g: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        u = self.scaled(i, g)
        u /= tf.maximum(1.0, rms(u) / self.clip)
        return rate * u * (tf.maximum(self.epsilons[1], rms(w)) if self.relative else 1.0)

    def scaled(self, i: int, g: tf.Tensor) -> tf.Tensor:
        """The gradient over the root of its second moment."""
        beta = 1 - self.time(g.dtype) ** -self.decay_power
        square = g * g + self.epsilons[0]
        if g.shape.rank < 2:
            return g / tf.sqrt(self.mean(i, "velocity", beta, square))
        row = self.mean(i, "row", beta, tf.reduce_mean(square, -1))
        column = self.mean(i, "column", beta, tf.reduce_mean(square, -2))
        row /= tf.reduce_mean(row, -1, keepdims=True)
        # One root after the other: where both are near epsilon_1, their product underflows to zero.
        return g / tf.sqrt(row)[..., :, None] / tf.sqrt(column)[..., None, :]


class LayerRule(Rule):
    """What scales the step of each layer by the norm of its weights.

    Biases and normalisation are not scaled unless `adapt_all` is set. With `decay_in_ratio` the decay is part of the
    step, `inner_decay`, and Keras' own is off.
    """

    def __init__(self, *, weight_decay: float | None, decay_in_ratio: bool, adapt_all: bool, **common: Any) -> None:
        super().__init__(weight_decay=None if decay_in_ratio else weight_decay, **common)
        self.inner_decay = weight_decay or 0.0 if decay_in_ratio else 0.0
        self.adapt_all = adapt_all

    def build(self, variables: list[keras.Variable]) -> None:
        self.adapted = tuple(self.adapt_all or v.name not in SPARED for v in variables)
        self.decays = tuple(self.inner_decay if self._use_weight_decay(v) else 0.0 for v in variables)
        super().build(variables)


class LAMB(LayerRule, AdamRule):
    def change(self, i: int, w: tf.Tensor, g: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        r = self.adam(i, g) + self.decays[i] * w
        return rate * (quotient(norm_of([w]), norm_of([r])) if self.adapted[i] else 1.0) * r


class LARS(LayerRule):
    def __init__(self, *, momentum: float, trust: float, **common: Any) -> None:
        super().__init__(**common)
        self.momentum, self.trust = momentum, trust

    def slots(self, variable: keras.Variable) -> Mapping[str, Sequence[int]]:
        return {"velocity": variable.shape}

    def change(self, i: int, w: tf.Tensor, g: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        size, decay = norm_of([w]), self.decays[i]
        local = rate * quotient(self.trust * size, norm_of([g]) + decay * size) if self.adapted[i] else rate
        return self.put(i, "velocity", self.momentum * self.get(i, "velocity") + local * (g + decay * w))


class Muon(AdamRule):
    def __init__(
        self,
        *,
        momentum: float,
        nesterov: bool,
        iterations: int,
        rms: float,
        spared: tuple[str, ...],
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.momentum, self.nesterov, self.rms = momentum, nesterov, rms
        self.newton_schulz, self.spared = iterations, spared

    def slots(self, variable: keras.Variable) -> Mapping[str, Sequence[int]]:
        if is_kernel(variable) and not any(re.search(pattern, variable.path) for pattern in self.spared):
            return {"momentum": variable.shape}
        return super().slots(variable)

    def change(self, i: int, w: tf.Tensor, g: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        if "velocity" in self.memory[i]:
            return rate * self.adam(i, g)
        v = self.put(i, "momentum", self.momentum * self.get(i, "momentum") + g)
        matrix = tf.reshape(g + self.momentum * v if self.nesterov else v, [-1, g.shape[-1]])
        size = self.rms * max(matrix.shape) ** 0.5
        return rate * size * tf.reshape(orthogonal(matrix, self.newton_schulz), g.shape)


def orthogonal(matrix: tf.Tensor, iterations: int) -> tf.Tensor:
    """The matrix with all its singular values near 1, by the iteration of Newton and Schulz."""
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x = tf.transpose(matrix) if tall else matrix
    x /= norm_of([x]) + 1e-7
    for _ in range(iterations):
        square = tf.matmul(x, x, transpose_b=True)
        x = a * x + tf.matmul(b * square + c * tf.matmul(square, square), x)
    return tf.transpose(x) if tall else x


def rms(x: tf.Tensor) -> tf.Tensor:
    return norm_of([x]) / x.shape.num_elements() ** 0.5


def quotient(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """`a / b`, and 1 where either is zero."""
    return tf.where((a > 0) & (b > 0), a / b, tf.ones_like(a))


class Adjusted(keras.optimizers.Optimizer):
    """Changes the steps of single variables; mixed into the class of an optimizer by `adjust`.

    Decay is taken here, where the rate of the variable is known. A variable with factor 1 is computed as without.
    """

    rate_factors: tuple[float, ...]
    central: tuple[bool, ...]
    starts: tuple[int, ...]

    def _apply_weight_decay(self, variables: Any) -> None:
        """Done in `update_step`."""

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: Any) -> None:
        i = self._get_variable_index(variable)
        if self.rate_factors[i] == 0 or self.starts[i] < 0:
            return
        before = tf.identity(variable) if self.starts[i] else None
        self._step(i, gradient, variable, learning_rate)
        if before is not None:
            # Put back rather than a rate of zero: zero times what is not finite is not zero.
            variable.assign(tf.where(self.iterations >= self.starts[i], tf.convert_to_tensor(variable), before))

    def _step(self, i: int, gradient: tf.Tensor, variable: tf.Variable, learning_rate: Any) -> None:
        factor = self.rate_factors[i]
        rate = tf.cast(learning_rate, variable.dtype)
        rate = rate if factor == 1 else rate * factor
        if self.weight_decay and self._use_weight_decay(variable):
            variable.assign_sub(variable * tf.cast(self.weight_decay, variable.dtype) * rate)
        super().update_step(centralized(gradient) if self.central[i] else gradient, variable, rate)


def adjust(
    optimizer: keras.Optimizer, factors: Sequence[float], central: Sequence[bool], starts: Sequence[int]
) -> None:
    """Gives each variable a factor of its rate and a first update (-1: none); centralises the gradients of some."""
    kind = type(optimizer)
    optimizer.__class__ = type(kind.__name__, (Adjusted, kind), {})
    optimizer.rate_factors, optimizer.central, optimizer.starts = tuple(factors), tuple(central), tuple(starts)


def trained(optimizer: keras.Optimizer, variables: Sequence[keras.Variable]) -> list[bool]:
    """Of each variable, whether the optimizer moves it, sooner or later."""
    if not isinstance(optimizer, Adjusted):
        return [True] * len(variables)
    return [factor != 0 and start >= 0 for factor, start in zip(optimizer.rate_factors, optimizer.starts, strict=True)]


def centralized(gradient: tf.Tensor) -> tf.Tensor:
    """Less its mean over the weights of each unit."""
    return gradient - tf.reduce_mean(gradient, unit_axes(gradient), keepdims=True)
