"""The data of a finished run as its folder tells of it: enough to answer what is new, wherever the data is now."""

from __future__ import annotations

import dataclasses
import json
from functools import cached_property
from pathlib import Path
from typing import Any

from etils import epy

from descent.data.remembered import Remembered
from descent.folder import write_atomic
from descent.types import OpenSource, Spec, Split, UserError, part

with epy.lazy_imports():
    import tensorflow as tf

FILE = "spec.json"


def keep(folder: Path, spec: Spec, source: OpenSource) -> None:
    """Writes what the data is, and of which type its raw elements are, into the folder of a run."""
    element, _ = source.gather("test", tf.zeros([1], tf.int64))
    content = {**dataclasses.asdict(spec), "dtype": element.dtype.name}
    write_atomic(folder / FILE, json.dumps(content, ensure_ascii=False) + "\n")


@part
class Absent:
    """What a run had for data.

    Attributes:
        folder: of the run.
        source: the run's own, which is not read.

    Raises:
        UserError: its `spec.json` is damaged.
    """

    folder: str
    source: Any = None

    @property
    def own(self) -> Any:
        """The run's source with what the folder holds: it encodes texts and tables without reading its own."""
        return self.source.kept(Path(self.folder)) if isinstance(self.source, Remembered) else self.source

    @cached_property
    def content(self) -> dict[str, Any]:
        place = Path(self.folder) / FILE
        try:
            content: dict[str, Any] = json.loads(place.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{place} is damaged: {error}") from error
        return {key: tuple(value) if isinstance(value, list) else value for key, value in content.items()}

    @property
    def spec(self) -> Spec:
        try:
            return Spec(**{key: value for key, value in self.content.items() if key != "dtype"})
        except TypeError as error:
            raise UserError(f"{Path(self.folder) / FILE} is damaged: {error}") from error

    def open(self) -> OpenAbsent:
        return OpenAbsent(self.spec, tf.as_dtype(self.content["dtype"]))


class OpenAbsent:
    """Raw elements that are made up, of the range of the run's own."""

    def __init__(self, spec: Spec, dtype: tf.DType) -> None:
        self.spec, self.dtype = spec, dtype

    def gather(self, split: Split, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        shape, seed = [len(indices), *self.spec.shape], [0, 0]
        if self.spec.kind == "tabular":
            values = tf.random.stateless_normal(shape, seed) * self.spec.std + self.spec.mean
        else:
            top = self.spec.vocabulary if self.spec.kind == "text" else 1 / self.spec.scale
            values = tf.random.stateless_uniform(shape, seed) * top
        return tf.cast(values, self.dtype), tf.zeros([len(indices)], tf.int32)
