"""Texts and labels from a file of yours: CSV, TSV or JSON lines."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from descent import vocabulary
from descent.data.csv_file import misread
from descent.data.text import Corpus, Text, Texts
from descent.data.verified import few
from descent.types import Fraction, Split, UserError, part

DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
LINES = (".jsonl", ".ndjson")
END = "\x1e"  # a row of its own after the last one
NOTHING = {"", "nan", "null", "none", "na", "n/a"}  # labels that are none


class Row(NamedTuple):
    """A row of a file, counted from 1 with the header, as a spreadsheet shows it; what is wrong with it, or nothing."""

    number: int
    text: str = ""
    label: str = ""
    wrong: str = ""


@part
class CsvText(Text):
    """A text and a label in each row of a CSV, TSV or JSON-lines file. The splits are files, or are cut out of `path`.

    Rows without text or label, or with another number of cells than the header, are left out and named.

    Attributes:
        path: the file: .csv, .tsv, .tab, .jsonl or .ndjson.
        validation_path, test_path: files of these splits; None: cut out of `path`.
        text_column, label_column: their names in the header (keys, in JSON lines).
        encoding: of the files.
        max_bad: share of bad rows above which it is an error; below, they are left out.

    Raises:
        UserError: a file is missing, not so encoded, lacks a column, or has too many bad rows; or the labels are of
            one class, or one of them occurs outside the training file alone.
    """

    path: str | None = None
    validation_path: str | None = None
    test_path: str | None = None
    text_column: str = "text"
    label_column: str = "label"
    encoding: str = "utf-8"
    max_bad: Fraction = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path is None:
            raise ValueError("path is null; name the file of texts and labels: data.path=FILE")
        try:
            "".encode(self.encoding)
        except LookupError as error:
            raise ValueError(f"encoding={self.encoding}: Python knows no such encoding") from error

    @property
    def files(self) -> dict[Split, tuple[str, Path]]:
        """The key and the place of each file that is given."""
        keys: dict[Split, str] = {"train": "path", "validation": "validation_path", "test": "test_path"}
        given = {split: (key, getattr(self, key)) for split, key in keys.items()}
        return {split: (key, Path(p).expanduser().absolute()) for split, (key, p) in given.items() if p is not None}

    def source(self) -> Any:
        facts = []
        for key, file in self.files.values():
            if not file.is_file():
                raise UserError(f"data.{key}={getattr(self, key)}: there is no such file")
            facts.append([key, hashlib.blake2b(self._raw(key, file)).hexdigest()])
        return [facts, self.text_column, self.label_column, self.encoding, self.max_bad]

    def read(self) -> Corpus:
        remarks: list[str] = []
        good = {split: self._good(key, file, remarks) for split, (key, file) in self.files.items()}
        names = sorted({row.label for row in good["train"]})
        where = f"data.path={self.path}, column {self.label_column}"
        if len(names) < 2:
            raise UserError(f"{where}: every label is {names[0]}; at least 2 classes")
        counts = {name: sum(row.label == name for row in good["train"]) for name in names}
        if rare := [name for name in names if counts[name] < 3]:
            raise UserError(f"{where}: class {rare[0]} has {counts[rare[0]]} rows; at least 3")
        return Corpus(tuple(names), {s: self._texts(s, rows, names) for s, rows in good.items()}, tuple(remarks))

    def _texts(self, split: Split, rows: list[Row], names: list[str]) -> Texts:
        number = {name: i for i, name in enumerate(names)}
        for row in rows:
            if row.label not in number:
                raise UserError(
                    f"{self.files[split][1]}, row {row.number}, column {self.label_column}: {row.label} is no class "
                    f"of the training file ({few(names, 5)})"
                )
        return [row.text for row in rows], [number[row.label] for row in rows]

    def _good(self, key: str, file: Path, remarks: list[str]) -> list[Row]:
        """The rows that can be used; the others are named in a remark, or too many."""
        rows = list(self._rows(key, file))
        bad = [row for row in rows if row.wrong]
        named = few(f"row {row.number} ({row.wrong})" for row in bad)
        if not rows or len(bad) == len(rows):
            raise UserError(f"data.{key}={file}: no rows with a text and a label" + f": {named}" * bool(bad))
        if len(bad) > self.max_bad * len(rows):
            raise UserError(
                f"data.{key}={file}: {len(bad)} of {len(rows)} rows are bad, more than data.max_bad={self.max_bad:g} "
                f"of them: {named}"
            )
        if bad:
            remarks.append(f"{len(bad)} bad rows of {file} are left out: {named}")
        return [row for row in rows if not row.wrong]

    def _rows(self, key: str, file: Path) -> Iterator[Row]:
        """Every row of a file, good or bad."""
        ending = file.suffix.lower()
        if ending not in (*DELIMITERS, *LINES):
            raise UserError(f"data.{key}={file}: should end in {', '.join((*DELIMITERS, *LINES))}")
        content = self._content(key, file)
        return self._json_rows(content) if ending in LINES else self._table_rows(key, file, content, DELIMITERS[ending])

    def _content(self, key: str, file: Path) -> list[str]:
        """The file's lines with their ends."""
        raw = self._raw(key, file)
        try:
            content = raw.decode(self.encoding).removeprefix("\ufeff")
            return list(io.StringIO(content, newline=""))  # splitlines would end lines at characters of texts, too
        except UnicodeError as error:
            wrong = misread(raw, getattr(error, "start", 0), self.encoding, DELIMITERS.get(file.suffix.lower()))
            raise UserError(f"data.{key}={file}: {wrong}") from error

    def _raw(self, key: str, file: Path) -> bytes:
        try:
            return file.read_bytes()
        except OSError as error:
            raise UserError(f"data.{key}={file}: cannot be read ({error.strerror})") from error

    def _table_rows(self, key: str, file: Path, content: list[str], delimiter: str) -> Iterator[Row]:
        reader = csv.reader([*content, "\n", END], delimiter=delimiter)
        header = [name.strip() for name in next(reader, [])]
        places = []
        for option, column in (("text_column", self.text_column), ("label_column", self.label_column)):
            if column not in header:
                raise UserError(f"data.{option}={column}: {file} has no such column; it has {few(header, 8) or 'none'}")
            places.append(header.index(column))
        for number, cells in enumerate(reader, 2):
            if not cells or cells == [END]:
                continue
            if END in cells[-1]:  # within a cell, which thus began with a quotation mark and swallowed all rows since
                raise UserError(f"data.{key}={file}: row {number}: a quotation mark is open at the end of the file")
            if len(cells) != len(header):
                yield Row(number, wrong=f"{len(cells)} cells for {len(header)} columns")
            else:
                yield self._row(number, cells[places[0]], cells[places[1]])

    def _json_rows(self, content: list[str]) -> Iterator[Row]:
        for number, line in enumerate(content, 1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
                yield self._row(number, values[self.text_column], values[self.label_column])
            except json.JSONDecodeError:
                yield Row(number, wrong="not JSON")
            except KeyError as error:
                yield Row(number, wrong=f"no key {error.args[0]}")
            except TypeError:
                yield Row(number, wrong="not an object with texts")

    def _row(self, number: int, text: Any, label: Any) -> Row:
        if flaw := vocabulary.flaw(text):
            return Row(number, wrong=f"column {self.text_column}: {flaw}")
        if str(label).strip().lower() in NOTHING:
            return Row(number, wrong=f"column {self.label_column}: no label")
        return Row(number, text, str(label).strip())
