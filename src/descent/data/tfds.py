"""Any image classification set of tensorflow-datasets that is prepared on this machine."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from etils import epy

from descent import wording
from descent.data.arrays import Arrays
from descent.data.decoding import Fit, OpenContents, Samples
from descent.data.image_folder import MEAN, STD, SplittingFiles
from descent.types import SPLITS, Counts, Flag, Numbers, Spec, Split, UserError, Weights, part

with epy.lazy_imports():
    import tensorflow as tf

IN_MEMORY = 2**28  # bytes of pixels; a set of fewer is decoded once, a larger one is decoded as it is used
BATCH = 256  # images decoded at once
OWN: Mapping[Split, str] = {"train": "train", "validation": "validation", "test": "test"}


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What the files of a prepared set say of it.

    Attributes:
        folder: with its files.
        counts: images in each of its splits.
        image, label: the names of its features.
        shape: rows, columns and channels; None where they vary.
    """

    folder: Path
    counts: Mapping[str, int]
    image: str
    label: str
    shape: tuple[int | None, ...]
    class_names: tuple[str, ...]


@part
class Tfds(SplittingFiles):
    """An image set of tensorflow-datasets by name, with one image and one class label a sample.

    What is on the disk says all that is checked when the config is; nothing is downloaded by a run. The set's splits
    `train`, `validation` and `test` are used where it has them; others are cut out of `train`, stratified.
    A small set is decoded once; the files of a larger one are held in memory as they are, and decoded as they are used.

    Attributes:
        name: the set, with its config and version where there are several: `mnist`, `mnist:3.0.1`, `set/config:1.0.0`.
        path: the folder of prepared sets; None: TFDS_DATA_DIR, else `~/tensorflow_datasets`.
        size: rows and columns an image is brought to, aspect kept; None: the set's own, where all images have one.
        fit: crop: the middle of the image fills the size; pad: all of the image, with black at its sides.
        validation: share of the training images cut out for validation, where the set has no such split.
        test: share of the training images cut out for the test, where the set has no such split.
        mean, std: of values in [0, 1], per channel; None: ImageNet's.
        mirrors: whether a left-right mirror image keeps its label.

    Raises:
        UserError: the package or the set is missing, or the set is not of images with class labels.
    """

    name: str | None = None
    path: str | None = None
    size: Counts | None = None
    fit: Fit = "crop"
    mean: Numbers | None = None
    std: Weights | None = None
    mirrors: Flag = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name is None:
            raise ValueError("name is null; name a set of tensorflow-datasets: data.name=mnist")
        if self.size is not None and len(self.size) != 2:
            raise ValueError(f"size={list(self.size)} should be rows and columns")

    @property
    def root(self) -> Path:
        return Path(self.path or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser().absolute()

    @cached_property
    def prepared(self) -> Prepared:
        if importlib.util.find_spec("tensorflow_datasets") is None:
            raise UserError(
                "data=tfds needs a package that is not installed: pip install tensorflow-datasets importlib-resources"
            )
        return read(_folder(str(self.name), self.root), str(self.name))

    @property
    def spec(self) -> Spec:
        shape, counts = (
            self._shape(),
            {split: n for split, name in OWN.items() if (n := self.prepared.counts.get(name))},
        )
        if self.fold is not None and "validation" in counts:
            raise UserError(f"data.fold={self.fold} cuts the training images, but the set has a validation split")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != shape[-1]:
                raise UserError(f"data.{name} has {len(values)} numbers for {shape[-1]} channels")
        return Spec(
            kind="image",
            shape=shape,
            sizes=self.split_sizes(counts),
            num_classes=len(self.prepared.class_names),
            class_names=self.prepared.class_names,
            scale=1 / 255,
            mean=self.mean or MEAN[shape[-1]],
            std=self.std or STD[shape[-1]],
            mirrors=self.mirrors,
        )

    def _shape(self) -> tuple[int, int, int]:
        rows, columns, channels = self.prepared.shape
        channels = 1 if channels == 1 else 3
        if self.size is not None:
            return self.size[0], self.size[1], channels
        if rows is None or columns is None:
            raise UserError(f"data.name={self.name}: its images have many sizes; say which to bring them to: data.size")
        return rows, columns, channels

    def open(self) -> Arrays | OpenContents:
        spec = self.spec
        given = {split: _samples(self.prepared, name) for split, name in OWN.items() if name in self.prepared.counts}
        contents = OpenContents(spec, self.split_up(given), self.fit)
        small = sum(spec.sizes.values()) * int(np.prod(spec.shape)) <= IN_MEMORY
        return Arrays(spec, {split: _decoded(contents, split) for split in SPLITS}) if small else contents


def _decoded(contents: OpenContents, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """All images and labels of a split."""
    gather = tf.function(lambda indices: contents.gather(split, indices), autograph=False, reduce_retracing=True)
    indices = tf.range(contents.spec.sizes[split], dtype=tf.int64)
    parts = [gather(indices[first : first + BATCH]) for first in range(0, len(indices), BATCH)]
    images, labels = zip(*parts, strict=True)
    return np.concatenate(images), np.concatenate(labels)


# --- what is on the disk -----------------------------------------------------------------------------------------


def _folder(name: str, root: Path) -> Path:
    """The folder of a prepared set: its newest version where none is named."""
    base, _, version = name.partition(":")
    found = [path.parent for path in (root / base).glob("*/dataset_info.json")]
    found += [path.parent for path in (root / base).glob("*/*/dataset_info.json")] if "/" not in base else []
    versions = sorted((path for path in found if not version or path.name == version), key=_version)
    if not versions:
        prepared = [path.name for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
        near = wording.close(base, prepared) if base not in prepared else ""
        raise UserError(f"data.name={name} is not prepared in {root}{near}{'' if near.endswith('?') else _how(name)}")
    if len(configs := {path.parent.name for path in versions}) > 1:
        raise UserError(f"data.name={name} has several configs; name one: {base}/{min(configs)}")
    return versions[-1]


def _version(path: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path.name)]


def _how(name: str) -> str:
    prepare = f"import tensorflow_datasets as t; t.builder('{name}').download_and_prepare()"
    return f'; where there is a network: python -c "{prepare}"'


def read(folder: Path, name: str) -> Prepared:
    """What the files in the folder of a prepared set say.

    Raises:
        UserError: they are damaged, or the set has no image with a class label.
    """
    try:
        info = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
        features = json.loads((folder / "features.json").read_text(encoding="utf-8"))["featuresDict"]["features"]
        counts = {split["name"]: sum(map(int, split["shardLengths"])) for split in info["splits"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"data.name={name}: {folder} is damaged ({error})") from error
    pair = [item["featureKey"] for item in info.get("supervisedKeys", {}).get("tuple", {}).get("items", [])]
    images = [key for key in (*pair, *features) if "image" in features.get(key, {})]
    labels = [key for key in (*pair, *features) if "classLabel" in features.get(key, {})]
    if not images or not labels or "train" not in counts:
        raise UserError(f"data.name={name}: not a set of images with one class label each and a train split")
    dimensions = [int(size) for size in features[images[0]]["image"]["shape"]["dimensions"]]
    classes = int(features[labels[0]]["classLabel"]["numClasses"])
    shape = tuple(n if n > 0 else None for n in dimensions)
    return Prepared(folder, counts, images[0], labels[0], shape, _names(folder, labels[0], classes))


def _names(folder: Path, label: str, classes: int) -> tuple[str, ...]:
    """Of the classes, where the set names them; else their numbers."""
    file = folder / f"{label}.labels.txt"
    names = tuple(file.read_text(encoding="utf-8").split("\n")) if file.is_file() else ()
    return tuple(name for name in names if name) if any(names) else tuple(map(str, range(classes)))


def _samples(prepared: Prepared, split: str) -> Samples:
    """A split's encoded images and labels, in the order of its files."""
    contents, labels = [], []
    for sample in _records(prepared, split):
        contents.append(sample[prepared.image])
        labels.append(sample[prepared.label])
        if labels[-1] < 0:
            raise UserError(f"data.name={prepared.folder.parts[-2]}: samples of its split {split} have no label")
    encoded = np.empty(len(contents), object)  # NumPy's own bytes would lose zeros at their end
    encoded[:] = contents
    return Samples(encoded, np.array(labels, np.int32), np.ones(len(labels), np.int32))


def _records(prepared: Prepared, split: str) -> Iterator[Mapping[str, Any]]:
    """The samples of a split, their images not decoded."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(prepared.folder)
    decoders = {prepared.image: tfds.decode.SkipDecoding()}
    if builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD:
        source = builder.as_data_source(split, decoders=decoders)
        yield from (source[i] for i in range(len(source)))
    else:
        order = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
        data = builder.as_dataset(split=split, decoders=decoders, read_config=order, shuffle_files=False)
        yield from data.as_numpy_iterator()
