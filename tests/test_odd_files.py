"""Files as people have them: what is odd in one is told, and never costs the rest of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from descent import UserError, prediction
from descent.data import CsvTable, CsvText, ImageFolder, Imdb, Remembered, csv_file, raw_texts
from descent.types import Spec


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))


def written(path: Path, *lines: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def labelled(count: int) -> list[str]:
    return [f"word{i} and more,{'ab'[i % 2]}" for i in range(count)]


# --- texts ---


def test_an_open_quotation_mark_does_not_swallow_the_rest(tmp_path):
    rows = labelled(60)
    path = written(tmp_path / "texts.csv", "text,label", *rows[:30], '"a broken one,a', *rows[30:])
    with pytest.raises(UserError, match=r"data\.path=.*: row 32: a quotation mark is open at the end of the file"):
        _ = CsvText(path=path).spec


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_the_last_row_counts_however_the_file_ends(tmp_path, end):
    path = tmp_path / "texts.csv"
    path.write_text("\n".join(["text,label", *labelled(40), '"the ""last"" one,\nof two lines",a']) + end, newline="")
    assert sum(CsvText(path=str(path)).spec.sizes.values()) == 41


def test_half_a_character_makes_a_bad_row(tmp_path, capsys):
    rows = [json.dumps({"text": f"some words {i}", "label": "ab"[i % 2]}) for i in range(40)]
    path = written(tmp_path / "texts.jsonl", *rows, '{"text": "broken \\ud83d emoji", "label": "a"}')
    assert sum(CsvText(path=path).spec.sizes.values()) == 40
    assert raw_texts.read(Path(path), "text").bad == ("row 41 (half a character)",)


def test_a_long_text_is_answered_as_it_was_learned(tmp_path):
    import csv

    path = written(tmp_path / "long.csv", "text,label", "word " * 50_000 + ",a")
    assert csv.field_size_limit() > 250_000
    assert len(raw_texts.read(Path(path), "text").texts[0].split()) == 50_000


# --- tables ---


def test_one_infinity_among_words_is_a_word(tmp_path):
    rows = [f"{('ford', 'bmw', 'Infinity')[i % 3]},{i}" for i in range(30)]
    sheet = csv_file.read("data.path", written(tmp_path / "cars.csv", "brand,price", *rows), "utf-8", "auto")
    assert csv_file.numbers(sheet, "brand", wanted=False) is None
    assert csv_file.numbers(sheet, "price", wanted=True).tolist() == list(range(30))


def test_codes_with_underscores_are_words(tmp_path):
    path = written(tmp_path / "codes.csv", "code,y", *(f"{i % 3}_{i % 2},{i % 2}" for i in range(30)))
    assert csv_file.numbers(csv_file.read("data.path", path, "utf-8", "auto"), "code", wanted=False) is None


def test_a_class_that_validation_takes_whole_is_told(tmp_path):
    rows = [f"{i},{'ab'[i % 2]}" for i in range(20)]
    path = written(tmp_path / "table.csv", "x,y", *rows, "20,c")
    test = written(tmp_path / "test.csv", "x,y", "1,a", "2,b")
    with pytest.raises(UserError, match=r"data\.path=.*: row 22, column y: the class c has too few rows"):
        _ = CsvTable(path=path, target="y", test_path=test, validation=0.3).spec


# --- images ---


def images(root: Path) -> Path:
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for i in range(30):
            Image.new("RGB", (4, 4), (i, len(name), i)).save(root / name / f"{i}.png")
    return root


def test_a_name_that_is_no_utf8_makes_a_bad_file(tmp_path, capsys):
    root = images(tmp_path / "images")
    os.rename(root / "a/0.png", os.fsencode(root) + b"/a/caf\xe9.png")
    source = ImageFolder(path=str(root), size=(4, 4))
    assert sum(source.spec.sizes.values()) == 59
    source.open()
    assert "1 unreadable files" in (told := capsys.readouterr().out)
    assert "its name is not UTF-8" in told


def test_a_bad_file_more_makes_no_other_data(tmp_path, capsys):
    root = images(tmp_path / "images")
    ImageFolder(path=str(root), size=(4, 4)).keep(tmp_path)
    (root / "a/bad.jpg").write_bytes(b"no image")
    ImageFolder(path=str(root), size=(4, 4)).kept(tmp_path).open()
    assert "others" not in capsys.readouterr().out


def test_what_a_run_kept_may_be_damaged(tmp_path):
    (tmp_path / "data.json").write_text('{"digest"')
    with pytest.raises(UserError, match=r"data\.json is damaged"):
        ImageFolder(path=str(tmp_path)).kept(tmp_path)


def test_image_files_for_a_run_on_other_channels_are_refused(tmp_path):
    images(tmp_path / "images")
    inputs = prediction.find(str(tmp_path / "images/a"))
    spec = Spec(kind="image", shape=(8, 8, 2), sizes={}, num_classes=2)
    with pytest.raises(UserError, match=r"the run's images have 2 channels; give raw elements as a \.npy file"):
        next(prediction._images(inputs, spec, float, "crop"))


def test_to_ask_whether_a_source_remembers_costs_nothing():
    """On Python 3.11 a protocol's properties are evaluated; this set is not there."""
    assert isinstance(Imdb(), Remembered)
