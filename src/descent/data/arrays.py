"""Sources that fit in memory: NumPy arrays, gathered inside the graph; and how samples are cut into splits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
from etils import epy
from pydantic import Field

from descent import seeds
from descent.types import SPLITS, Count, Counts, NonNegative, Share, Spec, Split, UserError, Whole, part

with epy.lazy_imports():
    import tensorflow as tf

Pair = tuple[np.ndarray, np.ndarray]


class Arrays:
    """An open source in memory: raw elements and targets of each split.

    Raises:
        UserError: a split has another size or element shape than the config declares.
    """

    def __init__(self, spec: Spec, splits: Mapping[Split, Pair]) -> None:
        for split, (inputs, targets) in splits.items():
            if len(inputs) != spec.sizes[split] or inputs.shape[1:] != spec.shape or len(targets) != len(inputs):
                raise UserError(
                    f"data: the {split} split has {len(targets)} samples of shape {inputs.shape[1:]}, "
                    f"not the {spec.sizes[split]} of shape {spec.shape} that are declared"
                )
        with tf.device("CPU"):
            self.splits = {split: (tf.constant(x), tf.constant(y)) for split, (x, y) in splits.items()}

    def gather(self, split: Split, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Raw elements [m, ...] and targets [m] at `indices` [m]."""
        inputs, targets = self.splits[split]
        return tf.gather(inputs, indices), tf.gather(targets, indices)


def lined_up(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The samples shuffled, then lined up by class: int [m]. Every r-th of them is a stratified sample."""
    shuffled = rng.permutation(len(labels))
    return shuffled[np.argsort(labels[shuffled], kind="stable")]


def cut(labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Mark exactly `count` samples, spread over the classes in proportion (systematic sampling): bool [m].

    The samples are shuffled, lined up by class, and every (m / count)-th is taken, so each class gets its
    share to within one sample.
    """
    line = lined_up(labels, rng)
    ticks = np.arange(len(labels) + 1) * count // max(1, len(labels))
    taken = np.zeros(len(labels), bool)
    taken[line[np.diff(ticks) > 0]] = True
    return taken


def share_of(total: int, share: float, of: int | None = None) -> int:
    """That share of `of` samples (all of them by default), rounded; of `total` at least one, and not all."""
    return min(total - 1, max(1, round((of or total) * share)))


@part
class Splitting:
    """How the validation split is cut out of the training samples, stratified.

    With `fold`, it is one of `folds` parts of (almost) equal size instead: every sample is in exactly one of them,
    and each class is spread over them to within one sample (stratified k-fold, Kohavi 1995).

    Attributes:
        validation: share of the training samples cut out for validation; unused with `fold`.
        split_seed: which cut; apart from the run's seed, so that runs with different seeds compare.
        fold: which of the folds is the validation split, from 0; None: cut by `validation`.
        folds: number of folds.
    """

    validation: Share = 0.1
    split_seed: Whole = 0
    fold: Whole | None = None
    folds: Annotated[Count, Field(ge=2)] = 5

    def __post_init__(self) -> None:
        if self.fold is not None and self.fold >= self.folds:
            raise ValueError(f"fold={self.fold} should be below folds={self.folds}: they are numbered from 0")

    def held(self, total: int, of: int | None = None) -> int:
        """How many of `total` samples the validation split takes; its share is of `of`, or of `total`."""
        if self.fold is None:
            return share_of(total, self.validation, of)
        return len(range(self.fold, total, self.folds))

    def hold(self, labels: np.ndarray, rng: np.random.Generator, of: int | None = None) -> np.ndarray:
        """Mark the `held(m, of)` samples of the validation split: bool [m]."""
        if self.fold is None:
            return cut(labels, self.held(len(labels), of), rng)
        held = np.zeros(len(labels), bool)
        held[lined_up(labels, rng)[self.fold :: self.folds]] = True
        return held


def divide(pair: Pair, taken: np.ndarray) -> tuple[Pair, Pair]:
    """The samples that are not marked, and those that are."""
    return (pair[0][~taken], pair[1][~taken]), (pair[0][taken], pair[1][taken])


@part
class Digits(Splitting):
    """Scikit-learn's handwritten digits: 1,797 images of 8x8 in 17 greys, shipped with the library.

    Attributes:
        validation: share of all samples cut out for validation, stratified; unused with `fold`.
        test: share of all samples cut out for the test, stratified.
    """

    validation: Share = 0.15
    test: Share = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fold is None and self.validation + self.test >= 1:
            raise ValueError(f"validation + test = {self.validation + self.test:g} should leave samples to train on")

    @property
    def spec(self) -> Spec:
        total = 1797
        test = share_of(total, self.test)
        validation = self.held(total - test, total)
        return Spec(
            kind="image",
            shape=(8, 8, 1),
            sizes={"train": total - validation - test, "validation": validation, "test": test},
            num_classes=10,
            class_names=tuple("0123456789"),
            scale=1 / 16,
            mean=(0.305,),
            std=(0.376,),
            mirrors=False,
        )

    def open(self) -> Arrays:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        pair = bunch.images.astype(np.uint8)[..., None], bunch.target.astype(np.int32)
        sizes, rng = self.spec.sizes, seeds.host(self.split_seed, "split")
        rest, test = divide(pair, cut(pair[1], sizes["test"], rng))
        train, validation = divide(rest, self.hold(rest[1], rng, len(pair[1])))
        return Arrays(self.spec, {"train": train, "validation": validation, "test": test})


@part
class Synthetic:
    """Made images: a random prototype for each class under Gaussian noise, or a real target linear in the pixels.

    Attributes:
        shape: rows, columns and channels.
        num_classes: number of classes; None for one real target.
        samples: training samples; validation and test have a quarter as many each.
        noise: standard deviation of the noise, in units of a prototype's own spread.
        data_seed: which prototypes and noise.
    """

    shape: Counts = (8, 8, 1)
    num_classes: Count | None = 10
    samples: Count = 1024
    noise: NonNegative = 1.0
    data_seed: Whole = 0

    def __post_init__(self) -> None:
        if len(self.shape) != 3:
            raise ValueError(f"shape {self.shape} should be rows, columns and channels")

    @property
    def spec(self) -> Spec:
        rest = max(1, self.samples // 4)
        return Spec(
            kind="image",
            shape=self.shape,
            sizes={"train": self.samples, "validation": rest, "test": rest},
            num_classes=self.num_classes,
            class_names=tuple(str(i) for i in range(self.num_classes or 0)),
            scale=1 / 255,
            mean=(0.5,) * self.shape[-1],
            std=(0.2,) * self.shape[-1],
            mirrors=False,
        )

    def open(self) -> Arrays:
        rng = seeds.host(self.data_seed, "split")
        prototypes = rng.standard_normal((self.num_classes or 1, *self.shape))
        made = {split: self._make(rng, prototypes, self.spec.sizes[split]) for split in SPLITS}
        return Arrays(self.spec, made)

    def _make(self, rng: np.random.Generator, prototypes: np.ndarray, count: int) -> Pair:
        noise = rng.standard_normal((count, *self.shape)) * self.noise
        if self.num_classes is None:
            targets = (noise * prototypes[0]).mean(axis=(1, 2, 3)).astype(np.float32)
            values = noise
        else:
            targets = rng.integers(0, self.num_classes, count).astype(np.int32)
            values = prototypes[targets] + noise
        return np.clip(127.5 + 25 * values, 0, 255).astype(np.uint8), targets
