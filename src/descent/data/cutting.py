"""Windows cut out of images before these are brought to one size: between an augmentation and a source."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from descent.types import OpenSource, Plan, Split

if TYPE_CHECKING:
    import tensorflow as tf


@runtime_checkable
class Cutting(Protocol):
    """A sample augmentation that begins by cutting a window out of each image, where `cuts` says so.

    A source whose images are of many sizes does that for it, at full resolution: with the plan's `window`; `rest` of
    the plan is then applied.
    """

    @property
    def cuts(self) -> bool: ...

    def window(self, plan: Plan) -> Plan: ...

    def rest(self, plan: Plan) -> Plan: ...

    def cut(self, image: tf.Tensor, window: Plan, size: tuple[int, ...]) -> tf.Tensor: ...


@runtime_checkable
class CuttingSource(OpenSource, Protocol):
    """An open source of images that can cut a window out of each, before it is brought to its size."""

    def gather_cut(
        self, split: Split, indices: tf.Tensor, windows: Plan, cut: Callable[..., tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]: ...
