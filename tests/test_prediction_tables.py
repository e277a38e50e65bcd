"""A finished run on a table answers files with the same columns, encoded as its own table was."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from descent import UserError, compose, prediction
from descent.config import restore

ROOT = Path(__file__).resolve().parents[1]
CITIES = ("Graz", "Linz", "")


def table(path: Path, *, target: bool, rows: int = 60) -> str:
    """Ages with gaps, cities with gaps, and whether someone bought; without the target, in another order of columns."""
    lines = ["age,city,bought" if target else "city,note,age"]
    for i in range(rows):
        age, city = "" if i % 7 == 3 else str(20 + i % 40), CITIES[i % 3]
        lines.append(f"{age},{city},{'yes' if i % 40 > 20 else 'no'}" if target else f"{city},a note,{age}")
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture
def run(tmp_path, folder):
    words = ("data=csv_table", f"data.path={table(tmp_path / 'own.csv', target=True)}", "data.target=bought")
    words = (*words, "model=mlp", "model.widths=[8]", "trainer.steps=60", "trainer.batch_size=8", "trainer.threads=2")
    compose(*words, "trainer.jit=false", "logger=[]").run(folder)
    return restore(folder)


def answers(run, path: str) -> np.ndarray:
    experiment, built, _ = run
    given = prediction.answer(built, prediction.find(path, tabular=True), experiment.data)
    return np.array([answer.values for answer in given])


def test_rows_are_answered_as_the_evaluation_answers_them(run, tmp_path):
    """With the target or without, in whatever order the columns are, and with more of them."""
    experiment, built, _ = run
    with_target = answers(run, table(tmp_path / "same.csv", target=True))
    rows = experiment.data.prepare().parts["test"]
    raw, _ = built.pipeline.source.gather("test", np.arange(len(rows)))
    np.testing.assert_allclose(with_target[rows], built.evaluator.answers(raw), rtol=1e-5)
    np.testing.assert_array_equal(answers(run, table(tmp_path / "new.csv", target=False)), with_target)


def test_the_script_names_the_lines(run, folder, tmp_path, monkeypatch, capsys):
    path = table(tmp_path / "new.csv", target=False, rows=3)
    monkeypatch.setattr(sys, "argv", ["predict.py", f"run={folder}", f"inputs={path}"])
    runpy.run_path(str(ROOT / "scripts/predict.py"), run_name="__main__")
    lines = (folder / "predictions/new.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["input", "row 2", "row 3", "row 4"]
    assert lines[0] == "input,class_1,probability_1,class_2,probability_2"
    assert "3 answers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["age", "30"], r"inputs=.*: there is no column city"),
        (["age,city", "old,Graz"], r"inputs=.*: row 2, column age: 'old' is no number"),
    ],
)
def test_what_is_wrong_with_a_table(run, tmp_path, lines, said):
    (tmp_path / "wrong.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=said):
        answers(run, str(tmp_path / "wrong.csv"))
