"""The classic set for comparing optimizers: a real target, linear in a few of its features."""

from __future__ import annotations

import numpy as np

from descent import seeds
from descent.data.arrays import Arrays
from descent.data.table import Splits
from descent.types import SPLITS, Count, NonNegative, Share, Spec, Whole, part


@part
class Linear(Splits):
    """`y = x_1 + x_2 + x_3 + noise e` with x and e standard normal: nothing to fit but a plane, and noise to overfit.

    Inputs and targets are left in their own unit, so that no model does better than a squared error of `noise^2`.

    Attributes:
        samples: in all three splits together.
        features: of a sample; the first three make the target.
        noise: standard deviation of what no model can know.
        data_seed: which samples.
    """

    samples: Count = 1000
    features: Count = 10
    noise: NonNegative = 0.1
    data_seed: Whole = 0
    validation: Share = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("samples", "features"):
            if getattr(self, name) < 3:
                raise ValueError(f"{name}={getattr(self, name)} should be at least 3")

    @property
    def spec(self) -> Spec:
        return Spec(
            kind="tabular",
            shape=(self.features,),
            sizes=self.sizes(self.samples),
            num_classes=None,
            mean=(0.0,) * self.features,
            std=(1.0,) * self.features,
            features=tuple(f"x{i + 1}" for i in range(self.features)),
        )

    def open(self) -> Arrays:
        rng = seeds.host(self.data_seed, "split")
        inputs = rng.standard_normal((self.samples, self.features)).astype(np.float32)
        noise = self.noise * rng.standard_normal(self.samples)
        targets = (inputs[:, :3].sum(axis=1, dtype=np.float64) + noise).astype(np.float32)
        parts = self.parts(np.zeros(self.samples, int))
        return Arrays(self.spec, {split: (inputs[parts[split]], targets[parts[split]]) for split in SPLITS})
