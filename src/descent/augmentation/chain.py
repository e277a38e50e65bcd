"""Several augmentations, one after another."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from etils import epy
from pydantic import BeforeValidator

from descent import seeds
from descent.types import KINDS, Kind, Plan, SampleAugmentation, Spec, part

with epy.lazy_imports():
    import tensorflow as tf


def _present(value: Any) -> Any:
    """A mapping of parts without those that were set to null."""
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, Mapping) else value


@part
class Chain:
    """Augmentations applied in order, with independent draws.

    Attributes:
        parts: the augmentations by name; one set to null is left out.
    """

    parts: Annotated[Mapping[str, SampleAugmentation], BeforeValidator(_present)]

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of data that all of them take."""
        return tuple(kind for kind in KINDS if all(kind in getattr(p, "kinds", KINDS) for p in self.parts.values()))

    def resolved(self, spec: Spec) -> Chain:
        return dataclasses.replace(self, parts={name: part.resolved(spec) for name, part in self.parts.items()})

    def draw(self, seed: tf.Tensor, shape: Sequence[int]) -> Plan:
        """The plan of each part, under its name."""
        keys = seeds.split(seed, max(1, len(self.parts)))
        return {name: part.draw(key, shape) for key, (name, part) in zip(keys, self.parts.items(), strict=False)}

    @property
    def cuts(self) -> bool:
        """Whether its first part cuts windows out, which a source may do for it."""
        return getattr(self._first[1], "cuts", False)

    @property
    def _first(self) -> tuple[str, Any]:
        return next(iter(self.parts.items()), ("", None))

    def window(self, plan: Plan) -> Plan:
        name, first = self._first
        return first.window(plan[name])

    def rest(self, plan: Plan) -> Plan:
        name, first = self._first
        return {**plan, name: first.rest(plan[name])}

    def cut(self, image: tf.Tensor, window: Plan, size: tuple[int, ...]) -> tf.Tensor:
        return self._first[1].cut(image, window, size)

    def apply(self, plan: Plan, inputs: tf.Tensor) -> tf.Tensor:
        for name, augmentation in self.parts.items():
            inputs = augmentation.apply(plan[name], inputs)
        return inputs
