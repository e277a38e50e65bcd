"""What all tables share: how rows are cut into splits, and how columns become the inputs of a model.

An encoding is fitted on the training rows alone, and a run keeps it in `data.json`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from descent import seeds
from descent.data import csv_file
from descent.data.arrays import Arrays, Pair, Splitting, cut, share_of
from descent.data.csv_file import Sheet
from descent.data.raw_texts import SEPARATORS
from descent.data.remembered import FILE, content
from descent.data.verified import few
from descent.folder import write_atomic
from descent.types import SPLITS, Share, Spec, Split, UserError, part


@dataclasses.dataclass(frozen=True)
class Numeric:
    """A column of numbers: a missing one becomes the mean, and where training rows miss some, an input says so.

    Attributes:
        mean, std: of the training rows; a column of one value has the deviation 1.
        flagged: whether there is an input that is 1 where the value is missing.
    """

    name: str
    mean: float
    std: float
    flagged: bool

    @property
    def features(self) -> tuple[str, ...]:
        return (self.name, f"{self.name} is missing") if self.flagged else (self.name,)

    @property
    def scales(self) -> list[tuple[float, float]]:
        """Mean and deviation of each input."""
        return [(self.mean, self.std), *([(0.0, 1.0)] if self.flagged else [])]

    def read(self, sheet: Sheet) -> np.ndarray:
        """Its values in a file, NaN where missing."""
        values = csv_file.numbers(sheet, self.name, wanted=True)
        assert values is not None
        return values

    def encode(self, values: np.ndarray) -> np.ndarray:
        missing = np.isnan(values)
        filled = np.where(missing, self.mean, values)
        return np.stack([filled, missing] if self.flagged else [filled], axis=1)


@dataclasses.dataclass(frozen=True)
class Categorical:
    """A column of words: one input for each category of the training rows; a word that is none of them gives zeros."""

    name: str
    categories: tuple[str, ...]

    @property
    def features(self) -> tuple[str, ...]:
        return tuple(f"{self.name}={category or 'missing'}" for category in self.categories)

    @property
    def scales(self) -> list[tuple[float, float]]:
        return [(0.0, 1.0)] * len(self.categories)

    def read(self, sheet: Sheet) -> np.ndarray:
        """Its words in a file, empty where missing."""
        cells = sheet.columns[self.name]
        return np.where(csv_file.missing(cells), "", cells).astype(object)

    def encode(self, values: np.ndarray) -> np.ndarray:
        return values[:, None] == np.array(self.categories, dtype=object)


Column = Numeric | Categorical


def numeric(name: str, values: np.ndarray) -> Numeric:
    """Fitted on training values [m], NaN where missing."""
    known = values[~np.isnan(values)].astype(np.float64)
    spread = float(known.std()) if len(np.unique(known)) > 1 else 1.0  # that of equal decimals is rounding, and not 0
    return Numeric(name, float(known.mean()), spread, len(known) < len(values))


def categorical(name: str, values: np.ndarray, most: int) -> Categorical:
    """Fitted on training words [m]: the `most` frequent ones, in alphabetical order; a missing one is a word too."""
    words, counts = np.unique(values.astype(str), return_counts=True)
    kept = np.argsort(-counts, kind="stable")[:most]
    return Categorical(name, tuple(sorted(words[kept].tolist())))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoding:
    """From columns to the inputs of a model, and what the target is.

    Attributes:
        target: name of the target.
        classes: its classes, or none where it is real.
        target_mean, target_std: of a real target that is standardised; else 0 and 1.
    """

    columns: tuple[Column, ...]
    target: str
    classes: tuple[str, ...] = ()
    target_mean: float = 0.0
    target_std: float = 1.0

    def encode(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """Inputs [m, f], float32, in the columns' own units; the model's first layer standardises them."""
        return np.concatenate([c.encode(values[c.name]) for c in self.columns], axis=1).astype(np.float32)

    def standardizing(self, train: np.ndarray) -> Encoding:
        """The same, with the mean and deviation of a real target's training values."""
        return dataclasses.replace(self, target_mean=float(train.mean()), target_std=float(train.std()))

    def spec(self, sizes: Mapping[Split, int]) -> Spec:
        scales = [pair for column in self.columns for pair in column.scales]
        return Spec(
            kind="tabular",
            shape=(len(scales),),
            sizes=sizes,
            num_classes=len(self.classes) or None,
            class_names=self.classes,
            mean=tuple(mean for mean, _ in scales),
            std=tuple(std for _, std in scales),
            features=tuple(name for column in self.columns for name in column.features),
            target_mean=self.target_mean,
            target_std=self.target_std,
        )


def to_plain(encoding: Encoding) -> dict[str, Any]:
    return dataclasses.asdict(encoding)


def from_plain(content: Mapping[str, Any]) -> Encoding:
    columns = tuple(
        Categorical(c["name"], tuple(c["categories"])) if "categories" in c else Numeric(**c)
        for c in content["columns"]
    )
    return Encoding(**{**content, "columns": columns, "classes": tuple(content["classes"])})


@dataclasses.dataclass(frozen=True)
class Rows:
    """A table as read: `columns` by name (float64 with NaN, or words), `targets` [m] (labels or real values).

    Attributes:
        parts: the rows of each split.
        digest: tells one content from another.
        notes: what is worth a word, but no error.
    """

    encoding: Encoding
    columns: Mapping[str, np.ndarray]
    targets: np.ndarray
    parts: Mapping[Split, np.ndarray]
    digest: str
    notes: tuple[str, ...] = ()


@part
class Splits(Splitting):
    """Rows cut into splits by shares, stratified where there are classes.

    Attributes:
        validation: share of all rows cut out for validation; unused with `fold`.
        test: share of all rows cut out for the test.
    """

    validation: Share = 0.15
    test: Share = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fold is None and self.validation + self.test >= 1:
            raise ValueError(f"validation + test = {self.validation + self.test:g} should leave rows to train on")

    def sizes(self, total: int) -> dict[Split, int]:
        """Rows of each split, out of so many."""
        test = share_of(total - 1, self.test, total)
        validation = self.held(total - test, total)
        return {"train": total - validation - test, "validation": validation, "test": test}

    def parts(self, labels: np.ndarray) -> dict[Split, np.ndarray]:
        """The rows of each split, in order; `labels` (all the same, for real targets) are spread evenly."""
        rng = seeds.host(self.split_seed, "split")
        test = cut(labels, self.sizes(len(labels))["test"], rng)
        return self._without(labels, test, rng, len(labels))

    def parts_beside(self, labels: np.ndarray, test: np.ndarray) -> dict[Split, np.ndarray]:
        """The same where the rows of the test are given: validation is a share of the others."""
        return self._without(labels, np.isin(np.arange(len(labels)), test), seeds.host(self.split_seed, "split"))

    def _without(
        self, labels: np.ndarray, test: np.ndarray, rng: np.random.Generator, of: int | None = None
    ) -> dict[Split, np.ndarray]:
        rest = np.flatnonzero(~test)
        held = self.hold(labels[rest], rng, of)
        return {"train": rest[~held], "validation": rest[held], "test": np.flatnonzero(test)}


@part
class Table(Splits):
    """A table that is read and whose encoding is fitted on its training rows."""

    def rows(self) -> Rows:
        """Reads the table and fits its encoding."""
        raise NotImplementedError

    @property
    def read(self) -> Rows | None:
        """What was read, once it was."""
        return self.__dict__.get("_read")

    def prepare(self) -> Rows:
        """Reads and fits, once; with what a run kept, the encoding is that one's.

        Raises:
            UserError: the table is not the one that the run was made with.
        """
        if self.read is None:
            rows, kept = self.rows(), self.__dict__.get("_kept")
            if kept is not None and kept["digest"] != rows.digest:
                raise UserError("data: the table is not the one this run was made with: its splits would be others")
            encoding = rows.encoding if kept is None else from_plain(kept["encoding"])
            self.__dict__["_read"] = dataclasses.replace(rows, encoding=encoding)
        return self.__dict__["_read"]

    def digest(self) -> str:
        return self.prepare().digest

    def keep(self, folder: Path) -> None:
        """Writes `data.json` into the folder of a run: everything that was fitted."""
        rows = self.prepare()
        kept = {"digest": rows.digest, "encoding": to_plain(rows.encoding)}
        write_atomic(folder / FILE, json.dumps(kept, indent=1, ensure_ascii=False) + "\n")

    def kept(self, folder: Path) -> Table:
        """The same table with the encoding that a run kept; itself where there is none."""
        if not (folder / FILE).exists():
            return self
        other = dataclasses.replace(self)
        other.__dict__["_kept"] = content(folder)
        return other

    def encode_file(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """The lines [m] and the inputs [m, f] of the rows of a CSV file, which may have more columns than are used.

        Raises:
            UserError: a column is missing, or a cell of one of numbers is none.
        """
        kept = self.__dict__.get("_kept")
        encoding = from_plain(kept["encoding"]) if kept else self.prepare().encoding
        separator = SEPARATORS.get(path.suffix.lower(), "auto")
        sheet = csv_file.read("inputs", str(path), getattr(self, "encoding", "utf-8"), separator)
        if lacking := [column.name for column in encoding.columns if column.name not in sheet.columns]:
            raise UserError(f"inputs={path}: there is no column {few(lacking)}")
        values = {column.name: column.read(sheet) for column in encoding.columns}
        return sheet.lines, encoding.encode(values)

    def open(self) -> Arrays:
        rows = self.prepare()
        for note in rows.notes:
            print(f"data: {note}", flush=True)
        inputs = rows.encoding.encode(rows.columns)
        splits: dict[Split, Pair] = {s: (inputs[rows.parts[s]], rows.targets[rows.parts[s]]) for s in SPLITS}
        return Arrays(self.spec, splits)

    @property
    def spec(self) -> Spec:
        rows = self.prepare()
        return rows.encoding.spec({split: len(rows.parts[split]) for split in SPLITS})
