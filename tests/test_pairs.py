"""Every pair of options of different groups trains: a covering array of runs, two steps each.

A bug between two techniques shows when both are on, whatever the others are (Kuhn et al. 2004, "Software fault
interactions and implications for software testing"); so few runs, each with a choice in every group, try all pairs.
"""

from __future__ import annotations

import dataclasses
import itertools
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest

from descent import Experiment, compose
from descent.data.images import KnownImages
from descent.folder import read_rows
from descent.trainer import Trainer
from test_conf import ALL, OPTIONS, composed, paired, words
from test_options import SMALL

Choice = tuple[str, str]
Row = tuple[Choice, ...]

GROUPS = [group for group in OPTIONS if group not in ("augmentation", "trainer", "strategy")]
# What a choice is tried in: the first run that it fits.
BASES = {"image": "digits", "text": "csv_text", "table": "wine", "real target": "linear"}
# What is not on this machine, or only in parts: tests of their own read such sources.
ELSEWHERE = {("data", option) for option in ("california_housing", "imdb", "tfds")}
# What may exclude each other: it depends on the kind of data.
OF_A_KIND = {"data", "augmentation/sample", "augmentation/batch", "model", "loss", "regularization"}
QUICK = Trainer(steps=2, batch_size=8, threads=2, jit=False)
SHARDS = 16


@cache
def base(kind: str) -> Experiment:
    return dataclasses.replace(composed("data", BASES[kind]), trainer=QUICK, logger={})


@cache
def fits(kind: str, *row: Choice) -> bool:
    try:
        paired(base(kind), *row)
    except ValueError:
        return False
    return True


def kinds(row: Row) -> list[str]:
    """The kinds of data on which every two choices of a row go together."""
    return [
        kind
        for kind in BASES
        if all(fits(kind, *pair) for pair in itertools.combinations(sorted(row), 2)) and fits(kind, *sorted(row))
    ]


@cache
def pairs() -> tuple[set[Row], set[Row]]:
    """The pairs that go together, and those that do not."""
    choices = [choice for choice in ALL if choice[0] in GROUPS and choice not in ELSEWHERE]
    every = {tuple(sorted(p)) for p in itertools.combinations(choices, 2) if p[0][0] != p[1][0]}
    good = {pair for pair in every if kinds(pair)}
    return good, every - good


@cache
def covering() -> list[Row]:
    """Rows of choices that hold every pair: each grows around an open pair by what adds most open ones."""
    left, rows = set(pairs()[0]), []
    while left:
        row = min(left)
        for group in GROUPS:
            if group not in dict(row):
                row = grown(row, group, left)
        left -= within(row)
        rows.append(row)
    return rows


def grown(row: Row, group: str, left: set[Row]) -> Row:
    """The row with the option of a group that brings most open pairs; as it was where none does."""
    best, most = row, 0
    for option in OPTIONS[group]:
        longer = (*row, (group, option))
        gain = sum(tuple(sorted((choice, (group, option)))) in left for choice in row)
        if gain > most and kinds(longer):
            best, most = longer, gain
    return best


def within(row: Row) -> set[Row]:
    return {tuple(sorted(pair)) for pair in itertools.combinations(row, 2)}


def trained(row: Row) -> Experiment:
    """The run of a row, its model at its smallest width."""
    run = paired(base(kinds(row)[0]), *row)
    model = dict(row).get("model")
    if model in SMALL:
        run = dataclasses.replace(run, model=compose(words("model", model), *SMALL[model]).model)
    return run


@pytest.fixture
def shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Known image sets of a hundred made images each, and a small application: real ones train in test_options."""
    for source in KnownImages.__subclasses__():
        facts = dataclasses.replace(source.facts, train=100, test=20)
        monkeypatch.setattr(source, "facts", facts)
        monkeypatch.setattr(source, "_read", lambda self: tuple(made(self.facts, n) for n in (100, 20)))
    monkeypatch.setattr(keras.applications, "MobileNet", application)
    monkeypatch.setenv("WANDB_MODE", "offline")


def application(*, include_top: bool, weights: None, input_shape: tuple, pooling: str, name: str) -> keras.Model:
    inputs = keras.Input(input_shape)
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, 2)(inputs))
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x)), name=name)


def made(facts, count: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(count, dtype=np.int32) % len(facts.class_names)
    return np.random.default_rng(0).integers(0, 256, (count, *facts.shape), np.uint8), labels


def test_the_rows_hold_every_pair_that_goes_together():
    assert set().union(*map(within, covering())) >= pairs()[0]


def test_only_what_depends_on_the_kind_of_data_excludes_each_other():
    assert {pair for pair in pairs()[1] if not {group for group, _ in pair} <= OF_A_KIND} == set()


@pytest.mark.slow
@pytest.mark.usefixtures("shrunk")
@pytest.mark.parametrize("shard", range(SHARDS))
def test_every_pair_trains_two_steps(shard: int, tmp_path: Path):
    for number, row in enumerate(covering()[shard::SHARDS]):
        folder = tmp_path / str(number)
        summary = trained(row).run(folder).summary
        assert summary["status"] == "completed", row
        rows = read_rows(folder / "metrics.jsonl")
        assert rows[-1]["step"] == 2, row
        assert all(np.isfinite(value) for record in rows for value in record.values()), row
