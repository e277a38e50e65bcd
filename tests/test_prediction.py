"""Answers on files are those of the run on the same pixels, whatever kind of file they come in."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from conftest import QUICK
from descent import UserError, compose, prediction
from descent.data.verified import ORIENTATION
from descent.session import build

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def grey():
    return build(compose(*QUICK, "data.shape=[12,10,1]").resolved())


@pytest.fixture(scope="module")
def colour():
    return build(compose(*QUICK, "data.shape=[12,10,3]").resolved())


@pytest.fixture(autouse=True)
def caches(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("caches")))


def raw(built, count: int = 5) -> np.ndarray:
    return built.pipeline.source.gather("test", tf.range(count))[0].numpy()


def expected(built, elements: np.ndarray) -> np.ndarray:
    """By the model alone, in float64 from its logits."""
    logits = np.float64(
        built.state.model(tf.constant(elements, tf.float32) * built.pipeline.spec.scale, training=False)
    )
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def answers(built, path: Path, fit: str = "crop") -> np.ndarray:
    return np.array([answer.values for answer in prediction.answer(built, prediction.find(str(path)), None, fit)])


@pytest.mark.parametrize("which", ["grey", "colour"])
def test_image_files_of_the_test_split_are_answered_as_the_split_is(which, request, tmp_path):
    built = request.getfixturevalue(which)
    for i, picture in enumerate(raw(built)):
        Image.fromarray(picture.squeeze()).save(tmp_path / f"{i}.png")
    np.testing.assert_allclose(answers(built, tmp_path), expected(built, raw(built)), atol=1e-5)


def test_digits_of_seventeen_greys_come_back_from_bytes(tmp_path):
    """Raw values 0 to 16 are shown as 0 to 255, and read back to the same."""
    built = build(compose("model.widths=[8]", "trainer.threads=2", "trainer.jit=false").resolved())
    assert raw(built).max() == 16
    for i, picture in enumerate(raw(built)):
        Image.fromarray(np.round(picture.squeeze() * (255 / 16)).astype(np.uint8)).save(tmp_path / f"{i}.png")
    np.testing.assert_allclose(answers(built, tmp_path), expected(built, raw(built)), atol=1e-5)


def test_a_turned_photograph_is_answered_upright(colour, tmp_path):
    (picture,) = raw(colour, 1)
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be turned by a quarter, clockwise
    Image.fromarray(np.rot90(picture)).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_allclose(answers(colour, tmp_path / "turned.png"), expected(colour, picture[None]), atol=1e-5)


def test_a_larger_image_is_cut_or_padded_as_the_data_is(grey, tmp_path):
    """A wide picture: its middle, or all of it between black bars."""
    wide = np.zeros((12, 30), np.uint8)
    wide[:, 10:20] = raw(grey, 1)[0, ..., 0]
    Image.fromarray(wide).save(tmp_path / "wide.png")
    np.testing.assert_allclose(answers(grey, tmp_path / "wide.png"), expected(grey, raw(grey, 1)), atol=1e-5)
    padded = answers(grey, tmp_path / "wide.png", "pad")
    assert np.abs(padded - expected(grey, raw(grey, 1))).max() > 1e-3


@pytest.mark.parametrize("shape", [(12, 10), (12, 10, 1), (3, 12, 10), (3, 12, 10, 1)])
def test_an_array_is_one_element_or_many(shape, grey, tmp_path):
    elements = raw(grey, 3 if shape[0] == 3 else 1)
    np.save(tmp_path / "x.npy", elements.reshape(shape).astype(np.int64))
    np.testing.assert_allclose(answers(grey, tmp_path / "x.npy"), expected(grey, elements), atol=1e-5)


def test_more_inputs_than_a_batch_keep_their_order_and_names(grey, tmp_path, monkeypatch):
    monkeypatch.setattr(prediction, "BATCH", 2)
    np.save(tmp_path / "x.npy", raw(grey, 5))
    given = list(prediction.answer(grey, prediction.find(str(tmp_path / "x.npy")), None, "crop"))
    assert [answer.name for answer in given] == [f"x.npy[{i}]" for i in range(5)]
    np.testing.assert_allclose([answer.values for answer in given], expected(grey, raw(grey, 5)), atol=1e-5)


def test_unreadable_files_are_named_and_the_others_answered(grey, tmp_path):
    (tmp_path / "inner").mkdir()
    Image.new("RGBA", (40, 30), "red").save(tmp_path / "inner/good.png")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "words.png").write_text("not an image")
    found = prediction.find(str(tmp_path))
    assert found.bad == ("empty.jpg (empty)", "words.png (neither JPEG nor PNG)")
    assert [Path(answer.name).name for answer in prediction.answer(grey, found, None, "crop")] == ["good.png"]


def test_real_targets_are_answered_by_a_value(tmp_path):
    built = build(compose(*QUICK, "data.num_classes=null", "loss=mse", "regularization=none").resolved())
    np.save(tmp_path / "x.npy", raw(built, 2))
    given = list(prediction.answer(built, prediction.find(str(tmp_path / "x.npy")), None, "crop"))
    wanted = built.state.model(tf.constant(raw(built, 2), tf.float32) / 255, training=False)[:, 0]
    lines = prediction.rows(given, built.pipeline.spec, top=3)
    assert lines[0] == ["input", "value"]
    np.testing.assert_allclose([float(value) for _, value in lines[1:]], wanted, rtol=1e-4)


def test_rows_hold_the_most_likely_classes_in_order(grey, tmp_path):
    values = np.array([0.1, 0.05, 0.6, 0.25, *[0.0] * 6])
    lines = prediction.rows([prediction.Answer("a, b.png", values)], grey.pipeline.spec, top=3)
    assert lines[1] == ["a, b.png", "2", "0.600000", "3", "0.250000", "0", "0.100000"]
    assert len(prediction.rows([], grey.pipeline.spec, top=99)[0]) == 1 + 2 * 10
    prediction.write_csv(tmp_path / "new/x.csv", lines)
    with (tmp_path / "new/x.csv").open(newline="") as file:
        assert list(csv.reader(file)) == lines


def test_a_long_table_shows_its_first_rows():
    lines = [["input"], *([str(i)] for i in range(30))]
    assert prediction.table(lines, most=3) == "input\n0\n1\n2\n... and 27 more"
    assert "more" not in prediction.table(lines, most=30)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((4, 4)), r"the shape is \(4, 4\); this run takes \(12, 10, 1\), or many of them"),
        (np.full((12, 10), 0.5), "these are no raw elements of this run, which are uint8, from 0 to 255"),
        (np.full((12, 10), -1), "these are no raw elements of this run, which are uint8, from 0 to 255"),
        (np.full((12, 10), "a"), "these are no raw elements of this run, which are uint8, from 0 to 255"),
        (np.full((12, 10), 300), "these are no raw elements of this run, which are uint8, from 0 to 255"),
        (np.array(["a"]), "the shape is"),
        (np.array([None]), "not a readable .npy file"),
    ],
)
def test_an_array_that_does_not_fit_is_one_line(array, said, grey, tmp_path):
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match=said):
        answers(grey, tmp_path / "x.npy")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run=x", "inputs=/nothing"], "error: inputs=/nothing: no such file or folder\n"),
        (["run=x", f"inputs={ROOT}/Makefile"], ".jsonl, .ndjson), or a .npy file\n"),
        (["run=x", f"inputs={ROOT}/conf"], "the folder has no JPEG or PNG files\n"),
        (["run=x", "inputs=y", "top=0"], "error: top=0: should be at least 1\n"),
    ],
)
def test_a_mistake_is_one_line_and_code_two(words, said):
    command = [sys.executable, str(ROOT / "scripts/predict.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.endswith(said)
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_the_script_prints_and_writes_what_it_found(folder, tmp_path):
    compose(*QUICK).run(folder)
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").touch()
    command = [sys.executable, str(ROOT / "scripts/predict.py"), f"run={folder}", f"inputs={tmp_path}", "top=1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    place = folder / "predictions" / f"{tmp_path.name}.csv"
    assert done.stdout.splitlines()[-1] == f"1 answers: {place}"
    assert done.stderr == "1 unreadable files are left out: b.png (empty)\n"
    assert place.read_text().startswith("input,class_1,probability_1\n")
