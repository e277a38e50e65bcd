"""The range of raw pixel values: operations compute in float32 within it, and go back to the images' own type."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from etils import epy
from pydantic import BeforeValidator

from descent.types import Fraction, Spec, UserError

with epy.lazy_imports():
    import tensorflow as tf

T = TypeVar("T")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _largest(value: Any) -> Any:
    if value != "auto" and not (_is_number(value) and value > 0):
        raise ValueError("should be a number above 0, or auto")
    return value


def _fill(value: Any) -> Any:
    values = value if isinstance(value, (list, tuple)) else (value,)
    if value != "mean" and not all(_is_number(v) and 0 <= v <= 1 for v in values):
        raise ValueError("should be a number from 0 (black) to 1 (white), or mean")
    return tuple(value) if isinstance(value, list) else value


Largest = Annotated[float | Literal["auto"], BeforeValidator(_largest)]
Fill = Annotated[Fraction | tuple[Fraction, ...] | Literal["mean"], BeforeValidator(_fill)]


def resolved(part: T, spec: Spec) -> T:
    """The same part with what it leaves to the data decided: `flip`, `largest` and `value`, where it has them."""
    answers = {"flip": ("auto", spec.mirrors), "largest": ("auto", 1 / spec.scale), "value": ("mean", spec.mean)}
    value, channels = getattr(part, "value", None), spec.shape[-1]
    if isinstance(value, tuple) and len(value) != channels:
        raise UserError(f"augmentation.sample.value={list(value)}: should be one number, or one a channel ({channels})")
    changes = {name: answer for name, (open_, answer) in answers.items() if getattr(part, name, None) == open_}
    return dataclasses.replace(part, **changes)  # type: ignore[type-var]


def compiled(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """The function as one loop made by XLA, several times as fast, where it is part of a graph.

    Called by itself it stays as it is: it would be compiled anew each time.
    """
    return tf.function(function, autograph=False, jit_compile=True) if tf.inside_function() else function


def top(largest: float | Literal["auto"], dtype: tf.DType) -> float:
    """The largest raw value; for "auto" that of the type: 255 for bytes, 1 for real numbers."""
    if largest != "auto":
        return float(largest)
    return float(dtype.max) if dtype.is_integer else 1.0


def restored(values: tf.Tensor, dtype: tf.DType, limit: float) -> tf.Tensor:
    """Float32 values cut to [0, limit], and rounded where the images are of whole numbers."""
    values = tf.clip_by_value(values, 0.0, limit)
    return tf.cast(tf.round(values) if dtype.is_integer else values, dtype)
