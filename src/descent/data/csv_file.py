"""CSV files as people have them: read whole, with the row and the column of whatever is wrong."""

from __future__ import annotations

import codecs
import csv
import functools
import hashlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from descent.types import UserError

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})  # in lower case
NEWLINE = b"\n"
SEPARATORS = ",;\t|"
csv.field_size_limit(sys.maxsize)  # a cell may be a long text
MOSTLY = 0.9  # share of numbers above which a column is one of numbers, and the rest are mistakes


class Sheet(NamedTuple):
    """A file as read.

    Attributes:
        where: the key and the file, to begin a message with.
        columns: the cells of each column, by name, stripped.
        lines: the number of each row's line in the file, which begins with the header on line 1.
        digest: of its bytes.
        below: how the file of its last rows is called, where these are of another, and which row is the first of them.
    """

    where: str
    columns: dict[str, np.ndarray]
    lines: np.ndarray
    digest: str
    below: tuple[str, int] | None = None

    def origin(self, row: int) -> str:
        """The key and the file that a row is from."""
        return self.below[0] if self.below and row >= self.below[1] else self.where

    def place(self, row: int, name: str) -> str:
        return f"{self.origin(row)}: row {self.lines[row]}, column {name}"


def read(key: str, path: str, encoding: str, separator: str) -> Sheet:
    """The sheet at a path.

    Raises:
        UserError: it is not there, not in the encoding, not a table, or a row has too few or too many cells.
    """
    where = f"{key}={path}"
    place = Path(path).expanduser()
    try:
        status = place.stat()
        if place.is_dir():
            raise UserError(f"{where} is a folder; name a file")
        return _read(where, place, encoding, separator, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise UserError(f"{where}: {(error.strerror or str(error)).lower()}") from error


@functools.lru_cache(maxsize=4)  # composing a sweep asks for the same file again and again
def _read(where: str, place: Path, encoding: str, separator: str, changed: int, size: int) -> Sheet:
    content = place.read_bytes()
    text = _decoded(where, content, encoding, separator)
    first = text.split("\n", 1)[0]
    if not first.strip():
        raise UserError(f"{where}: its first line is empty; the names of the columns should stand there")
    chosen = max(SEPARATORS, key=first.count) if separator == "auto" else separator
    rows = _rows(where, text, chosen)
    names = _names(where, next(rows)[1])
    lines, cells = [], []
    for line, row in rows:
        if len(row) != len(names):
            raise UserError(f"{where}: row {line} has {len(row)} cells, and the header has {len(names)} columns")
        lines.append(line)
        cells.append(row)
    if not cells:
        raise UserError(f"{where}: there are no rows below the header")
    table = np.array([[cell.strip() for cell in row] for row in cells], object)
    columns = {name: table[:, i] for i, name in enumerate(names)}
    return Sheet(where, columns, np.array(lines), hashlib.sha256(content).hexdigest())


def _decoded(where: str, content: bytes, encoding: str, separator: str) -> str:
    try:
        return content.decode("utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding)
    except LookupError as error:
        raise UserError(f"data.encoding={encoding}: there is no such encoding; utf-8 or latin-1, say") from error
    except UnicodeDecodeError as error:
        header = content.split(NEWLINE, 1)[0].decode("latin-1")
        mark = max(SEPARATORS, key=header.count) if separator == "auto" else separator
        raise UserError(f"{where}: {misread(content, error.start, encoding, mark)}") from error


def misread(content: bytes, at: int, encoding: str, separator: str | None) -> str:
    """What is wrong with the byte `at` that place, with its row and (of a table) column."""
    header, before = content.split(NEWLINE, 1)[0], content[:at]
    column = ""
    if separator:
        names, cells = (
            next(csv.reader([line.decode("latin-1").strip("\r") or " "], delimiter=separator))
            for line in (header.removeprefix(codecs.BOM_UTF8), before.rsplit(NEWLINE, 1)[-1])
        )
        column = f", column {dict(enumerate(names, 1)).get(len(cells), len(cells))}"
    return (
        f"row {before.count(NEWLINE) + 1}{column}: byte 0x{content[at]:02x} is not {encoding}; "
        "name the file's own, as in data.encoding=latin-1"
    )


def _rows(where: str, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The rows with the numbers of their lines; empty lines are passed over."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    line = 1
    try:
        for row in reader:
            if row:
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        what = "a quotation mark is open at the end of the file" if "unexpected end" in str(error) else str(error)
        raise UserError(f"{where}: row {line}: {what}") from error


def _names(where: str, header: list[str]) -> list[str]:
    names = [name.strip() or f"column {i + 1}" for i, name in enumerate(header)]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{where}: two columns are called {name}")
    return names


def missing(cells: np.ndarray) -> np.ndarray:
    """Which cells say nothing: bool [m]."""
    return np.array([cell.lower() in MISSING for cell in cells], bool)


def _number(cell: str) -> float:
    """NaN for a word; Python alone would read 1_2 as 12."""
    try:
        return float("nan" if "_" in cell else cell)
    except ValueError:
        return float("nan")


def numbers(sheet: Sheet, name: str, *, wanted: bool) -> np.ndarray | None:
    """A column as numbers, NaN where missing; None where it is one of words, unless numbers are `wanted`.

    Raises:
        UserError: nearly all of it are numbers, or numbers are wanted, and a cell is none; or one is infinite.
    """
    cells = sheet.columns[name]
    lacking = missing(cells)
    values = np.array([np.nan if lacks else _number(cell) for cell, lacks in zip(cells, lacking, strict=True)], float)
    wrong = np.flatnonzero(np.isnan(values) & ~lacking).tolist()
    present = len(cells) - int(lacking.sum())
    if wrong and (wanted or present - len(wrong) >= MOSTLY * present):
        more = f" ({len(wrong)} such cells)" if len(wrong) > 1 else ""
        hint = "mend it" if wanted else f"mend it, or let the column be words: data.categorical=[{name}]"
        raise UserError(f"{sheet.place(wrong[0], name)}: {cells[wrong[0]]!r} is no number{more}; {hint}")
    if not wrong and np.isinf(values).any():
        raise UserError(f"{sheet.place(int(np.argmax(np.isinf(values))), name)}: an infinite number")
    return None if wrong else values
