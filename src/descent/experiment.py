"""A run as one value: every part of it, in the order data flows, checked against each other."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field

from descent import initial, metric, replicas
from descent.augmentation import NoMixing, NoSampleAugmentation
from descent.averaging import NoAveraging
from descent.callback import Checkpoint, Plateau
from descent.clipping import NoClipping
from descent.folder import RunFolder
from descent.identity import as_config, flat, identity
from descent.loss import CrossEntropy
from descent.regularization import Regularization as NoRegularization
from descent.schedule import Constant
from descent.sharpness import NoSharpness
from descent.strategy import Single, Strategy
from descent.trainer import Trainer
from descent.types import (
    KINDS,
    Averaging,
    BatchAugmentation,
    Callback,
    Clipping,
    Clock,
    Logger,
    Loss,
    Model,
    Name,
    Names,
    Optimizer,
    Regularization,
    SampleAugmentation,
    Schedule,
    Sharpness,
    Source,
    Spec,
    UserError,
    Whole,
    part,
    with_fractions,
)

if TYPE_CHECKING:
    import keras


def _present(value: object) -> object:
    """A mapping of parts without those that were set to null."""
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, Mapping) else value


@part
class Augmentation:
    """Per sample in the pipeline, then per batch in the step."""

    sample: SampleAugmentation = NoSampleAugmentation()
    batch: BatchAugmentation = NoMixing()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What a run leaves behind.

    Attributes:
        record: every final metric under its record name: `test/accuracy` and so on.
        model: the Keras model, with its best weights.
        summary: the content of `summary.json`.
        folder: where everything else is.
    """

    record: dict[str, float]
    model: keras.Model
    summary: dict[str, Any]
    folder: Path

    @property
    def objective(self) -> float:
        """What a sweeper optimises: the best monitored value, else the last validation loss."""
        best = self.summary["best"]["value"]
        return self.record.get("val/loss", float("nan")) if best is None else best

    @property
    def exit_code(self) -> int:
        """0 completed, 3 halted at a number that was not finite, 4 failed (disk, memory, files), 130 interrupted."""
        return {"completed": 0, "halted": 3, "failed": 4, "interrupted": 130}[self.summary["status"]]


@part
class Experiment:
    """One training run. `data` and `model` are needed; all else is off, or plain, by default.

    Attributes:
        seed: of every random draw of the run; the data's split has its own.
        init_from: a run folder, one of its checkpoints, or a `.keras` file: its weights are where training starts.
        name: of the run and of the folder under `outputs/`.
        tags: words to find the run by.
    """

    data: Source
    augmentation: Augmentation = Augmentation()
    model: Model
    loss: Loss = CrossEntropy()
    regularization: Regularization = NoRegularization()
    sharpness: Sharpness = NoSharpness()
    clipping: Clipping = NoClipping()
    optimizer: Optimizer
    schedule: Schedule = Constant()
    averaging: Averaging = NoAveraging()
    trainer: Trainer = Trainer()
    strategy: Strategy = Single()
    callback: Annotated[Mapping[str, Callback], BeforeValidator(_present)] = Field(
        default_factory=lambda: {"checkpoint": Checkpoint()}
    )
    logger: Annotated[Mapping[str, Logger], BeforeValidator(_present)] = Field(default_factory=dict)
    seed: Whole = 0
    init_from: str | None = None
    name: Name = "run"
    tags: Names = ()

    def __post_init__(self) -> None:
        spec = self.data.spec
        _check_data(self, spec)
        _check_kinds(self, spec)
        _check_labels(self, spec)
        _check_class_weights(self, spec)
        _check_schedule(self)
        _check_callbacks(self, spec)
        _check_replicas(self)

    @cached_property
    def clock(self) -> Clock:
        spec = self.data.spec
        return self.trainer.settled(spec.kind).clock(self.samples)

    @property
    def samples(self) -> int:
        """Training samples that are used."""
        return self.trainer.samples or self.data.spec.sizes["train"]

    def resolved(self) -> Experiment:
        """The same run with all lengths as fractions, and what depends on the data decided."""
        clock = self.clock
        augmentation = Augmentation(
            sample=with_fractions(self.augmentation.sample.resolved(self.data.spec), clock),
            batch=with_fractions(self.augmentation.batch, clock),
        )
        return dataclasses.replace(
            self,
            augmentation=augmentation,
            optimizer=with_fractions(self.optimizer, clock),
            schedule=with_fractions(self.schedule, clock),
            averaging=with_fractions(self.averaging, clock),
            callback={name: with_fractions(callback, clock) for name, callback in self.callback.items()},
            trainer=self.trainer.settled(self.data.spec.kind),
        )

    def check_batch(self, count: int) -> None:
        """Whether so many replicas can share out each batch.

        Raises:
            UserError: they cannot.
        """
        mixes = not isinstance(self.augmentation.batch, NoMixing)
        replicas.check(count, self.trainer.batch_size, self.trainer.accumulate, mixes=mixes)

    def rates(self) -> np.ndarray:
        """The learning rate of every step, float64 [steps]: the peak times the shape at the middle of the step."""
        steps = self.clock.steps
        shape = with_fractions(self.schedule, self.clock)((np.arange(steps) + 0.5) / steps)
        return self.optimizer.learning_rate * np.asarray(shape, np.float64)

    def run(
        self,
        folder: str | Path | None = None,
        *,
        overrides: list[str] | None = None,
        mismatch: Literal["refuse", "warn"] = "refuse",
    ) -> Result:
        """Trains, evaluates and writes everything to a folder; a folder that holds this run is continued.

        Args:
            folder: where to; by default a new one under the project's `outputs/`.
            overrides: words of the command line, for the record.
            mismatch: where a run is continued under conditions that change bits: refuse, or warn and go on.

        Raises:
            UserError: the data is not there, the folder holds another run, or it cannot be continued.
        """
        from descent.config import load_experiment, new_folder, restore

        place = RunFolder(folder or new_folder(self.name))
        if self.strategy.worker() and not place.complete:
            with tempfile.TemporaryDirectory(prefix="descent-worker-") as private:
                own = dataclasses.replace(self, logger={})  # only the chief writes what others read
                return own._result(RunFolder(private), overrides or [], mismatch)
        if place.used:
            refuse_another(self, load_experiment(place.path), place)
        else:
            initial.checked(self)
        if not place.complete:
            return self._result(place, overrides or [], mismatch)
        print(f"{place.path} is complete already")
        return _read(restore(place.path)[1].state.model, place.read_json("summary.json"), place.path)

    def _result(self, place: RunFolder, overrides: list[str], mismatch: Literal["refuse", "warn"]) -> Result:
        from descent.session import Session
        from descent.signals import Interruption

        with Interruption() as interruption:
            session = Session(self, place, overrides, mismatch=mismatch, interruption=interruption)
            return _read(session.state.model, session.run(), place.path)


def _read(model: keras.Model, summary: dict[str, Any], folder: Path) -> Result:
    record = {name: value for name, value in summary.items() if "/" in name}
    return Result(record=record, model=model, summary=summary, folder=folder)


def refuse_another(run: Experiment, saved: Experiment, place: RunFolder) -> None:
    """Raises UserError where a folder holds another run than this one."""
    if identity(saved) == identity(run):
        return
    then, now = (dict(flat(as_config(experiment))) for experiment in (saved, run))
    different = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    told = "; ".join(f"{key} was {then.get(key)}, is {now.get(key)}" for key in different[:3])
    raise UserError(f"{place.path} holds another run; it is not overwritten ({told})")


def _check_data(run: Experiment, spec: Spec) -> None:
    if empty := [split for split, size in spec.sizes.items() if not size]:
        raise ValueError(f"data: no samples are left for the {empty[0]} split")
    samples, most, batch = run.samples, spec.sizes["train"], run.trainer.batch_size
    if samples > most:
        raise ValueError(f"trainer.samples={samples} is more than the {most} training samples there are")
    if batch > samples:
        raise ValueError(f"trainer.batch_size={batch} is more than the {samples} training samples; at most {samples}")


FITTING = {"image": "cnn", "text": "lstm", "tabular": "mlp"}  # a model for each kind of data


def _check_kinds(run: Experiment, spec: Spec) -> None:
    """What only some kinds of data can be given to says so in its `kinds`."""
    model, sample, batch = run.model, run.augmentation.sample, run.augmentation.batch
    if spec.kind not in (kinds := getattr(model, "kinds", KINDS)):
        raise ValueError(
            f"model: {type(model).__name__} is for {' or '.join(kinds)} data, and this is {spec.kind}; "
            f"use model={FITTING[spec.kind]}"
        )
    if spec.kind not in (kinds := getattr(sample, "kinds", KINDS)):
        raise ValueError(
            f"augmentation.sample: {type(sample).__name__} is for {' or '.join(kinds)} data, and this is {spec.kind}; "
            "use augmentation/sample=none"
        )
    if spec.kind == "image":
        sample.resolved(spec)  # a value for each channel may not fit them
    if getattr(batch, "cutmix_alpha", 0) and spec.kind != "image":
        raise ValueError(
            f"augmentation.batch.cutmix_alpha: CutMix pastes boxes of images, and this data is {spec.kind}; "
            "use augmentation/batch=mixup"
        )


def _check_labels(run: Experiment, spec: Spec) -> None:
    """Everything that wants classes where the targets are real, at once."""
    if spec.num_classes:
        return
    wrong = {
        "augmentation/batch=none": spec.kind == "image" and not isinstance(run.augmentation.batch, NoMixing),
        "loss=mse": getattr(run.loss, "needs_classes", False),
        "regularization.label_smoothing=0": getattr(run.regularization, "label_smoothing", 0) > 0,
    }
    if any(wrong.values()):
        instead = " ".join(word for word, is_wrong in wrong.items() if is_wrong)
        keys = " and ".join(word.split("=")[0] for word, is_wrong in wrong.items() if is_wrong)
        raise ValueError(f"{keys}: made for class labels, and this data has real targets; use {instead}")


def _check_class_weights(run: Experiment, spec: Spec) -> None:
    weights = getattr(run.loss, "class_weights", ())
    if weights and len(weights) != spec.num_classes:
        raise ValueError(f"loss.class_weights has {len(weights)} factors, and the data has {spec.num_classes} classes")


def _check_schedule(run: Experiment) -> None:
    warmup, cooldown = (run.clock.fraction(getattr(run.schedule, name, 0.0)) for name in ("warmup", "cooldown"))
    if warmup + cooldown > 1:
        raise ValueError(
            f"schedule.warmup + schedule.cooldown = {warmup + cooldown:.3g} of the run; together at most 1"
        )
    try:
        run.rates()  # a user's own function may fail at any step
    except UserError as error:
        raise ValueError(str(error)) from error


def _check_replicas(run: Experiment) -> None:
    if type(run.strategy) is Single:
        return
    if run.trainer.jit is True:
        raise ValueError("trainer.jit=true: XLA cannot compile a loop over several replicas; use trainer.jit=auto")
    try:
        run.check_batch(run.strategy.replicas() or 1)
    except UserError as error:
        raise ValueError(str(error)) from error


def _check_callbacks(run: Experiment, spec: Spec) -> None:
    known = [f"val/{name}" for name in metric.names(spec)]
    for name, callback in run.callback.items():
        monitor = getattr(callback, "monitor", known[0])
        if monitor not in known:
            raise ValueError(f"callback.{name}.monitor={monitor} is not evaluated; choose one of {', '.join(known)}")
    for kind in (Checkpoint, Plateau):  # the best weights, and what is left of the rate, are one of each
        several = [name for name, callback in run.callback.items() if isinstance(callback, kind)]
        if len(several) > 1:
            raise ValueError(f"callback.{several[1]}: callback.{several[0]} is a {kind.__name__} already")
