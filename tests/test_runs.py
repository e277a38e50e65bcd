"""Runs read back from their folders: grouped by what was run, whatever the order and the names."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from descent.identity import flat
from descent.runs import find, variants
from descent.types import UserError

ADAM = {"_target_": "descent.optimizer.Adam", "learning_rate": 0.01, "beta_1": 0.9}
SGD = {"_target_": "descent.optimizer.Sgd", "learning_rate": 0.1}


def write(folder: Path, seed: int, optimizer: dict[str, Any], *words: str, loss: object = 1.0, order: int = 0) -> Path:
    folder.mkdir(parents=True)
    config = {"seed": seed, "name": folder.name, "data": {"fold": None}, "optimizer": optimizer, "callback": {}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "summary.json").write_text(json.dumps({"status": "completed", "name": "n", "val/loss": loss}))
    (folder / "environment.json").write_text(json.dumps({"overrides": list(words)}))
    (folder / "metrics.jsonl").write_text('{"step": 1, "train/loss": 3.0}\n{"step": 2, "val/loss": "nan"}\n')
    os.utime(folder / "environment.json", (order, order))
    return folder


def test_runs_are_grouped_by_config_and_ordered_by_seed_in_order_of_start(tmp_path):
    write(tmp_path / "a", 1, ADAM, "optimizer=adam", "seed=1", "name=x", order=4)
    write(tmp_path / "b", 0, SGD, "optimizer=sgd", "seed=0", order=1)
    write(tmp_path / "c", 0, ADAM, "optimizer=adam", "seed=0", order=3)
    write(tmp_path / "d", 1, SGD, "optimizer=sgd", "seed=1", order=2)
    found = variants(find([tmp_path]))
    assert [variant.label for variant in found] == ["optimizer=sgd", "optimizer=adam"]
    assert [[run.path.name for run in variant.runs] for variant in found] == [["b", "d"], ["c", "a"]]


def test_runs_without_a_command_line_are_named_by_what_all_have_and_differs(tmp_path):
    write(tmp_path / "a", 0, ADAM, order=1)
    write(tmp_path / "b", 0, SGD, order=2)
    write(tmp_path / "c", 0, {**SGD, "learning_rate": 1.0}, order=3)
    labels = [variant.label for variant in variants(find([tmp_path]))]
    words = ["optimizer=Adam optimizer.learning_rate=0.01", "optimizer=Sgd optimizer.learning_rate=0.1"]
    assert labels == [*words, "optimizer=Sgd optimizer.learning_rate=1.0"]


def test_what_only_some_have_tells_runs_apart_where_it_must(tmp_path):
    write(tmp_path / "a", 0, ADAM, "optimizer=adam", order=1)
    write(tmp_path / "b", 0, {**ADAM, "beta_2": 0.9}, "optimizer=adam", order=2)
    assert len({variant.label for variant in variants(find([tmp_path]))}) == 2


def test_a_single_variant_has_the_name_of_its_runs(tmp_path):
    write(tmp_path / "a", 0, ADAM, "optimizer=adam")
    assert [variant.label for variant in variants(find([tmp_path]))] == ["n"]


def test_of_two_equal_runs_the_later_counts(tmp_path):
    write(tmp_path / "a", 0, ADAM, order=2)
    write(tmp_path / "b", 0, ADAM, order=1)
    (only,) = variants(find([tmp_path / "a", tmp_path / "b", tmp_path]))
    assert [run.path.name for run in only.runs] == ["a"]


def test_what_is_no_number_is_told_as_such(tmp_path):
    (run,) = find([write(tmp_path / "a", 0, ADAM, loss="inf")])
    assert np.isnan(run.final("val/loss"))
    assert np.isnan(run.final("test/loss"))
    steps, values = run.curve("val/loss")
    np.testing.assert_array_equal(steps, [2])
    assert np.isnan(values).all()


def test_what_holds_no_run_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match="there is no such folder"):
        find([tmp_path / "nowhere"])
    with pytest.raises(UserError, match="no finished run in it"):
        find([tmp_path])
    folder = write(tmp_path / "a", 0, ADAM)
    (folder / "summary.json").write_text('{"status": ')
    with pytest.raises(UserError, match="damaged run folder"):
        find([tmp_path])


def test_flattening_keeps_every_leaf():
    assert dict(flat({"a": {"b": 1, "c": {"d": [2]}}, "e": {}})) == {"a.b": 1, "a.c.d": [2], "e": {}}
