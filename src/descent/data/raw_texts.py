"""Raw texts from a file, as a finished run is asked about them: a text a line, or a column of a table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from descent import vocabulary
from descent.data import csv_file
from descent.types import UserError

SEPARATORS = {".csv": "auto", ".tsv": "\t", ".tab": "\t"}
OBJECTS = (".jsonl", ".ndjson")
ENDINGS = (".txt", *SEPARATORS, *OBJECTS)


class RawTexts(NamedTuple):
    """The texts of a file that have words, in order; the other rows, each with what is wrong."""

    texts: tuple[str, ...]
    bad: tuple[str, ...]


def read(path: Path, column: str) -> RawTexts:
    """The texts of a .txt file, one a line, or of a column (a key, in JSON lines) of a table; all in UTF-8.

    Raises:
        UserError: the file cannot be read, lacks the column, or has no text with words.
    """
    rows = [(n, text, vocabulary.flaw(text)) for n, text in _rows(path, column)]
    good = [text for _, text, flaw in rows if not flaw]
    bad = [f"row {n} ({flaw})" for n, _, flaw in rows if flaw]
    if not good:
        raise UserError(f"inputs={path}: none of its {len(rows)} rows has words")
    return RawTexts(tuple(good), tuple(bad))


def _rows(path: Path, column: str) -> Iterator[tuple[int, Any]]:
    """Every row's number in the file, from 1, and its text."""
    lines = _lines(path)  # for tables too: the message about another encoding is then ours
    if path.suffix.lower() in SEPARATORS:
        sheet = csv_file.read("inputs", str(path), "utf-8", SEPARATORS[path.suffix.lower()])
        if column not in sheet.columns:
            raise UserError(f"column={column}: {path} has no such column; it has {', '.join(sheet.columns)}")
        yield from zip(sheet.lines.tolist(), sheet.columns[column].tolist(), strict=True)
    else:
        objects = path.suffix.lower() in OBJECTS
        for number, line in enumerate(lines, 1):
            if line.strip() or not objects:
                yield number, _value(path, number, line, column) if objects else line


def _lines(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig") as file:  # splitlines would end lines at characters of texts, too
            return [line.removesuffix("\n") for line in file]
    except OSError as error:
        raise UserError(f"inputs={path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        row = path.read_bytes()[: error.start].count(b"\n") + 1
        raise UserError(f"inputs={path}: row {row} is not UTF-8") from error


def _value(path: Path, number: int, line: str, key: str) -> Any:
    try:
        return json.loads(line)[key]
    except json.JSONDecodeError as error:
        raise UserError(f"inputs={path}: row {number} is not JSON") from error
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f"column={key}: row {number} of {path} has no such key") from error
