"""Optimizers whose step has a size of its own, whatever the size of the gradient: of each weight or each layer."""

from __future__ import annotations

from typing import Any

from etils import epy

from descent.optimizer.base import Optimizer
from descent.types import Count, Flag, Patterns, Positive, ProperFraction, Share, part

with epy.lazy_imports():
    import keras


@part
class Lion(Optimizer):
    """`w = w - lr sign(b1 m + (1 - b1) g); m = b2 m + (1 - b2) g` (Chen et al. 2023, algorithm 2).

    Its rate wants to be 3 to 10 times less than Adam's, and its weight decay as many times more (section 5).

    Attributes:
        beta_1: weight of the momentum m against the gradient in the step.
        beta_2: decay of the momentum.
    """

    learning_rate: Positive = 3e-4
    beta_1: Share = 0.9
    beta_2: ProperFraction = 0.99

    def create(self, **common: Any) -> keras.Optimizer:
        return keras.optimizers.Lion(beta_1=self.beta_1, beta_2=self.beta_2, **common)


@part
class LAMB(Optimizer):
    """Adam whose step has, in each layer, the norm of the weights times the rate (You et al. 2020, algorithm 2).

    `r = m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + epsilon); w = w - lr |w| / |r| r`; where |w| or |r| is zero their
    quotient is 1. The paper's phi is the identity.

    Weight decay is decoupled here, as everywhere. The paper adds it to the step before the norm is taken:
    `w = w - lr |w| / |r + wd w| (r + wd w)`, which `decay_in_ratio` does. Biases and normalisation take Adam's step
    unless `adapt_all` is set: the paper does not say so, the authors' code does. Keras has neither.

    Attributes:
        beta_1: decay of the first moment m.
        beta_2: decay of the second moment v.
        epsilon: keeps the quotient finite.
        decay_in_ratio: the paper's weight decay, a part of the step.
        adapt_all: scale the steps of biases and normalisation too.
    """

    learning_rate: Positive = 0.01
    beta_1: ProperFraction = 0.9
    beta_2: ProperFraction = 0.999
    epsilon: Positive = 1e-6
    decay_in_ratio: Flag = False
    adapt_all: Flag = False

    def create(self, **common: Any) -> keras.Optimizer:
        from descent.optimizer import rules

        betas = {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}
        return rules.LAMB(decay_in_ratio=self.decay_in_ratio, adapt_all=self.adapt_all, **betas, **common)


@part
class LARS(Optimizer):
    """Momentum with a rate for each layer, in proportion to its weights (You et al. 2017, algorithm 1).

    `v = m v + lr trust |w| / |g| g; w = w - v`, and `v = m v + lr g` where |w| or |g| is zero. Keras and torch do
    not have it.

    Weight decay is decoupled here, as everywhere. The paper adds it to the gradient, and to its norm:
    `v = m v + lr trust |w| / (|g| + wd |w|) (g + wd w)`, which `decay_in_ratio` does. Biases and normalisation take
    the plain step `v = m v + lr g` unless `adapt_all` is set: the paper does not say so, its successors do
    (Goyal et al. 2017, section 5.1; You et al. 2020).

    Attributes:
        momentum: the m above.
        trust: length of a layer's step over that of its weights, at rate 1 and without momentum.
        decay_in_ratio: the paper's weight decay, a part of the gradient.
        adapt_all: scale the steps of biases and normalisation too.
    """

    learning_rate: Positive = 5.0
    momentum: ProperFraction = 0.9
    trust: Positive = 0.001
    decay_in_ratio: Flag = False
    adapt_all: Flag = False

    def create(self, **common: Any) -> keras.Optimizer:
        from descent.optimizer import rules

        settings = {"decay_in_ratio": self.decay_in_ratio, "adapt_all": self.adapt_all}
        return rules.LARS(momentum=self.momentum, trust=self.trust, **settings, **common)


@part
class Muon(Optimizer):
    """Momentum made orthogonal: `v = m v + g; w = w - lr rms sqrt(max(rows, columns)) O(g + m v)`.

    Jordan et al. 2024, with the size of the step of Liu et al. 2025, eq. 4, which suits the rates of Adam. O sets all
    singular values near 1 (between 0.7 and 1.2) by five steps `x = a x + (b x x' + c (x x')^2) x` of Newton and
    Schulz, (a, b, c) = (3.4445, -4.7750, 2.0315), from x of Frobenius norm 1. Only kernels are orthogonalised, with
    all axes but the last taken as one; all other weights, and those that `spared` names, take the step of Adam
    (Kingma & Ba 2015, algorithm 1) at the same rate.

    Keras leaves the kernels of convolutions to Adam, needs a second weight decay for what Adam trains, and
    decays outside of the distribution strategy, hence a rule of our own.

    Attributes:
        momentum: the m above.
        nesterov: look ahead: O(g + m v); off, O(v).
        iterations: of Newton and Schulz.
        rms: root mean square of the elements of a step, over the rate.
        spared: regular expressions for paths of kernels that take Adam's step: the first and the last layer.
        beta_1, beta_2: decay of the moments, for Adam.
        epsilon: keeps the quotient finite, for Adam.
    """

    momentum: ProperFraction = 0.95
    nesterov: Flag = True
    iterations: Count = 5
    rms: Positive = 0.2
    spared: Patterns = ("embedding", "head")
    beta_1: ProperFraction = 0.9
    beta_2: ProperFraction = 0.95
    epsilon: Positive = 1e-8

    def create(self, **common: Any) -> keras.Optimizer:
        from descent.optimizer import rules

        return rules.Muon(
            momentum=self.momentum,
            nesterov=self.nesterov,
            iterations=self.iterations,
            rms=self.rms,
            spared=self.spared,
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            epsilon=self.epsilon,
            **common,
        )
