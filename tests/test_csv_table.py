"""Tables from CSV files: encoded as by scikit-learn on the training rows; what is wrong is named with its place."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from descent import UserError, compose
from descent.data import CsvTable
from descent.data.table import numeric
from descent.types import SPLITS, Source

ROWS = 60
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    counter = itertools.count()

    def inner(text: str | bytes, name: str = "") -> str:
        path = tmp_path / (name or f"{next(counter)}.csv")
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    return inner


def people(*, rows: int = ROWS, separator: str = ",", target: str = "price") -> str:
    """Numbers, some missing; words, some missing; a real target."""
    rng = np.random.default_rng(0)
    lines = [separator.join(("age", "city", "size", target))]
    for i in range(rows):
        age = "" if i % 7 == 0 else str(rng.integers(20, 80))
        city = "NA" if i % 11 == 0 else rng.choice(["Oslo", "Bergen", "Rome"])
        lines.append(separator.join((age, city, f"{rng.normal(100, 20):.3f}", f"{rng.normal(5000, 900):.2f}")))
    return "\n".join(lines) + "\n"


def opened(table: CsvTable) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return {split: (np.array(x), np.array(y)) for split, (x, y) in table.open().splits.items()}


def test_a_table_is_a_source_whose_splits_are_disjoint_and_everything(write):
    table = CsvTable(path=write(people()), target="price")
    assert isinstance(table, Source)
    parts = table.prepare().parts
    assert sorted(np.concatenate([parts[split] for split in SPLITS]).tolist()) == list(range(ROWS))
    assert {split: len(parts[split]) for split in SPLITS} == dict(table.spec.sizes)


def test_the_encoding_is_scikit_learns_fitted_on_the_training_rows(write):
    import pandas as pd

    path = write(people())
    table = CsvTable(path=path, target="price")
    frame, rows, spec = pd.read_csv(path), table.prepare(), table.spec
    frame["city"] = frame["city"].astype(object).where(frame["city"].notna(), "")
    reference = make_column_transformer(
        (SimpleImputer(add_indicator=True), ["age"]),
        (OneHotEncoder(sparse_output=False), ["city"]),
        (SimpleImputer(), ["size"]),
    )
    train = frame.iloc[rows.parts["train"]]
    reference.fit(train)
    for split, (inputs, targets) in opened(table).items():
        own = frame.iloc[rows.parts[split]]
        np.testing.assert_allclose(inputs, reference.transform(own), rtol=1e-6)
        np.testing.assert_allclose(targets, own["price"], rtol=1e-6)
    scaler = StandardScaler().fit(train[["age", "size"]])
    assert spec.features == ("age", "age is missing", "city=missing", "city=Bergen", "city=Oslo", "city=Rome", "size")
    np.testing.assert_allclose([spec.mean[0], spec.mean[-1]], scaler.mean_)
    np.testing.assert_allclose([spec.std[0], spec.std[-1]], scaler.scale_)
    assert (spec.target_mean, spec.target_std) == pytest.approx((train["price"].mean(), train["price"].std(ddof=0)))


def test_what_is_not_a_training_row_changes_nothing_that_is_fitted(write):
    table = CsvTable(path=write(people()), target="price")
    held = table.prepare().parts["test"]
    lines = people().splitlines()
    for row in held:
        lines[row + 1] = "-5000,Atlantis,9999,1"
    other = CsvTable(path=write("\n".join(lines)), target="price")
    assert other.prepare().encoding == table.prepare().encoding
    inputs, _ = opened(other)["test"]
    assert not inputs[:, 2:6].any()  # a new word is none of the known
    (note,) = [note for note in other.prepare().notes if "Atlantis" in note]
    assert f"{len(held)} test rows" in note


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_separators_and_line_endings_change_nothing(write, separator, ending):
    plain = CsvTable(path=write(people()), target="price")
    text = "\ufeff" + people(separator=separator).replace("\n", ending) + ending
    other = CsvTable(path=write(text), target="price")
    assert other.spec == plain.spec


def test_classes_are_words_or_few_whole_numbers_unless_told(write):
    path = write("x,y\n" + "".join(f"{i},{i % 10 + 1}\n" for i in range(40)))
    assert CsvTable(path=path, target="y").spec.class_names == tuple(str(i) for i in range(1, 11))
    assert CsvTable(path=path, target="y", task="regression").spec.num_classes is None
    assert CsvTable(path=path, target="x").spec.num_classes is None
    coded = CsvTable(path=path, target="x", categorical=("y",))
    assert coded.spec.shape == (10,)


def test_the_test_rows_may_have_a_file_of_their_own(write):
    table = CsvTable(path=write(people()), target="price", test_path=write(people(rows=9)))
    assert table.spec.sizes == {"train": 51, "validation": 9, "test": 9}  # 15 % of the 60 that are not the test
    assert table.prepare().parts["test"].tolist() == list(range(60, 69))


@pytest.mark.parametrize("value", [1.7, 0.1, -3.3, 0.0, 1e9 + 0.1])
def test_a_column_of_one_value_has_a_deviation_of_one(value):
    column = numeric("x", np.full(650, value))
    assert (column.mean, column.std) == (pytest.approx(value), 1.0)


def test_a_split_without_samples_is_named():
    with pytest.raises(UserError, match="no samples are left for the validation split"):
        compose("data=digits", "data.fold=1500", "data.folds=2000")


def test_rows_without_a_target_are_left_out_and_counted(write):
    lines = people().splitlines()
    lines[5], lines[8] = "30,Oslo,100,", "30,Oslo,100,nan"
    table = CsvTable(path=write("\n".join(lines)), target="price")
    assert sum(table.spec.sizes.values()) == ROWS - 2
    assert "2 of 60 rows have no value in column price (row 6, 9); they are left out" in table.prepare().notes[0]


def labelled(*labels: str) -> str:
    return "x,y\n" + "".join(f"{i},{label}\n" for i, label in enumerate(labels))


TWO = ["cat", "dog"] * 10


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a,b,y\n1,2,3\n1,2\n", {}, "row 3 has 2 cells, and the header has 3 columns"),
        ("a,b,y\n1,2,3\n1,2,3,4\n", {}, "row 3 has 4 cells"),
        ("name,y\nRené,1\n".encode("latin-1"), {}, "row 2, column name: byte 0xe9 is not utf-8"),
        ("name,y\nRené,1\n", {"encoding": "utf9"}, "there is no such encoding"),
        ("a,price\n1,2\n", {"target": "pric"}, "has no column pric; did you mean price?"),
        (labelled(*TWO), {"categorical": ("z",)}, "data.categorical: .* has no column z"),
        (labelled(*TWO), {"drop": ("x",)}, "no column beside the target"),
        (labelled(*["cat"] * 20), {}, "column y has the class cat only; at least 2"),
        (labelled(*TWO, "bird"), {}, "row 22, column y: the class bird has 1 rows only"),
        (labelled(*["1.5"] * 20), {}, "column y is 1.5 in every training row"),
        (
            labelled(*["1.5", "2.5"] * 9, "", ""),
            {},
            r"2 of 20 rows .* in column y \(row 20, 21\), more than",
        ),
        (labelled(*["1.5", "2.5"] * 9, "two"), {"task": "regression"}, "row 20, column y: 'two' is no number"),
        (labelled(*["1.5", "2.5"] * 9, "inf"), {}, "row 20, column y: an infinite number"),
        ("x,y\n" + "1,a\n2,b\n" * 10 + "1O,a\n", {}, r"row 22, column x: '1O' is no number; .*categorical=\[x\]"),
        ("x,x,y\n1,2,3\n", {}, "two columns are called x"),
        ("", {}, "its first line is empty"),
        ("x,y\n", {}, "no rows below the header"),
        ('x,y\n1,"open\n2,3\n', {}, "row 2: a quotation mark is open at the end of the file"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line_with_its_place(write, text, options, message):
    path = write(text)
    with pytest.raises(UserError, match=message) as caught:
        _ = CsvTable(**{"path": path, "target": "y"} | options).spec
    assert "\n" not in str(caught.value)


def test_what_is_wrong_with_test_rows_is_named(write):
    path = write(labelled(*TWO))
    with pytest.raises(UserError, match=r"test_path=.*: row 3, column y: no training row has the class bird"):
        _ = CsvTable(path=path, target="y", test_path=write(labelled("cat", "bird"))).spec
    with pytest.raises(UserError, match=r"column x of .* is missing"):
        _ = CsvTable(path=path, target="y", test_path=write("z,y\n1,cat\n")).spec


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=csv_table"], "data: path is null; name the file"),
        (["data=csv_table", "data.path=x.csv"], "data: target is null; name the column"),
        (["data=csv_table", "data.path=/nowhere/x.csv", "data.target=y"], "no such file or directory"),
    ],
)
def test_what_the_config_lacks_is_asked_for(words, message):
    with pytest.raises(UserError, match=message):
        compose(*words)


def test_a_run_keeps_its_encoding_and_refuses_another_file(write, tmp_path):
    path = write(people(), "kept.csv")
    table = CsvTable(path=path, target="price")
    table.keep(tmp_path)
    again = CsvTable(path=path, target="price").kept(tmp_path)
    assert again.prepare().encoding == table.prepare().encoding
    assert json.loads((tmp_path / "data.json").read_text())["encoding"]["target"] == "price"
    write(people().replace("Oslo", "Ulan"), "kept.csv")
    with pytest.raises(UserError, match="not the one this run was made with"):
        CsvTable(path=path, target="price").kept(tmp_path).prepare()
    assert table.kept(tmp_path / "nothing") is table


@pytest.mark.parametrize(("cell", "said"), [("12kg", "row 3, column x: '12kg' is no number"), ("", "row 3")])
def test_what_is_wrong_in_the_file_of_the_test_is_told_of_that_file(write, cell: str, said: str):
    lines = "".join(f"{i},{i % 5 + 0.5}\n" for i in range(40))
    own = write(f"x,y\n1,2.5\n{cell or 3},{'' if not cell else 1.5}\n" + lines)
    table = CsvTable(path=write("x,y\n" + lines), target="y", test_path=own, max_bad=0)
    with pytest.raises(UserError, match=f"^data.test_path={own}.*{said}"):
        table.prepare()
