"""Any table in a CSV file: columns of numbers and of words, missing values, the target by name."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field

from descent.data.csv_file import Sheet, missing, numbers, read
from descent.data.table import Categorical, Column, Encoding, Numeric, Rows, Table, categorical, numeric
from descent.data.verified import few
from descent.types import Count, Flag, Fraction, Names, Split, UserError, part
from descent.wording import close

FEW = 20  # whole numbers of at most so many values are classes where `task` does not say


class Read(NamedTuple):
    """The rows that have a target: their numbers in the sheet, and the cells or values of the target."""

    rows: np.ndarray
    target: np.ndarray


@part
class CsvTable(Table):
    """A CSV or TSV file with a header; the target is one of its columns.

    A column whose cells are numbers is standardised, one of words becomes an input for each word, and a missing cell
    (empty, NA, NaN, null, None or ?) the column's mean beside an input that says so, or a word of its own. All this
    is fitted on the training rows. Rows without a target are left out, and counted.

    Attributes:
        path: the file.
        target: name of the column to predict.
        task: classification or regression; auto: classes where the target is words, or whole numbers of at most 20
            values.
        categorical: columns of numbers that are names of something (post codes, say).
        drop: columns that are left out.
        test_path: a file of the same columns with the test rows; None: cut by `test`.
        separator: between cells; auto: the most frequent of , ; tab and | in the header.
        encoding: of the file.
        max_categories: words of a column that get an input of their own, the most frequent ones.
        max_bad: share of rows without a target above which it is an error.
        standardize_target: let the loss see a real target in standard deviations from its mean, both of the training
            rows; outputs and metrics stay in its own unit.

    Raises:
        UserError: the file, a row or a cell is wrong; with its row and column.
    """

    path: str | None = None
    target: str | None = None
    task: Literal["auto", "classification", "regression"] = "auto"
    categorical: Names = ()
    drop: Names = ()
    test_path: str | None = None
    separator: Annotated[str, Field(pattern=r"^(auto|.|\t)$")] = "auto"
    encoding: str = "utf-8"
    max_categories: Count = 64
    max_bad: Fraction = 0.05
    standardize_target: Flag = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path is None:
            raise ValueError("path is null; name the file: data.path=FILE.csv")
        if self.target is None:
            raise ValueError("target is null; name the column to predict: data.target=COLUMN")

    def rows(self) -> Rows:
        sheet, tested = self._sheet()
        self._check_names(sheet)
        values, real = self._target(sheet)
        known = ~(np.isnan(values) if real else missing(values))
        notes = self._without_target(sheet, known)
        rows = np.flatnonzero(known)
        targets, classes = (values[rows].astype(np.float32), ()) if real else self._labels(sheet, rows, values[rows])
        parts = self._parts(sheet, rows, targets, classes, tested)
        cells, columns, more = self._columns(sheet, rows, parts["train"])
        encoding = Encoding(columns=columns, target=str(self.target), classes=classes)
        if real:
            self._check_spread(sheet, targets[parts["train"]])
            if self.standardize_target:
                encoding = encoding.standardizing(values[rows][parts["train"]].astype(np.float64))
        seen = _unseen(columns, cells, parts)
        return Rows(encoding, cells, targets, parts, sheet.digest, (*notes, *more, *seen))

    def _sheet(self) -> tuple[Sheet, int]:
        """The file's sheet, that of `test_path` below it, and how many rows those are."""
        sheet = read("data.path", str(self.path), self.encoding, self.separator)
        if self.test_path is None:
            return sheet, 0
        own = read("data.test_path", self.test_path, self.encoding, self.separator)
        for one, other in ((sheet, own), (own, sheet)):
            if lacking := [name for name in one.columns if name not in other.columns]:
                raise UserError(f"{other.where}: column {lacking[0]} of {one.where} is missing")
        columns = {name: np.concatenate([cells, own.columns[name]]) for name, cells in sheet.columns.items()}
        lines = np.concatenate([sheet.lines, own.lines])
        below = own.where, len(sheet.lines)
        return Sheet(sheet.where, columns, lines, sheet.digest + own.digest, below), len(own.lines)

    def _check_names(self, sheet: Sheet) -> None:
        for key, names in (("target", (str(self.target),)), ("categorical", self.categorical), ("drop", self.drop)):
            for name in names:
                if name not in sheet.columns:
                    raise UserError(f"data.{key}: {sheet.where} has no column {name}{close(name, sheet.columns)}")
        if self.target in self.drop:
            raise UserError(f"data.drop: {self.target} is the target")
        if not set(sheet.columns) - {self.target, *self.drop}:
            raise UserError(f"{sheet.where}: there is no column beside the target {self.target}")

    def _target(self, sheet: Sheet) -> tuple[np.ndarray, bool]:
        """The target of every row, and whether it is real (then NaN where missing)."""
        name, cells = str(self.target), sheet.columns[str(self.target)]
        if self.task == "classification":
            return cells, False
        values = numbers(sheet, name, wanted=self.task == "regression")
        if values is None:
            return cells, False
        present = values[~np.isnan(values)]
        whole = len(np.unique(present)) <= FEW and bool((present == np.round(present)).all())
        return (cells, False) if self.task == "auto" and whole else (values, True)

    def _without_target(self, sheet: Sheet, known: np.ndarray) -> tuple[str, ...]:
        lost = np.flatnonzero(~known)
        if not len(lost):
            return ()
        where = sheet.origin(int(lost[0]))
        rows = few(str(sheet.lines[row]) for row in lost if sheet.origin(int(row)) == where)
        told = f"{where}: {len(lost)} of {len(known)} rows have no value in column {self.target} (row {rows})"
        if len(lost) > self.max_bad * len(known):
            raise UserError(f"{told}, more than data.max_bad={self.max_bad:g} of them")
        return (f"{told}; they are left out",)

    def _labels(self, sheet: Sheet, rows: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        words = sorted(set(cells.tolist()), key=_natural)
        if len(words) < 2:
            raise UserError(f"{sheet.where}: column {self.target} has the class {words[0]} only; at least 2 are needed")
        places = {word: i for i, word in enumerate(words)}
        labels = np.array([places[cell] for cell in cells], np.int32)
        for word, count in zip(words, np.bincount(labels), strict=True):
            if count < 3 and self.test_path is None:
                where = sheet.place(int(rows[np.argmax(labels == places[word])]), str(self.target))
                hint = ", or data.task=regression" if word.replace(".", "").isdigit() else ""
                raise UserError(f"{where}: the class {word} has {count} rows only; at least 3, one for a split{hint}")
        return labels, tuple(words)

    def _parts(
        self, sheet: Sheet, rows: np.ndarray, targets: np.ndarray, classes: tuple[str, ...], tested: int
    ) -> dict[Split, np.ndarray]:
        labels = targets if classes else np.zeros(len(targets), int)
        if len(labels) < 3:
            raise UserError(f"{sheet.where} has {len(labels)} rows with a target; at least 3, one for each split")
        if not tested:
            return self.parts(labels)
        own = np.flatnonzero(rows >= len(sheet.lines) - tested)
        parts = self.parts_beside(labels, own)
        for row in np.flatnonzero(~np.isin(labels, labels[parts["train"]])) if classes else ():
            place, name = sheet.place(int(rows[row]), str(self.target)), classes[labels[row]]
            if row in own:
                raise UserError(f"{place}: no training row has the class {name}")
            raise UserError(f"{place}: the class {name} has too few rows: validation takes all; give it more")
        return parts

    def _check_spread(self, sheet: Sheet, train: np.ndarray) -> None:
        if train.min() == train.max():
            raise UserError(f"{sheet.where}: column {self.target} is {train[0]:g} in every training row")

    def _columns(
        self, sheet: Sheet, rows: np.ndarray, train: np.ndarray
    ) -> tuple[dict[str, np.ndarray], tuple[Column, ...], tuple[str, ...]]:
        """The values of every input column, how each is encoded, and what is worth a word."""
        cells: dict[str, np.ndarray] = {}
        columns: list[Column] = []
        empty = []
        for name in sheet.columns:
            if name in (self.target, *self.drop):
                continue
            values = None if name in self.categorical else numbers(sheet, name, wanted=False)
            if values is None:
                cells[name] = Categorical(name, ()).read(sheet)[rows]
                columns.append(categorical(name, cells[name][train], self.max_categories))
            elif np.isnan(values[rows][train]).all():
                empty.append(name)
            else:
                cells[name] = values[rows]
                columns.append(numeric(name, cells[name][train]))
        if not columns:
            raise UserError(f"{sheet.where}: no column beside the target has a value in the training rows")
        notes = (f"{sheet.where}: no training row has a value in column {few(empty)}; left out",) if empty else ()
        return cells, tuple(columns), notes


def _natural(word: str) -> tuple[bool, float, str]:
    """Numbers by value, before words by letter."""
    try:
        return False, float(word), word
    except ValueError:
        return True, 0.0, word


def _unseen(
    columns: tuple[Column, ...], cells: dict[str, np.ndarray], parts: dict[Split, np.ndarray]
) -> tuple[str, ...]:
    """Words and gaps that no training row has, and what becomes of them."""
    notes = []
    for column in columns:
        own = cells[column.name]
        for split in ("validation", "test"):
            values = own[parts[split]]
            if isinstance(column, Categorical):
                new = sorted(set(values.tolist()) - set(own[parts["train"]].tolist()))
                count = int(np.isin(values.astype(str), new).sum())
                if new:
                    words = few(word or "missing" for word in new)
                    notes.append(
                        f"column {column.name}: {count} {split} rows have words new to it ({words}): all zeros"
                    )
            elif isinstance(column, Numeric) and not column.flagged and (gaps := int(np.isnan(values).sum())):
                notes.append(f"column {column.name}: {gaps} {split} rows have no value, and no training row lacks one")
    return tuple(notes)
