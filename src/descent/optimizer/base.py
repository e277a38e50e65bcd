"""What every optimizer has: rate, decay, and what is done to the gradient and the rate of single variables."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BeforeValidator

from descent.types import Flag, Fraction, Length, NonNegative, Pattern, Positive, UserError, part

if TYPE_CHECKING:
    import keras

# Names of biases and of the weights of normalisation layers.
SPARED = ("bias", "gamma", "beta", "scale", "offset", "token", "position")


def _is_factor(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf


def _pairs(value: object) -> object:
    """A mapping as a tuple of pairs: it keeps its order (the first match wins) and cannot be changed."""
    pairs = tuple(value.items()) if isinstance(value, Mapping) else () if value is None else value
    if not isinstance(pairs, (list, tuple)) or not all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 and _is_factor(pair[1]) for pair in pairs
    ):
        raise ValueError("should map patterns of variable paths to factors of at least 0, as in {head: 10}")
    for pattern, _ in pairs:
        try:
            re.compile(str(pattern))
        except re.error as error:
            raise ValueError(f"{pattern} is no regular expression: {error}") from None
    return tuple((str(pattern), float(factor)) for pattern, factor in pairs)


Multipliers = Annotated[tuple[tuple[str, float], ...], BeforeValidator(_pairs)]


@part
class Optimizer:
    """Builds a Keras optimizer.

    The rate of a variable is the rate of the step times its multiplier times `layer_decay^(L - l)`, where l is the
    number of its layer and L that of the last (Clark et al. 2020; Bao et al. 2022); weight decay, being
    multiplied by the rate, is scaled with it. A variable whose factor is 0 is frozen, bit for bit.

    Attributes:
        learning_rate: the peak rate.
        weight_decay: decoupled decay, multiplied by the rate of the step.
        decay_all: decay biases and normalisation too.
        centralize: take from the gradient of a kernel its mean over the inputs of each output (Yong et al. 2020,
            eq. 1).
        layer_decay: the rate of a layer over that of the next; 1 gives all the same, 0 trains the last layer alone.
        multipliers: factor of the rate by regular expression, searched in the variable's path ("head/kernel"); the
            first that matches counts.
        frozen: regular expression of variable paths: these keep their weights, bit for bit, until `unfreeze`. What the
            rule remembers of their gradients is kept up meanwhile, so that their first step is no leap. Statistics of
            batch normalisation, which no gradient moves, are not held. What never trains has no gradient: it counts
            in no norm, clipping or sharpness.
        unfreeze: length of the run, in updates, after which they train as the others; 1: never.
    """

    lengths: ClassVar[tuple[str, ...]] = ("unfreeze",)

    learning_rate: Positive = 1e-3
    weight_decay: NonNegative = 0.0
    decay_all: Flag = False
    centralize: Flag = False
    layer_decay: Fraction = 1.0
    multipliers: Multipliers = ()
    frozen: Pattern | None = None
    unfreeze: Length = 1.0

    def build(self, variables: Sequence[keras.Variable], steps: int = 0) -> keras.Optimizer:
        """The Keras optimizer with its slots for `variables`, in their order, for a run of so many steps.

        Raises:
            UserError: a pattern of `multipliers`, or `frozen`, matches no variable.
        """
        optimizer = self.create(learning_rate=self.learning_rate, weight_decay=self.weight_decay or None)
        if self.weight_decay and not self.decay_all:
            optimizer.exclude_from_weight_decay(var_list=[v for v in variables if v.name in SPARED])
        factors = self.factors(variables)
        central = [self.centralize and is_kernel(v) for v in variables]
        starts = self.starts(variables, steps)
        if any(central) or any(starts) or any(factor != 1 for factor in factors):
            from descent.optimizer.rules import adjust

            adjust(optimizer, factors, central, starts)
        optimizer.build(list(variables))
        return optimizer

    def create(self, **common: Any) -> keras.Optimizer:
        """The Keras optimizer without slots; `common` are its learning rate and weight decay."""
        raise NotImplementedError

    def starts(self, variables: Sequence[keras.Variable], steps: int) -> list[int]:
        """The number of updates after which each variable trains; -1: it never does."""
        if self.frozen is None:
            return [0] * len(variables)
        paths = [v.path for v in variables]
        _check_matches("frozen", self.frozen, paths)
        start = -1 if self.unfreeze == 1 else round(float(self.unfreeze) * steps)
        return [start if re.search(self.frozen, path) else 0 for path in paths]

    def factors(self, variables: Sequence[keras.Variable]) -> list[float]:
        """The factor of the rate of each variable."""
        paths = [v.path for v in variables]
        for pattern, _ in self.multipliers:
            _check_matches("multipliers", pattern, paths)
        numbers = layer_numbers(variables)
        last = max(numbers, default=0)
        return [
            self._multiplier(path) * self.layer_decay ** (last - number)
            for path, number in zip(paths, numbers, strict=True)
        ]

    def _multiplier(self, path: str) -> float:
        return next((factor for pattern, factor in self.multipliers if re.search(pattern, path)), 1.0)


def _check_matches(key: str, pattern: str, paths: Sequence[str]) -> None:
    if not any(re.search(pattern, path) for path in paths):
        raise UserError(f"optimizer.{key}: {pattern} matches none of {', '.join(paths)}")


def is_kernel(variable: keras.Variable) -> bool:
    """Whether it is the weight of a dense, convolutional or recurrent layer: an embedding or a token is not."""
    return "kernel" in variable.name and len(variable.shape) > 1


def layer_numbers(variables: Sequence[keras.Variable]) -> list[int]:
    """The number of the layer of each variable, from 0, in the order of the model.

    A layer is a folder in the variables' paths, below what all paths have in common. One without a kernel (a
    normalisation) counts as part of the layer before it.
    """
    folders = [v.path.split("/")[:-1] for v in variables]
    shared = len(list(itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False))))
    names = ["".join(folder[shared : shared + 1]) for folder in folders]
    with_kernel = {name for name, v in zip(names, variables, strict=True) if is_kernel(v)}
    numbers: dict[str, int] = {}
    for name in dict.fromkeys(names):
        before = max(numbers.values(), default=None)
        numbers[name] = 0 if before is None else before + (name in with_kernel)
    return [numbers[name] for name in names]
