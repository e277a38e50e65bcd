"""What flows between the parts of a run, and what each part promises.

Letters in shape strings: `b` batch, `k` steps in a chunk, `h w c` rows, columns and channels, `n` classes.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NamedTuple,
    Protocol,
    Self,
    TypeVar,
    cast,
    dataclass_transform,
    runtime_checkable,
)

import numpy as np
from pydantic import BeforeValidator, ConfigDict, Field, StrictBool
from pydantic.dataclasses import dataclass as pydantic_dataclass

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

T = TypeVar("T")
Record = dict[str, float]
Plan = Mapping[str, Any]  # what was drawn, for `apply`
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
Kind = Literal["image", "text", "tabular"]
KINDS: tuple[Kind, ...] = ("image", "text", "tabular")


class UserError(Exception):
    """Something the user can mend; shown as one line, with this exit code."""

    code = 2


# --- what a field of a part may hold -------------------------------------------------------------------------


def _number(value: object) -> object:
    """Refuse what pydantic would turn into a number without a word: `true` is not 1.0, nor is "3"."""
    if isinstance(value, (bool, str)):
        raise ValueError("should be a number")
    return value


def _whole(value: object) -> object:
    if isinstance(value, (bool, str)):
        raise ValueError("should be a whole number")
    return value


def _length(value: object) -> object:
    """A length of training: a fraction of the run, or a string of steps ("500st") or epochs ("5ep")."""
    if isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?(st|ep)", value):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise ValueError('should be a fraction of the run from 0 to 1, or like "500st" (steps) or "5ep" (epochs)')


def _sequence(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _flag_or_auto(value: object) -> object:
    if not isinstance(value, bool) and value != "auto":
        raise ValueError("should be true, false or auto")
    return value


def _count_or_auto(value: object) -> object:
    if value != "auto" and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ValueError("should be a whole number of at least 1, or auto")
    return value


def _name(value: object) -> object:
    if not re.fullmatch(r"[\w.+=,@-]+", str(value)):
        raise ValueError("should be letters, digits and . + = , @ - _ only: it names a folder")
    return value


def _pattern(value: object) -> object:
    try:
        re.compile(str(value))
    except re.error as error:
        raise ValueError(f"should be a regular expression ({error})") from error
    return value


def _rates(value: object) -> object:
    rates = value if isinstance(value, (list, tuple)) else (value,)
    good = all(isinstance(r, (int, float)) and not isinstance(r, bool) and 0 <= r < 1 for r in rates)
    if not good or not rates:
        raise ValueError("should be a rate from 0 to below 1, or a list of them, one for each layer")
    return tuple(rates) if isinstance(value, (list, tuple)) else value


Number = Annotated[float, BeforeValidator(_number)]
Positive = Annotated[float, BeforeValidator(_number), Field(gt=0)]
NonNegative = Annotated[float, BeforeValidator(_number), Field(ge=0)]
Fraction = Annotated[float, BeforeValidator(_number), Field(ge=0, le=1)]
ProperFraction = Annotated[float, BeforeValidator(_number), Field(ge=0, lt=1)]
Share = Annotated[float, BeforeValidator(_number), Field(gt=0, lt=1)]
Count = Annotated[int, BeforeValidator(_whole), Field(ge=1)]
Whole = Annotated[int, BeforeValidator(_whole), Field(ge=0)]
Flag = StrictBool
FlagOrAuto = Annotated[bool | Literal["auto"], BeforeValidator(_flag_or_auto)]
CountOrAuto = Annotated[int | Literal["auto"], BeforeValidator(_count_or_auto)]
Name = Annotated[str, BeforeValidator(_name)]
Length = Annotated[float | str, BeforeValidator(_length)]
Lengths = Annotated[tuple[Length, ...], BeforeValidator(_sequence)]
Counts = Annotated[tuple[Count, ...], BeforeValidator(_sequence), Field(min_length=1)]
Numbers = Annotated[tuple[Number, ...], BeforeValidator(_sequence)]
Rates = Annotated[ProperFraction | tuple[ProperFraction, ...], BeforeValidator(_rates)]
Weights = Annotated[tuple[Positive, ...], BeforeValidator(_sequence)]
Pattern = Annotated[str, BeforeValidator(_pattern)]
Patterns = Annotated[tuple[Pattern, ...], BeforeValidator(_sequence)]
Names = Annotated[tuple[str, ...], BeforeValidator(_sequence)]

PART = ConfigDict(extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True, arbitrary_types_allowed=True)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(Field,))
def part(cls: type[T]) -> type[T]:
    """Make a class a part: frozen, keyword-only, checked; its fields are its YAML keys."""
    return cast(type[T], pydantic_dataclass(frozen=True, kw_only=True, config=PART)(cls))


def is_zero(length: float | str) -> bool:
    return float(str(length).rstrip("step")) == 0


# --- lengths --------------------------------------------------------------------------------------------------


class Clock(NamedTuple):
    """How long the run is; turns every length into a fraction of it."""

    steps: int
    steps_per_epoch: float

    def in_steps(self, length: float | str) -> float:
        """The length in steps (not rounded: an epoch need not be a whole number of steps)."""
        if not isinstance(length, str):
            return length * self.steps
        number, unit = float(length[:-2]), length[-2:]
        return number if unit == "st" else number * self.steps_per_epoch

    def fraction(self, length: float | str) -> float:
        return self.in_steps(length) / self.steps if isinstance(length, str) else length


def with_fractions(part: T, clock: Clock) -> T:
    """The same part with every length (the names in its `lengths`) as a fraction of the run."""
    names: Sequence[str] = getattr(part, "lengths", ())
    fractions = {name: _fraction(getattr(part, name), clock) for name in names}
    return dataclasses.replace(part, **fractions) if fractions else part  # type: ignore[type-var]


def _fraction(length: Any, clock: Clock) -> Any:
    """A length, or a tuple of them, as fractions; what is past the end of the run is its end."""
    if isinstance(length, tuple):
        return tuple(_fraction(each, clock) for each in length)
    return min(1.0, clock.fraction(length))


# --- data -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
    """What the data is. The model is built from it; nobody types an input shape twice.

    Attributes:
        kind: what an element is.
        shape: of one raw element, without the batch (`h w c` for images).
        sizes: samples in each split.
        num_classes: number of classes, or None for one real target.
        class_names: where a source gives none, the numbers from 0.
        scale: raw values times this lie in the range the model sees ([0, 1] for images).
        mean, std: of the scaled values, per channel; the model's first layer subtracts and divides.
        mirrors: whether a left-right mirror image keeps its label.
        vocabulary: of text, how many ids there are: 0 is padding, 1 the unknown word.
        words: of text, the word of each id; empty where it is not known yet.
        features: of a table, the name of each input.
        target_mean, target_std: of a real target; losses are of standardised targets, outputs and metrics in its unit.
    """

    kind: Kind
    shape: tuple[int, ...]
    sizes: Mapping[Split, int]
    num_classes: int | None
    class_names: tuple[str, ...] = ()
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    mirrors: bool = True
    vocabulary: int = 0
    words: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    target_mean: float = 0.0
    target_std: float = 1.0

    def __post_init__(self) -> None:
        if self.num_classes and not self.class_names:
            object.__setattr__(self, "class_names", tuple(map(str, range(self.num_classes))))

    @property
    def outputs(self) -> int:
        return self.num_classes or 1


class Batch(NamedTuple):
    """Samples of one step: `weight` is 0 for the padding of a last batch, so each sample counts exactly once.

    `mixture` is empty, or what the embeddings of `inputs` are to be mixed with: other ids [b, t], own share [b].
    """

    inputs: tf.Tensor
    targets: tf.Tensor
    weight: tf.Tensor
    mixture: Any = ()


@runtime_checkable
class OpenSource(Protocol):
    """A source whose files are open: random access inside the graph."""

    def gather(self, split: Split, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]: ...


@runtime_checkable
class Source(Protocol):
    """Where samples come from."""

    @property
    def spec(self) -> Spec: ...

    def open(self) -> OpenSource: ...


# --- parts ----------------------------------------------------------------------------------------------------


@runtime_checkable
class SampleAugmentation(Protocol):
    """Changes each sample by itself, of its `kinds` of data if any. Runs in the pipeline, on raw elements."""

    def resolved(self, spec: Spec) -> Self: ...

    def draw(self, seed: tf.Tensor, shape: Sequence[int]) -> Plan: ...

    def apply(self, plan: Plan, inputs: tf.Tensor) -> tf.Tensor: ...


@runtime_checkable
class BatchAugmentation(Protocol):
    """Mixes the samples of a batch. Drawn in the pipeline, applied in the compiled step."""

    def draw(self, seed: tf.Tensor, shape: Sequence[int], progress: tf.Tensor) -> Plan: ...

    def apply(self, plan: Plan, batch: Batch) -> Batch: ...


@runtime_checkable
class Regularization(Protocol):
    """Everything that holds a model back: rates for its layers, penalties, softened labels."""

    def rates(self, name: str, count: int) -> list[float]:
        """The rates of `dropout`, `spatial_dropout` or `stochastic_depth` for each of `count` layers, in order."""

    def penalty(self, variables: Sequence[keras.Variable]) -> tf.Tensor: ...

    def check(self, variables: Sequence[keras.Variable]) -> None: ...

    def soften(self, targets: tf.Tensor) -> tf.Tensor: ...

    def disturb(self, gradients: list[tf.Tensor], seed: tf.Tensor, step: tf.Tensor) -> list[tf.Tensor]: ...

    def constrain(self, variables: Sequence[keras.Variable], before: Sequence[tf.Tensor]) -> None: ...


@runtime_checkable
class Model(Protocol):
    """Builds a Keras model from raw scaled inputs, of its `kinds` where it has them, to logits or one real output."""

    def build(self, spec: Spec, regularization: Regularization) -> keras.Model: ...


@runtime_checkable
class Loss(Protocol):
    """Loss of each sample."""

    def __call__(self, targets: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor: ...


@runtime_checkable
class Clipping(Protocol):
    """Bounds gradients."""

    def __call__(self, gradients: Sequence[tf.Tensor], variables: Sequence[keras.Variable]) -> list[tf.Tensor]: ...


Pass = tuple[dict[str, "tf.Tensor"], list["tf.Tensor"]]


@runtime_checkable
class Sharpness(Protocol):
    """Where the gradient is taken: `compute` gives a record and gradients at the weights as they are."""

    def __call__(
        self, compute: Callable[[], Pass], weights: Sequence[tf.Variable], others: Sequence[tf.Variable]
    ) -> Pass: ...


@runtime_checkable
class Optimizer(Protocol):
    """Owns the peak learning rate; builds the Keras optimizer when the run starts."""

    @property
    def learning_rate(self) -> float: ...

    def build(self, variables: Sequence[keras.Variable], steps: int) -> keras.Optimizer: ...


@runtime_checkable
class Schedule(Protocol):
    """A shape: from the fraction of the run in [0, 1] to the fraction of the peak in [0, 1]."""

    def __call__(self, progress: np.ndarray) -> np.ndarray: ...


@runtime_checkable
class Averager(Protocol):
    """Running averages of a model's weights; `variables` is the state it keeps."""

    variables: list[tf.Variable]

    def reset(self) -> None: ...

    def update(self, step: tf.Tensor) -> None: ...

    def trainable(self) -> list[tf.Tensor]: ...

    def non_trainable(self) -> list[tf.Tensor]: ...


@runtime_checkable
class Averaging(Protocol):
    """Builds the averager of a model."""

    def build(self, model: keras.Model, steps: int) -> Averager: ...


class Verdict(NamedTuple):
    """What a callback says after an evaluation: stop (why), keep these weights as the best, multiply the rate.

    With `best` its memory has the `monitor`, `value` and `step` that are the best.
    """

    memory: dict[str, Any]
    stop: str = ""
    best: bool = False
    rate_factor: float | None = None


@runtime_checkable
class Callback(Protocol):
    """A pure function of its memory (JSON, part of every checkpoint) and the record of an evaluation."""

    def __call__(self, memory: dict[str, Any], record: Record) -> Verdict: ...


class Sink(Protocol):
    """Where records go."""

    def write(self, record: Record) -> None: ...

    def close(self) -> None: ...


@runtime_checkable
class Logger(Protocol):
    """Opens a sink for the run in a folder; `resume` continues the curve that is there after `step`."""

    def open(self, folder: str, *, step: int) -> Sink: ...
