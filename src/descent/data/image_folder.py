"""Photographs in a folder for each class, decoded in the pipeline."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple, Self

import numpy as np

from descent import seeds
from descent.data.arrays import Splitting, cut, share_of
from descent.data.decoding import Fit, OpenFolder, Samples
from descent.data.remembered import FILE, content
from descent.data.verified import File, Finding, few, findings, listed, readable
from descent.folder import write_atomic
from descent.types import SPLITS, Counts, Flag, Fraction, Numbers, Share, Spec, Split, UserError, Weights, part

NAMES: Mapping[Split, tuple[str, ...]] = {"validation": ("validation", "val", "valid"), "test": ("test",)}
# ImageNet's, per channel of values in [0, 1]; grey is their luma.
MEAN, STD = {3: (0.485, 0.456, 0.406), 1: (0.459,)}, {3: (0.229, 0.224, 0.225), 1: (0.226,)}

Row = tuple[Split, int, File]  # whose split, which class


class Index(NamedTuple):
    """The readable files of a folder, what was left out, and a digest by which a change is seen."""

    class_names: tuple[str, ...]
    splits: dict[Split, Samples]
    bad: tuple[str, ...]
    digest: str


@part
class SplittingFiles(Splitting):
    """The same for files, with a test split cut out too, where a set has none of its own.

    Attributes:
        validation: share of all images cut out for validation, stratified; unused with `fold`.
        test: share of all images cut out for the test, stratified.
    """

    test: Share = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fold is None and self.validation + self.test >= 1:
            raise ValueError(f"validation + test = {self.validation + self.test:g} should leave images to train on")

    def split_up(self, given: Mapping[Split, Samples]) -> dict[Split, Samples]:
        """All three splits: the given ones, and the others cut out of the training images."""
        train, rng = given["train"], seeds.host(self.split_seed, "split")
        total = len(train.labels)
        splits = dict(given)
        if "test" not in splits:
            taken = cut(train.labels, share_of(total - 1, self.test, total), rng)
            train, splits["test"] = train.at(~taken), train.at(taken)
        if "validation" not in splits:
            taken = self.hold(train.labels, rng, total)
            train, splits["validation"] = train.at(~taken), train.at(taken)
        return splits | {"train": train}

    def split_sizes(self, counts: Mapping[Split, int]) -> dict[Split, int]:
        """What `split_up` will make of splits of so many samples."""
        sizes, total = dict(counts), counts["train"]
        if "test" not in sizes:
            sizes["test"] = share_of(total - 1, self.test, total)
            sizes["train"] -= sizes["test"]
        if "validation" not in sizes:
            sizes["validation"] = self.held(sizes["train"], total)
            sizes["train"] -= sizes["validation"]
        return {split: sizes[split] for split in SPLITS}


@part
class ImageFolder(SplittingFiles):
    """JPEG and PNG files, a folder for each class: `path/cat/1.jpg`, or `path/train/cat/1.jpg` and so on.

    With a folder `train` beside `validation` (or `val`) and `test`, those are the splits, and one that is missing is
    cut out of `train`; else all images are cut by the shares, stratified. Every file is decoded once when the config
    is checked (later only new and changed ones); files that cannot be decoded are left out, and named when the
    source opens. EXIF orientations are honoured, palettes expanded, transparency is dropped.

    Attributes:
        path: the folder.
        size: rows and columns an image is brought to, aspect kept (bilinear, antialiased).
        fit: crop: the middle of the image fills the size; pad: all of the image, with black at its sides.
        channels: 3 for colour, 1 for grey (ITU-R BT.601 luma).
        validation: share of all images cut out for validation, stratified; unused with `fold`.
        test: share of all images cut out for the test, stratified.
        balanced: repeat the training images of smaller classes until an epoch shows each class equally often.
        max_bad: share of unreadable files above which it is an error.
        mean, std: of values in [0, 1], per channel; None: ImageNet's.
        mirrors: whether a left-right mirror image keeps its label.

    Raises:
        UserError: the folder is missing, or has fewer than two classes, three images in a class, or too many bad files.
    """

    path: str | None = None
    size: Counts = (128, 128)
    fit: Fit = "crop"
    channels: Literal[1, 3] = 3
    balanced: Flag = False
    max_bad: Fraction = 0.05
    mean: Numbers | None = None
    std: Weights | None = None
    mirrors: Flag = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path is None:
            raise ValueError(
                "path is null; name the folder that has a folder of images for each class: data.path=FOLDER"
            )
        if len(self.size) != 2:
            raise ValueError(f"size={list(self.size)} should be rows and columns")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != self.channels:
                raise ValueError(f"{name} has {len(values)} numbers for {self.channels} channels")

    @property
    def root(self) -> Path:
        return Path(self.path or "").expanduser().absolute()

    @property
    def spec(self) -> Spec:
        index = self.index
        return Spec(
            kind="image",
            shape=(*self.size, self.channels),
            sizes={split: len(samples.labels) for split, samples in index.splits.items()},
            num_classes=len(index.class_names),
            class_names=index.class_names,
            scale=1 / 255,
            mean=self.mean or MEAN[self.channels],
            std=self.std or STD[self.channels],
            mirrors=self.mirrors,
        )

    def open(self) -> OpenFolder:
        if bad := self.index.bad:
            print(f"data: {len(bad)} unreadable files of {self.root} are left out: {few(bad)}", flush=True)
        if self.__dict__.get("_kept", self.digest()) != self.digest():
            print(f"data: the files of {self.root} are others than this run had: its splits were others", flush=True)
        return OpenFolder(self.spec, self.index.splits, self.fit)

    # --- what is kept with a run ---

    def digest(self) -> str:
        return self.index.digest

    def prepare(self) -> None:
        _ = self.index

    def keep(self, folder: Path) -> None:
        """Writes `data.json` into the folder of a run: the digest of its files."""
        write_atomic(folder / FILE, json.dumps({"digest": self.digest()}) + "\n")

    def kept(self, folder: Path) -> Self:
        """The same folder, which then says where its files are others than those of a run."""
        if not (folder / FILE).exists():
            return self
        other = dataclasses.replace(self)
        other.__dict__["_kept"] = content(folder)["digest"]
        return other

    @cached_property
    def index(self) -> Index:
        """The files of each split. Fixed once found, so that a batch stays a function of the step."""
        names, places = self._found()
        if len(names) < 2:
            raise UserError(f"data.path={self.path}: {places['train']} has {len(names)} folders; at least 2 classes")
        bad, given, digest = _readable(self.root, names, places, self.max_bad)
        _check_classes(self.root, names, given["train"].labels)
        splits = self.split_up(given)
        if self.balanced:
            splits["train"] = splits["train"].at(balanced(splits["train"].labels))
        return Index(names, splits, bad, digest)

    def _found(self) -> tuple[tuple[str, ...], dict[Split, Path]]:
        """The names of the classes, and the folder of each split that has one."""
        if not self.root.is_dir():
            raise UserError(f"data.path={self.path}: there is no such folder")
        train = self.root / "train"
        if not (train.is_dir() and _folders(train)):
            return _folders(self.root), {"train": self.root}
        places: dict[Split, Path] = {"train": train}
        for split, names in NAMES.items():
            for place in [self.root / name for name in names if (self.root / name).is_dir()][:1]:
                places[split] = place
        if self.fold is not None and "validation" in places:
            raise UserError(f"data.fold={self.fold} cuts the training images, but there is {places['validation']}")
        return _folders(train), places


def _folders(place: Path) -> tuple[str, ...]:
    try:
        return tuple(sorted(each.name for each in place.iterdir() if each.is_dir() and not each.name.startswith(".")))
    except OSError as error:
        raise UserError(f"data: {place} cannot be listed ({error.strerror})") from error


def _readable(
    root: Path, names: tuple[str, ...], places: Mapping[Split, Path], max_bad: float
) -> tuple[tuple[str, ...], dict[Split, Samples], str]:
    """The bad files in words, the good ones of each split that has a folder, and a digest of these."""
    for split, place in places.items():
        if strange := sorted(set(_folders(place)) - set(names)):
            raise UserError(f"data.path={root}: class {strange[0]} of the {split} split has no folder in train")
    rows: list[Row] = [
        (split, label, file)
        for split, place in places.items()
        for label, name in enumerate(names)
        for file in listed(place / name)
    ]
    found = findings(root, [file for _, _, file in rows])
    bad = tuple(
        f"{readable(os.path.relpath(file.path, root))} ({what})"
        for (_, _, file), what in zip(rows, found, strict=True)
        if isinstance(what, str)
    )
    if len(bad) > max_bad * len(rows):
        raise UserError(
            f"data.path={root}: {len(bad)} of {len(rows)} files are unreadable, more than data.max_bad={max_bad:g} "
            f"of them: {few(bad)}"
        )
    return bad, {split: _samples(root, split, rows, found) for split in places}, _digest(root, rows, found)


def _digest(root: Path, rows: list[Row], found: list[Finding]) -> str:
    """Of the good files' names, sizes and orientations; not of times, which a copy of the folder does not keep."""
    both = zip(rows, found, strict=True)
    files = [(os.path.relpath(file.path, root), file.size, what) for (*_, file), what in both if isinstance(what, int)]
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()[:16]


def _samples(root: Path, split: Split, rows: list[Row], found: list[Finding]) -> Samples:
    good = [
        (file.path, label, what)
        for (own, label, file), what in zip(rows, found, strict=True)
        if own == split and isinstance(what, int)
    ]
    if not good:
        raise UserError(f"data.path={root}: the {split} split has no readable images")
    paths, labels, orientations = zip(*sorted(good), strict=True)
    return Samples(np.array(paths), np.array(labels, np.int32), np.array(orientations, np.int32))


def _check_classes(root: Path, names: tuple[str, ...], labels: np.ndarray) -> None:
    for name, count in zip(names, np.bincount(labels, minlength=len(names)), strict=True):
        if count < 3:
            raise UserError(f"data.path={root}: class {name} has {count} readable JPEG or PNG images; at least 3")


def balanced(labels: np.ndarray) -> np.ndarray:
    """Which samples make every class as large as the largest, each used equally often to within one: int [m]."""
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    most = max(len(own) for own in members)
    return np.concatenate([np.resize(own, most) for own in members])
