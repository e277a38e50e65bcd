"""Rows of the log: lines of JSON that say what the records do, also what is not finite."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from descent.folder import Log, read_rows
from descent.rows import Rows, lines

RECORDS = [
    {"step": 1, "epoch": 0.25, "train/loss": 1e-7},
    {"step": 2, "epoch": 0.5, "train/loss": 2.5, "val/loss": -0.1},
    {"step": 3, "epoch": 0.75, "train/loss": 1e30},
]


def test_each_record_is_a_line_of_its_own():
    blocks = [Rows.of(record) for record in RECORDS]
    read = [json.loads(line) for line in lines(blocks).splitlines()]
    assert read == RECORDS
    assert all(isinstance(row["step"], int) for row in read)
    assert lines([]) == lines([blocks[0][:0]]) == b""
    assert lines(blocks) == b"".join(lines([rows]) for rows in blocks)


def test_rows_of_the_same_names_are_written_as_they_are_one_by_one():
    rows = Rows(("step", "train/loss"), np.array([[9, 0.1], [10, 1e-300], [2**53 - 1, 3.0]]))
    assert [json.loads(line) for line in lines([rows]).splitlines()] == rows.records()
    assert lines([rows[:1], rows[1:]]) == lines([rows])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_written_as_its_name_beside_numbers(value, tmp_path):
    records = [RECORDS[0], {**RECORDS[1], "train/loss": value}, RECORDS[2]]
    log = Log(tmp_path / "metrics.jsonl")
    for record in records:
        log.write(Rows.of(record))
    size = log.flush()
    log.close()
    content = (tmp_path / "metrics.jsonl").read_bytes()
    assert size == len(content)
    assert json.loads(content.splitlines()[1])["train/loss"] == str(value)
    assert [str(row) for row in read_rows(tmp_path / "metrics.jsonl")] == [
        str({name: float(number) for name, number in record.items()}) for record in records
    ]
