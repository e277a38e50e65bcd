"""What a peer is to do: a resolved experiment with its data as arrays and the weights all start from."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np

from descent import Experiment, UserError
from descent.augmentation import NoMixing, NoSampleAugmentation
from descent.averaging import NoAveraging
from descent.clipping import GlobalNorm, NoClipping
from descent.data import Arrays
from descent.regularization import Regularization
from descent.sharpness import NoSharpness
from descent.types import Spec, Split

if TYPE_CHECKING:
    import keras


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """Attributes:
    arrays: raw elements and targets of each split.
    ours: Descent's model, whose weights a peer starts from.
    rates: the learning rate of every step, float32 [steps].
    """

    experiment: Experiment
    arrays: dict[Split, tuple[np.ndarray, np.ndarray]]
    ours: keras.Model
    rates: np.ndarray

    @property
    def spec(self) -> Spec:
        return self.experiment.data.spec

    @property
    def batch_size(self) -> int:
        return self.experiment.trainer.batch_size

    @property
    def epoch(self) -> int:
        """Steps of an epoch of whole batches."""
        return self.spec.sizes["train"] // self.batch_size

    @property
    def evaluate_every(self) -> int:
        """Steps between evaluations."""
        return max(1, round(self.experiment.clock.in_steps(self.experiment.trainer.eval_every)))

    @property
    def max_norm(self) -> float:
        """The bound on the global norm; infinite without clipping."""
        clipping = self.experiment.clipping
        return clipping.max_norm if isinstance(clipping, GlobalNorm) else math.inf

    @property
    def augments(self) -> bool:
        parts = self.experiment.augmentation
        return not (isinstance(parts.sample, NoSampleAugmentation) and isinstance(parts.batch, NoMixing))

    @property
    def smoothing(self) -> float:
        return getattr(self.experiment.regularization, "label_smoothing", 0.0)


def prepare(experiment: Experiment) -> Task:
    """Builds the task of an experiment.

    Raises:
        UserError: it asks for something the peers do not do.
    """
    check(experiment)
    from descent import environment, seeds

    run = experiment.resolved()
    environment.prepare(dataclasses.replace(run.trainer, deterministic=False))  # nobody else pays for it
    with seeds.initialization(run.seed):
        ours = run.model.build(run.data.spec, run.regularization)
    source = run.data.open()
    if not isinstance(source, Arrays):
        raise UserError("benchmark: the peers take data in memory; choose another data, or vs=[]")
    arrays = {split: (x.numpy(), y.numpy()) for split, (x, y) in source.splits.items()}
    return Task(experiment=run, arrays=arrays, ours=ours, rates=np.asarray(run.rates(), np.float32))


def check(experiment: Experiment) -> None:
    """Refuses what the peers leave out, by its key."""
    extras = ("l1", "l2", "max_norm", "gradient_noise", "stochastic_depth")
    refused = {
        "averaging": not isinstance(experiment.averaging, NoAveraging),
        "sharpness": not isinstance(experiment.sharpness, NoSharpness),
        "clipping": not isinstance(experiment.clipping, (GlobalNorm, NoClipping)),
        "trainer.accumulate": experiment.trainer.accumulate > 1,
        "regularization": not isinstance(experiment.regularization, Regularization)
        or any(getattr(experiment.regularization, name) for name in extras),
    }
    if named := [key for key, wrong in refused.items() if wrong]:
        raise UserError(f"benchmark: the peers do not do this config's {', '.join(named)}; turn it off, or vs=[]")
