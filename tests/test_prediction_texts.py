"""Answers on raw texts are those of the run on the same words, in the run's own ids, whatever file they come in."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from conftest import QUICK
from descent import UserError, compose, prediction
from descent.session import build
from samples import json_lines, text_file

ROOT = Path(__file__).resolve().parents[1]
TEXTS = ["A lovely film!", "dull, dull: a MESS", "words that nobody knows"]
MODEL = ("model=bag_of_embeddings", "model.embedding=8", "data=csv_text", "data.length=9")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("caches")))
        experiment = compose(*MODEL, f"data.path={text_file(tmp_path_factory.mktemp('files'))}", "trainer.threads=2")
        return experiment.data, build(experiment.resolved())


def answered(run, path: Path, **options: str) -> tuple[list[str], np.ndarray]:
    data, built = run
    given = list(prediction.answer(built, prediction.find(str(path), **options), data))
    return [answer.name for answer in given], np.array([answer.values for answer in given])


def expected(run, texts: list[str]) -> np.ndarray:
    """By hand: words in lower case without punctuation, their places in the run's vocabulary, 1 for unknown ones."""
    data, built = run
    words = [re.sub(r"[^a-z0-9 ]", "", text.lower()).split() for text in texts]
    known = list(data.spec.words)
    ids = [[known.index(w) if w in known else 1 for w in text] + [0] * (9 - len(text)) for text in words]
    logits = np.float64(built.state.model(tf.constant(ids, tf.int32), training=False))
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


FILES = {
    "a.txt": "\n".join(TEXTS),
    "a.csv": "id,text\n" + "".join(f'{i},"{text}"\n' for i, text in enumerate(TEXTS)),
    "a.tsv": "text\tid\n" + "".join(f"{text}\t{i}\n" for i, text in enumerate(TEXTS)),
    "a.jsonl": json_lines([{"text": text} for text in TEXTS]),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_is_answered_with_the_runs_vocabulary(name, run, tmp_path):
    (tmp_path / name).write_text(FILES[name])
    names, values = answered(run, tmp_path / name)
    assert names == TEXTS
    np.testing.assert_allclose(values, expected(run, TEXTS), atol=1e-5)


def test_another_column_is_named_and_longer_files_keep_their_order(run, tmp_path, monkeypatch):
    monkeypatch.setattr(prediction, "BATCH", 2)
    many = [TEXTS[i % 3] + f" number {i}" for i in range(5)]
    (tmp_path / "a.csv").write_text("text,review\n" + "".join(f'nothing,"{text}"\n' for text in many))
    names, values = answered(run, tmp_path / "a.csv", column="review")
    assert names == many
    np.testing.assert_allclose(values, expected(run, many), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "content"), [("a.txt", "good\n\n?!\nfilm"), ("a.csv", "text,n\ngood,1\n,2\n?!,3\nfilm,4")]
)
def test_texts_without_words_are_named_by_row_and_left_out(name, content, tmp_path):
    (tmp_path / name).write_text(content)
    found = prediction.find(str(tmp_path / name))
    assert found.texts == ("good", "film")
    assert [re.sub(r"\D", "", bad) for bad in found.bad] == (["2", "3"] if name == "a.txt" else ["3", "4"])


BAD = {
    "no.csv": ("id\n1\n", "column=text: .* has no such column; it has id"),
    "ragged.csv": ("text,id\na,1\nb\n", "row 3 has 1 cells, and the header has 2 columns"),
    "empty.txt": ("\n \n", "none of its 2 rows has words"),
    "broken.jsonl": ('{"text": "a"}\n{"text', "row 2 is not JSON"),
    "keyless.jsonl": ('{"text": "a"}\n{"words": "b"}', "column=text: row 2 of .* has no such key"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_does_not_fit_is_one_line(name, tmp_path):
    content, said = BAD[name]
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=said):
        prediction.find(str(tmp_path / name))


@pytest.mark.parametrize("name", ["latin.txt", "latin.csv"])
def test_another_encoding_is_named_with_its_row(name, tmp_path):
    (tmp_path / name).write_bytes("text\nfine\nna\xefve\n".encode("latin-1"))
    with pytest.raises(UserError, match="row 3 is not UTF-8"):
        prediction.find(str(tmp_path / name))


def test_images_and_texts_are_for_their_own_kind_of_run(run, tmp_path):
    (tmp_path / "a.txt").write_text("some words")
    images = build(compose(*QUICK).resolved())
    with pytest.raises(UserError, match="these are texts, and the run's data is image; give images"):
        list(prediction.answer(images, prediction.find(str(tmp_path / "a.txt"))))
    with pytest.raises(UserError, match=r"these are images, and the run's data is text; give a \.txt file"):
        list(prediction.answer(run[1], prediction.Inputs(files=("a.png",), orientations=(1,))))


def test_the_script_answers_after_the_texts_it_learned_from_have_changed(quick, folder, tmp_path, monkeypatch, capsys):
    """The ids are those of the vocabulary kept with the run, not of the file as it is now."""
    source = Path(text_file(tmp_path / "files"))
    quick(*MODEL, f"data.path={source}", "trainer.steps=60", "optimizer.learning_rate=0.05").run(folder)
    source.write_text(source.read_text().replace("fine", "mouldy").replace("dull", "azure"))
    (tmp_path / "new.txt").write_text("a fine and lovely film " * 9 + "\n...\na dull and boring mess\n")
    monkeypatch.setattr(sys, "argv", ["predict.py", f"run={folder}", f"inputs={tmp_path / 'new.txt'}", "top=1"])
    runpy.run_path(str(ROOT / "scripts/predict.py"), run_name="__main__")
    out, err = capsys.readouterr()
    lines = (folder / "predictions/new.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in lines] == ["class_1", "good", "bad"]
    assert lines[1].startswith("a fine and lovely film " * 9)
    assert any(line.startswith("a fine") and "…" in line and len(line) < 100 for line in out.splitlines())
    assert err == "1 texts without words are left out: row 2 (no words)\n"
