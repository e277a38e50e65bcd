"""All that a step changes. A checkpoint holds exactly this."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epy

from descent.precision import NoScaling
from descent.types import Averager, UserError

with epy.lazy_imports():
    import tensorflow as tf

if TYPE_CHECKING:
    import keras

Arrays = Mapping[str, Sequence[np.ndarray]]
Weights = tuple[list["tf.Tensor"], list["tf.Tensor"]]  # trainable ones, and the others


@dataclasses.dataclass(kw_only=True)
class State:
    """Variables of the graph, and the small state of the host.

    Attributes:
        step: updates done so far, int64.
        skipped: steps in a row, up to now, that were not finite and changed nothing, int64.
        rate_factor: multiplies the scheduled learning rate; what a plateau lowers.
        host: JSON: callbacks' memories, the best value and its step, the length of the log in bytes.
        best: the weights that were best so far, as evaluated: the model's variables in order. Empty: none yet.
        replica: the number of the first replica of this process.
    """

    model: keras.Model
    optimizer: keras.Optimizer
    averager: Averager
    scaling: NoScaling
    step: tf.Variable
    rate_factor: tf.Variable
    skipped: tf.Variable
    host: dict[str, Any] = dataclasses.field(default_factory=dict)
    best: list[np.ndarray] = dataclasses.field(default_factory=list)
    replica: int = 0

    def __post_init__(self) -> None:
        self._part_seeds()

    def groups(self) -> dict[str, list[tf.Variable]]:
        """The variables by kind. Keras' own seed-generator states are among the model's."""
        return {
            "model": [v.value for v in self.model.variables],
            "optimizer": [v.value for v in self.optimizer.variables],
            "averaging": list(self.averager.variables),
            "scaling": list(self.scaling.variables),
            "step": [self.step, self.rate_factor, self.skipped],
        }

    def paths(self) -> dict[str, list[str]]:
        """A name for each variable, for the manifest."""
        weights = [v.path for v in self.model.variables]
        return {
            "model": weights,
            "optimizer": [v.path for v in self.optimizer.variables],
            "averaging": [v.name for v in self.averager.variables],
            "scaling": [v.name for v in self.scaling.variables],
            "step": ["step", "rate_factor", "skipped"],
            "best": weights if self.best else [],
        }

    def snapshot(self) -> dict[str, list[np.ndarray]]:
        """Copies of everything, on the host."""
        arrays = {kind: [np.asarray(v.numpy()) for v in group] for kind, group in self.groups().items()}
        return {**arrays, "best": list(self.best)}

    def restore(self, arrays: Arrays, host: dict[str, Any]) -> None:
        """Puts a snapshot back.

        Raises:
            UserError: it belongs to another model.
        """
        for kind, group in self.groups().items():
            if [tuple(v.shape) for v in group] != [a.shape for a in arrays[kind]]:
                raise UserError(f"resume: the checkpoint's {kind} variables are not those of this config")
        for kind, group in self.groups().items():
            for variable, array in zip(group, arrays[kind], strict=True):
                variable.assign(array)
        self.best, self.host = list(arrays["best"]), dict(host)
        self._part_seeds()

    def _part_seeds(self) -> None:
        """Lets Keras' own layers that draw (ours have keys) draw otherwise on each replica, on the first as alone."""
        for variable in self.model.variables:
            copies = getattr(variable.value, "values", [])
            if not variable.path.endswith("seed_generator_state"):
                continue
            for i, copy in enumerate(copies, self.replica):
                copy.assign(copy + tf.constant([i, 0], copy.dtype))

    def evaluated(self) -> Weights:
        """Trainable and other weights that are evaluated: the averaged ones where there is averaging."""
        return self.averager.trainable(), self.averager.non_trainable()

    def weights(self) -> Weights:
        """Trainable and other weights as they are in the model."""
        own = self.model.trainable_variables, self.model.non_trainable_variables
        return [v.value for v in own[0]], [v.value for v in own[1]]

    def keep_best(self) -> None:
        """Copies the evaluated weights."""
        self.best = self.copies()

    def copies(self) -> list[np.ndarray]:
        """Copies of the evaluated weights, in the order of the model's variables."""
        trainable, rest = self.evaluated()
        values = dict(zip(map(id, self.model.trainable_variables), trainable, strict=True))
        values |= dict(zip(map(id, self.model.non_trainable_variables), rest, strict=True))
        return [np.array(values[id(v)]) for v in self.model.variables]

    def use_best(self) -> None:
        """Puts the best weights into the model (after training: nothing is trained on from there)."""
        for variable, array in zip(self.model.variables, self.best, strict=True):
            variable.assign(array)
