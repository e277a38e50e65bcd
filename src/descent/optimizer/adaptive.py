"""Optimizers that divide each weight's gradient by a running size of it."""

from __future__ import annotations

from typing import Any

from etils import epy

from descent.optimizer.base import Optimizer
from descent.types import Flag, NonNegative, Positive, ProperFraction, part

with epy.lazy_imports():
    import keras


@part
class Adam(Optimizer):
    """Kingma & Ba 2015, in the form of the end of its section 2: epsilon is added before bias correction.

    `w = w - lr sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + epsilon)`, as Keras computes it; torch adds its
    epsilon after the correction: in this form it is smaller, by the factor sqrt(1 - b2^t).

    AMSGrad puts the largest v so far in the place of v (Reddi et al. 2018, algorithm 2, which has no bias
    correction; Keras and torch keep Adam's, which does not enter the maximum).

    Attributes:
        beta_1: decay of the first moment m.
        beta_2: decay of the second moment v.
        epsilon: keeps the quotient finite.
        amsgrad: divide by the largest v so far.
    """

    beta_1: ProperFraction = 0.9
    beta_2: ProperFraction = 0.999
    epsilon: Positive = 1e-7
    amsgrad: Flag = False

    def create(self, **common: Any) -> keras.Optimizer:
        return keras.optimizers.Adam(
            beta_1=self.beta_1, beta_2=self.beta_2, epsilon=self.epsilon, amsgrad=self.amsgrad, **common
        )


@part
class AdamW(Adam):
    """Adam with decoupled weight decay on (Loshchilov & Hutter 2019, algorithm 2); decay is lr * wd."""

    weight_decay: NonNegative = 0.01


@part
class Nadam(Optimizer):
    """Adam with Nesterov's momentum (Dozat 2015, algorithm 8), whose momentum grows from b1 / 2 to b1.

    `mu_t = b1 (1 - 0.96^(t psi) / 2)`, P_t their product up to t, m and v the moments as in Adam:
    `w = w - lr (mu_(t+1) m / (1 - P_(t+1)) + (1 - mu_t) g / (1 - P_t)) / (sqrt(v / (1 - b2^t)) + epsilon)`.

    The same as torch's. Keras 3 has psi = 1 (its momentum has grown after a hundred steps, the paper's after tens of
    thousands), hence a rule of our own.

    Attributes:
        beta_1: decay of the first moment m, and the momentum in the end.
        beta_2: decay of the second moment v.
        epsilon: keeps the quotient finite.
        momentum_decay: psi; the paper has 1 / 250.
    """

    beta_1: ProperFraction = 0.9
    beta_2: ProperFraction = 0.999
    epsilon: Positive = 1e-7
    momentum_decay: NonNegative = 0.004

    def create(self, **common: Any) -> keras.Optimizer:
        from descent.optimizer import rules

        betas = {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}
        return rules.Nadam(momentum_decay=self.momentum_decay, **betas, **common)


@part
class Adamax(Optimizer):
    """Adam in the infinity norm: `u = max(b2 u, |g|); w = w - lr / (1 - b1^t) * m / (u + epsilon)`.

    Kingma & Ba 2015, algorithm 2, which has no epsilon; torch has `u = max(b2 u, |g| + epsilon)`.

    Attributes:
        beta_1: decay of the first moment m.
        beta_2: decay of the norm u.
        epsilon: keeps the quotient finite.
    """

    beta_1: ProperFraction = 0.9
    beta_2: ProperFraction = 0.999
    epsilon: Positive = 1e-7

    def create(self, **common: Any) -> keras.Optimizer:
        return keras.optimizers.Adamax(beta_1=self.beta_1, beta_2=self.beta_2, epsilon=self.epsilon, **common)


@part
class Adagrad(Optimizer):
    """`s = s + g^2; w = w - lr g / sqrt(s + epsilon)` (Duchi et al. 2011, section 1.1, the diagonal form).

    Keras' epsilon is under the root; the paper and torch add theirs to the root, and start s at zero.

    Attributes:
        initial: where the sum of squares s starts.
        epsilon: keeps the quotient finite.
    """

    learning_rate: Positive = 0.01
    initial: NonNegative = 0.1
    epsilon: Positive = 1e-7

    def create(self, **common: Any) -> keras.Optimizer:
        return keras.optimizers.Adagrad(initial_accumulator_value=self.initial, epsilon=self.epsilon, **common)


@part
class Adadelta(Optimizer):
    """`d = sqrt(x + epsilon) / sqrt(s + epsilon) * g; w = w - lr d` (Zeiler 2012, algorithm 1).

    s and x are running means of `g^2` and of `d^2`. The paper has no rate: 1 is the paper's.

    Attributes:
        rho: decay of both means.
        epsilon: keeps the quotient finite, and starts the steps.
    """

    learning_rate: Positive = 1.0
    rho: ProperFraction = 0.95
    epsilon: Positive = 1e-6

    def create(self, **common: Any) -> keras.Optimizer:
        return keras.optimizers.Adadelta(rho=self.rho, epsilon=self.epsilon, **common)


@part
class RMSprop(Optimizer):
    """`v = rho v + (1 - rho) g^2; w = w - lr g / sqrt(v + epsilon)` (Hinton 2012, lecture 6e).

    Keras' epsilon is under the root, and its momentum holds steps, the rate folded in; torch adds its epsilon to
    the root, and its momentum holds quotients.

    Attributes:
        rho: decay of the mean square v.
        momentum: momentum on the scaled gradient.
        epsilon: keeps the quotient finite.
        centered: divide by the variance, not the mean square (Graves 2013, section 2.2, eqs. 38-45).
    """

    rho: ProperFraction = 0.9
    momentum: ProperFraction = 0.0
    epsilon: Positive = 1e-7
    centered: Flag = False

    def create(self, **common: Any) -> keras.Optimizer:
        return keras.optimizers.RMSprop(
            rho=self.rho, momentum=self.momentum, epsilon=self.epsilon, centered=self.centered, **common
        )


@part
class Adafactor(Optimizer):
    """Adam's second moment in the memory of its row and column means (Shazeer & Stern 2018, algorithms 4 and 5).

    With `b = 1 - t^-decay_power` and running means R, C of `g^2 + epsilon_1` over columns and over rows,
    `v = R C / mean(R)`; `u = g / sqrt(v)`, divided by `max(1, rms(u) / clip)`;
    `w = w - lr max(epsilon_2, rms(w)) u`. Weights with fewer than two axes keep v whole, those with more than
    two are factored over the last two. The rate is the schedule's, in the place of the paper's
    `min(0.01, 1 / sqrt(t))`; Keras takes the lesser of its rate and `1 / sqrt(t)` whatever it is told, keeps v
    whole for every weight, and divides 0 by 0 where a row and a column are silent; hence a rule of our own.

    Attributes:
        decay_power: how fast the decay b of the means tends to 1.
        epsilon_1: keeps the quotient finite.
        epsilon_2: the least size of a weight that steps are relative to.
        clip: the largest root mean square of u.
        relative: steps are relative to the weights' root mean square; off, `w = w - lr u`.
    """

    learning_rate: Positive = 0.01
    decay_power: Positive = 0.8
    epsilon_1: Positive = 1e-30
    epsilon_2: Positive = 1e-3
    clip: Positive = 1.0
    relative: Flag = True

    def create(self, **common: Any) -> keras.Optimizer:
        from descent.optimizer import rules

        return rules.Adafactor(
            decay_power=self.decay_power,
            epsilons=(self.epsilon_1, self.epsilon_2),
            clip=self.clip,
            relative=self.relative,
            **common,
        )
