"""A finished run answers new inputs and is exported from its folder alone, wherever its data is."""

from __future__ import annotations

import csv
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from descent import UserError, compose
from descent.config import load_experiment, restore
from descent.data.absent import Absent
from test_prediction_tables import table
from test_remembered import RUN, images, texts

ROOT = Path(__file__).resolve().parents[1]


def people(root: Path, more: bool) -> list[str]:
    root.mkdir()
    words = ["data=csv_table", f"data.path={table(root / 'own.csv', target=True)}", "data.target=bought"]
    return [*words, "model=mlp", "model.widths=[4]"]


@pytest.fixture(params=[images, texts, people], ids=lambda make: make.__name__)
def moved(request, tmp_path, monkeypatch) -> tuple[Path, Path, Path]:
    """The folder of a run that was moved, what to ask it, and where its data was."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    data = tmp_path / "data"
    compose(*RUN, *request.param(data, False), "logger=[]").run(tmp_path / "run")
    new = {
        images: lambda: shutil.copytree(data / "cat", tmp_path / "new"),
        texts: lambda: shutil.copy(data / "texts.csv", tmp_path / "new.csv"),
        people: lambda: table(tmp_path / "new.csv", target=False, rows=9),
    }[request.param]()
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    return tmp_path / "elsewhere", Path(new), data


def script(monkeypatch, name: str, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
    runpy.run_path(str(ROOT / f"scripts/{name}.py"), run_name="__main__")


def answers(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8") as file:
        return [[Path(line[0]).name, *line[1:]] for line in csv.reader(file)]


def test_new_inputs_are_answered_without_the_data_as_with_it(moved, tmp_path, monkeypatch):
    folder, new, data = moved
    (folder / "spec.json").rename(tmp_path / "spec.json")  # as runs of before have none: the data is read
    script(monkeypatch, "predict", f"run={folder}", f"inputs={new}", f"out={tmp_path / 'with.csv'}")
    (tmp_path / "spec.json").rename(folder / "spec.json")
    shutil.rmtree(data)
    script(monkeypatch, "predict", f"run={folder}", f"inputs={new}", f"out={tmp_path / 'without.csv'}")
    assert len(answers(tmp_path / "with.csv")) > 5
    assert answers(tmp_path / "without.csv") == answers(tmp_path / "with.csv")


def test_it_is_exported_without_the_data(moved, monkeypatch, capsys):
    folder, _, data = moved
    shutil.rmtree(data)
    script(monkeypatch, "export", f"run={folder}", "format=keras")
    assert "; each format is tried on elements that are made up" in capsys.readouterr().out
    assert (folder / "export/model.keras").is_file()


def test_made_up_elements_are_of_the_range_and_type_of_the_runs_own(moved):
    folder = moved[0]
    (_, with_data, _), (experiment, without, _) = restore(folder), restore(folder, data=False)
    assert isinstance(experiment.data, Absent)
    assert without.pipeline.spec == with_data.pipeline.spec
    real, made = (built.pipeline.source.gather("test", np.arange(2))[0] for built in (with_data, without))
    assert (made.dtype, made.shape) == (real.dtype, real.shape)
    assert without.evaluator.answers(made).shape == with_data.evaluator.answers(real).shape


def test_a_damaged_file_is_told(moved):
    folder = moved[0]
    (folder / "spec.json").write_text("{")
    with pytest.raises(UserError, match=r"spec\.json is damaged"):
        load_experiment(folder, data=False)
