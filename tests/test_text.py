"""Texts: the vocabulary is Keras' own, splits are disjoint, the cache is exact, bad files are one line."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from descent import UserError, vocabulary, wordnet
from descent.data import CsvText, Docstrings, Imdb, WordNet
from descent.data import docstrings as reading
from descent.data import text as caching
from samples import json_lines, small_wordnet, text_file, wordnet_folder

TEXTS = [
    "The cat sat; the CAT ran!",
    "tabs\tand\nlines  and\r\nblanks, don't_stop (3.5)",
    "Ärger mit Umlauten: ÄÖÜ äöü",
    "a a a b b c c d e f [UNK] g",
    "non breaking\u3000wide",
    "",
    "   ...   ",
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches/descent"


# --- the vocabulary ---


@pytest.mark.parametrize("size", [None, 5, 9, 14])
def test_ids_are_those_of_keras(size):
    layer = keras.layers.TextVectorization(max_tokens=size, output_sequence_length=8)
    layer.adapt(TEXTS)
    tokens = [vocabulary.words(text) for text in TEXTS]
    learned = vocabulary.learn(tokens, size or 1000)
    assert list(learned) == layer.get_vocabulary()
    ids = vocabulary.encode(tokens, {word: i for i, word in enumerate(learned)}, 8)
    np.testing.assert_array_equal(ids, layer(TEXTS))


# --- all sources ---


def csv_text(tmp_path: Path, **fields) -> CsvText:
    return CsvText(path=text_file(tmp_path / "files"), length=8, **fields)


def test_the_vocabulary_is_of_the_training_split_alone(tmp_path):
    source = csv_text(tmp_path, max_words=1000)
    train = {word for text in source.texts()["train"][0] for word in vocabulary.words(text)}
    assert set(source.spec.words) == train | {vocabulary.PADDING, vocabulary.UNKNOWN}
    test = source.texts()["test"][0]
    ids = source.open().splits["test"][0].numpy()
    np.testing.assert_array_equal(ids, source.encode(test))
    assert (ids == 1).any()  # numbers that occur in the test split alone


def test_splits_are_disjoint_and_together_everything(tmp_path):
    source = csv_text(tmp_path)
    splits = source.texts()
    assert {split: len(labels) for split, (_, labels) in splits.items()} == source.spec.sizes
    every = [text for texts, _ in splits.values() for text in texts]
    assert len(set(every)) == len(every) == 120
    for _, labels in splits.values():
        assert abs(sum(labels) / len(labels) - 0.5) < 0.1


def test_folds_are_disjoint_and_together_everything(tmp_path):
    held = [csv_text(tmp_path, fold=fold, folds=3).texts()["validation"][0] for fold in range(3)]
    rest = csv_text(tmp_path).texts()["test"][0]
    assert sorted(text for part in held for text in part) == sorted({t for p in held for t in p})
    assert sum(map(len, held)) + len(rest) == 120


def test_the_cache_is_what_was_read_and_a_damaged_one_is_made_anew(tmp_path, cache, monkeypatch):
    first = csv_text(tmp_path)
    arrays = {split: [t.numpy() for t in pair] for split, pair in first.open().splits.items()}
    with monkeypatch.context() as patch:
        patch.setattr(CsvText, "read", lambda _: pytest.fail("read again"))
        again = csv_text(tmp_path)
        assert again.spec == first.spec
        for split, pair in again.open().splits.items():
            for a, b in zip(pair, arrays[split], strict=True):
                np.testing.assert_array_equal(a, b)
    for file in cache.glob("text-*.npz"):
        file.write_bytes(file.read_bytes()[:-9])
    assert csv_text(tmp_path).spec == first.spec


def test_another_file_or_setting_is_another_entry(tmp_path, cache):
    assert csv_text(tmp_path).spec.sizes != csv_text(tmp_path, test=0.3).spec.sizes
    count = len(list(cache.glob("text-*.json")))
    assert count == 2
    source = csv_text(tmp_path)
    Path(str(source.path)).write_text("text,label\n" + "some words here,a\nother words there,b\n" * 30)
    assert CsvText(path=source.path).spec.class_names == ("a", "b")


def test_without_a_place_for_the_cache_it_still_works(tmp_path, monkeypatch):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder is wanted")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert csv_text(tmp_path).open().splits["train"][0].shape == (96, 8)


def test_a_run_keeps_its_vocabulary(tmp_path):
    source = csv_text(tmp_path)
    (tmp_path / "run").mkdir()
    source.keep(tmp_path / "run")
    kept = csv_text(tmp_path, split_seed=5).kept(tmp_path / "run")
    assert kept.spec.words == source.spec.words
    assert csv_text(tmp_path).kept(tmp_path / "files") == csv_text(tmp_path)
    (tmp_path / "run" / caching.FILE).write_text("{")
    with pytest.raises(UserError, match="not a readable vocabulary"):
        _ = csv_text(tmp_path).kept(tmp_path / "run").spec


def test_texts_that_changed_since_the_run_are_told(tmp_path, capsys):
    source = csv_text(tmp_path)
    (tmp_path / "run").mkdir()
    source.keep(tmp_path / "run")
    source.kept(tmp_path / "run").open()
    assert "of other texts" not in capsys.readouterr().out
    path = Path(str(source.path))
    path.write_text(path.read_text() + "one more of these,good\n")
    CsvText(path=str(path), length=8).kept(tmp_path / "run").open()
    assert "vocabulary.json is of other texts than these are now" in capsys.readouterr().out


def test_a_cached_config_costs_no_tensorflow(tmp_path):
    code = (
        "import sys\n"
        "from descent import compose\n"
        f"compose('data=csv_text', 'data.path={text_file(tmp_path / 'files')}', 'model=lstm')\n"
        "assert not {'tensorflow', 'keras', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})


# --- CSV, TSV, JSON lines ---


GOOD = "".join(f"word{i} of it,{'ab'[i % 2]}\n" for i in range(40))


def written(tmp_path: Path, content: str | bytes, name: str = "t.csv") -> str:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def failing(**fields) -> str:
    with pytest.raises(UserError) as caught:
        _ = CsvText(**fields).spec
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("mark", ["\u2028", "\x85", "\x0c", "\x1c"], ids=ascii)
def test_only_the_ends_of_lines_end_rows(tmp_path, mark):
    table = CsvText(path=written(tmp_path, f"text,label\nvery{mark}good,a\n{GOOD}"), max_bad=0.0)
    objects = "".join(
        json.dumps({"text": f"so{mark}good {i}", "label": "ab"[i % 2]}, ensure_ascii=False) + "\r\n" for i in range(40)
    )
    lines = CsvText(path=written(tmp_path, objects, "t.jsonl"), max_bad=0.0)
    assert sum(table.spec.sizes.values()) == 41
    assert sum(lines.spec.sizes.values()) == 40


def test_bad_rows_are_left_out_named_and_counted(tmp_path, capsys):
    path = written(tmp_path, f"text,label\n{GOOD}ragged,a,more\n...,a\nsome words,nan\nsome words,\n")
    source = CsvText(path=path, max_bad=0.2)
    source.open()
    told = capsys.readouterr().out
    assert f"4 bad rows of {path} are left out: row 42 (3 cells for 2 columns), row 43 (column text: no words)" in told
    assert "and 1 more" in told
    assert sum(source.spec.sizes.values()) == 40
    assert "4 of 44 rows are bad, more than data.max_bad=0.05 of them: row 42" in failing(path=path)


@pytest.mark.parametrize(
    ("content", "fields", "said"),
    [
        (f"text,label\n{GOOD}".replace("word7", "wörd7").encode("latin-1"), {}, "row 9, column text: byte 0xf6 is not"),
        (f"words,label\n{GOOD}", {}, "has no such column; it has words, label"),
        (f"text,label\n{GOOD}", {"label_column": "target"}, "data.label_column=target: "),
        (f"text,label\n{GOOD}".replace(",b", ",a"), {}, "column label: every label is a; at least 2 classes"),
        (f"text,label\n{GOOD}one more,c\n", {}, "class c has 1 rows; at least 3"),
        ("text,label\n", {}, "no rows with a text and a label"),
        ("", {}, "has no such column; it has none"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, content, fields, said):
    assert said in failing(path=written(tmp_path, content), **fields)


def test_a_label_that_occurs_in_the_test_file_alone_is_named(tmp_path):
    path = written(tmp_path, f"text,label\n{GOOD}")
    test = written(tmp_path, "text,label\nsome words,a\nother words,z\n", "test.csv")
    assert f"{test}, row 3, column label: z is no class of the training file (a, b)" in failing(
        path=path, test_path=test
    )
    good = written(tmp_path, "text,label\nsome words,a\nother words,b\n", "good.csv")
    assert CsvText(path=path, test_path=good).spec.sizes == {"train": 36, "validation": 4, "test": 2}


def test_missing_files_and_strange_endings(tmp_path):
    assert "there is no such file" in failing(path=str(tmp_path / "none.csv"))
    assert "should end in .csv, .tsv" in failing(path=written(tmp_path, "x", "t.xls"))
    with pytest.raises(ValueError, match="path is null"):
        CsvText()
    with pytest.raises(ValueError, match="no such encoding"):
        CsvText(path="t.csv", encoding="utf-99")


def test_other_formats_hold_the_same(tmp_path):
    tsv = written(tmp_path, "label\ttext\n" + "".join(f"{'ab'[i % 2]}\tword{i}, of it\n" for i in range(40)), "t.tsv")
    rows = [{"text": f"word{i}, of it", "label": "ab"[i % 2]} for i in range(40)]
    lines = written(tmp_path, json_lines(rows), "t.jsonl")
    latin = written(tmp_path, f"text,label\n{GOOD}".replace("it", "ït").encode("latin-1"), "l.csv")
    assert CsvText(path=tsv).texts() == CsvText(path=lines).texts()
    assert "ït" in CsvText(path=latin, encoding="latin-1").spec.words
    assert "\ufefftext" not in CsvText(path=written(tmp_path, f"\ufefftext,label\n{GOOD}", "bom.csv")).spec.words


def test_bad_json_lines_are_named(tmp_path, capsys):
    rows = [{"text": f"word{i}", "label": i % 2} for i in range(40)]
    path = written(tmp_path, json_lines(rows) + '{"text": \n{"text": "x"}\n[1]\n', "t.jsonl")
    CsvText(path=path, max_bad=0.1).open()
    told = capsys.readouterr().out
    assert "row 41 (not JSON), row 42 (no key label), row 43 (not an object with texts)" in told


# --- WordNet ---


def test_definitions_and_categories_are_read_from_the_database(tmp_path):
    folder = wordnet_folder(
        tmp_path,
        {"noun": [("cat feline", "a small animal; it purrs"), ("dog", "same")], "adj": [("big(a) large", "same")]},
    )
    found = list(wordnet.synsets(Path(folder)))
    assert found == [
        (0, ("big", "large"), "same"),
        (5, ("cat", "feline"), "a small animal; it purrs"),
        (5, ("dog",), "same"),
    ]
    assert wordnet.CATEGORIES[5] == "noun.animal"
    assert len(set(wordnet.CATEGORIES)) == 45
    assert wordnet.synonyms(Path(folder)) == {
        "cat": ("feline",), "feline": ("cat",), "big": ("large",), "large": ("big",)
    }  # fmt: skip


def test_of_equal_definitions_one_is_kept(tmp_path):
    source = WordNet(path=small_wordnet(tmp_path))
    texts = [text for part, _ in source.texts().values() for text in part]
    assert len(texts) == len(set(texts)) == sum(source.spec.sizes.values()) == 240
    assert source.spec.class_names == ("adj.all", "adv.all", "noun.animal", "verb.motion")


def test_a_damaged_or_missing_wordnet_is_one_line(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"no folder with data\.adj"):
        _ = WordNet(path=str(tmp_path / "none")).spec
    folder = Path(small_wordnet(tmp_path))
    (folder / "data.noun").write_text("nonsense\n")
    with pytest.raises(UserError, match=r"data\.noun, line 1: not a line of a WordNet database"):
        _ = WordNet(path=str(folder)).spec
    monkeypatch.setattr(wordnet, "find", lambda _: None)
    with pytest.raises(UserError, match="apt install wordnet-base"):
        _ = WordNet().spec


def test_nltks_folder_is_found(tmp_path, monkeypatch):
    (tmp_path / "corpora/wordnet").mkdir(parents=True)
    small_wordnet(tmp_path / "corpora/wordnet")
    monkeypatch.setenv("NLTK_DATA", str(tmp_path))
    monkeypatch.setattr(wordnet, "DEBIAN", tmp_path / "none")
    assert wordnet.find() == tmp_path / "corpora/wordnet"


@pytest.mark.skipif(wordnet.find() is None, reason="needs wordnet-base")
def test_the_real_wordnet_has_its_known_size():
    """117,659 sets of synonyms (WordNet's statistics, `man 7 wnstats`) in 45 categories."""
    found = list(wordnet.synsets(wordnet.find()))
    assert len(found) == 117_659
    assert {synset.category for synset in found} == set(range(45))
    assert "feline" in wordnet.synonyms(wordnet.find())["cat"] or "true cat" in {w for s in found for w in s.words}


# --- IMDB ---


def imdb_folder(place: Path) -> str:
    place.mkdir()
    index = {"the": 1, "good": 2, "bad": 3, "film": 4}
    (place / "imdb_word_index.json").write_text(json.dumps(index))
    reviews = np.array([[1, 2, 4], [1, 3, 4, 4]] * 20, dtype=object)
    labels = np.array([1, 0] * 20)
    np.savez(place / "imdb.npz", x_train=reviews, y_train=labels, x_test=reviews[:10], y_test=labels[:10])
    return str(place)


def test_imdb_is_read_from_keras_own_files(tmp_path):
    source = Imdb(path=imdb_folder(tmp_path / "imdb"), validation=0.25)
    assert source.spec.sizes == {"train": 30, "validation": 10, "test": 10}
    assert source.texts()["test"][0][:2] == ["the good film", "the bad film film"]
    assert source.texts()["test"][1][:2] == [1, 0]


def test_imdb_is_declared_until_it_is_here_and_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    assert Imdb().spec.sizes == {"train": 22_500, "validation": 2_500, "test": 25_000}
    monkeypatch.setattr(keras.datasets.imdb, "load_data", lambda: (_ for _ in ()).throw(OSError("no network")))
    with pytest.raises(UserError, match="data=imdb is not on this machine; two ways"):
        Imdb().prepare()
    with pytest.raises(UserError, match="no folder with"):
        _ = Imdb(path=str(tmp_path)).spec


# --- docstrings ---


def test_names_of_libraries_are_masked():
    text = reading.masked("See np.sum, numpy_helper, NumPy's and tf.keras.layers; a richer numpyish spline of sklearn.")
    words = vocabulary.words(text)
    assert words.count(vocabulary.MASKED) == 6
    assert not {"np", "numpy", "tf", "keras", "sklearn"} & set(words)
    assert {"sum", "helper", "layers", "richer", "numpyish", "spline"} <= set(words)


def test_texts_to_predict_are_masked_as_those_that_were_trained_on(monkeypatch):
    words = ("", "[UNK]", *vocabulary.words(reading.masked("numpy.sum of array_like")))
    monkeypatch.setattr(reading.Docstrings, "fitted", SimpleNamespace(words=words))
    assert reading.Docstrings(length=4).encode(["numpy.sum of array_like"]).tolist() == [[2, 3, 4, 5]]


def test_docstrings_are_read_without_importing(tmp_path):
    file = tmp_path / "module.py"
    file.write_text(
        '"""Module."""\nraise SystemExit\nclass A:\n    """Class."""\n    def f(self):\n        """Method."""\n'
    )
    assert reading.docstrings(str(file)) == ["Module ", "Class ", "Method "]
    file.write_text("def broken(:\n")
    assert reading.docstrings(str(file)) == []


def test_a_package_that_is_imported_and_has_changed_its_path_is_read_the_same(tmp_path, monkeypatch):
    """As TensorFlow does: what is read must not depend on what the process did before."""
    for name in ("inner.py", "hidden/other.py", "__init__.py"):
        (tmp_path / "wandering" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "wandering" / name).write_text('"""Words."""')
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/more.py").write_text('"""More words."""')
    monkeypatch.syspath_prepend(str(tmp_path))
    before = reading._files("wandering", 9)
    package = importlib.import_module("wandering")
    package.__path__.append(str(tmp_path / "elsewhere"))
    assert reading._files("wandering", 9) == before
    assert len(before) == 3
    monkeypatch.delitem(sys.modules, "wandering")


def test_near_duplicates_are_removed_and_others_stay():
    base = [f"w{i}" for i in range(40)]
    near, far = [*base[:-1], "other"], [*base[:20], *(f"x{i}" for i in range(20))]
    assert reading.distinct([base, base, near, far, ["short"], ["short"]]) == [0, 3, 4]


def test_docstrings_are_the_same_each_time_and_capped(monkeypatch):
    monkeypatch.setattr(reading, "LIBRARIES", {"rich": "rich", "pydantic": "pydantic"})
    first, again = (Docstrings(files=12, largest=20).read() for _ in range(2))
    assert first == again
    assert first.digest == again.digest
    labels = first.splits["train"][1]
    assert max(labels.count(0), labels.count(1)) == 20
