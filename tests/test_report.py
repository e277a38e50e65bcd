"""What a finished run leaves to be looked at."""

from __future__ import annotations

import csv
import re

import numpy as np
import pytest
import sklearn.metrics

from conftest import QUICK
from descent import compose, plot, report
from descent.metric import confusion
from descent.types import Spec


@pytest.mark.slow
@pytest.mark.figures
def test_a_finished_run_leaves_its_figures_and_a_report_of_each_class(folder):
    compose(*QUICK).run(folder)
    names = {path.stem for path in (folder / "plots").glob("*.png")}
    assert names == {"learning_curves", "learning_rate", "preview", "confusion_matrix", "calibration"}
    with (folder / "class_report.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["class"] for line in lines] == list("0123456789")
    assert sum(int(line["samples"]) for line in lines) == 256
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png") == len(names)
    for line in lines:
        shown = re.search(rf"<tr><td>{line['class']}</td>(.*?)</tr>", page, re.DOTALL)
        assert shown is not None
        values = [float(value) for value in re.findall(r">([\d.]+)<", shown[1])]
        expected = [round(float(line[name]), 3) for name in ("precision", "recall", "f1", "samples")]
        assert values == expected


def test_the_class_report_is_scikit_learns(tmp_path):
    rng = np.random.default_rng(0)
    targets, outputs = rng.integers(0, 4, 60), rng.standard_normal((60, 4))
    outputs[:, 3] = -9  # a class that is never predicted
    report.classes(tmp_path / "x.csv", confusion(targets, outputs, 4), ["a, b", "c", "d", "e"])
    with (tmp_path / "x.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert lines[0]["class"] == "a, b"
    expected = sklearn.metrics.precision_recall_fscore_support(targets, outputs.argmax(1), zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "samples"), expected, strict=True):
        np.testing.assert_allclose([float(line[name]) for line in lines], values, atol=1e-6)


@pytest.mark.slow
@pytest.mark.figures
def test_a_finished_run_on_real_targets_leaves_a_figure_of_its_predictions(folder):
    compose(*QUICK, "data=linear", "loss=mse", "regularization=none").run(folder)
    names = {path.stem for path in (folder / "plots").glob("*.png")}
    assert names == {"learning_curves", "learning_rate", "predictions"}
    assert (folder / "report.html").read_text().count("data:image/png") == len(names)


def test_dollars_in_names_of_classes_begin_no_formula(tmp_path):
    names = ["$5%-$10%", "$10_$", "other"]
    plot.save(plot.confusion(np.eye(3, dtype=int), names, "t"), tmp_path, "confusion")
    plot.save(plot.images(np.zeros((3, 4, 4, 1)), names, "t"), tmp_path, "images")
    assert {path.suffix for path in tmp_path.glob("confusion.*")} == {".png", ".svg"}
    assert plot.confusion(np.eye(3, dtype=int), names, "t").axes[0].get_xticklabels()[0].get_text() == r"\$5%-\$10%"


def test_classes_without_names_are_numbers():
    spec = Spec(kind="image", shape=(4, 4, 1), sizes={"train": 1}, num_classes=3)
    assert spec.class_names == ("0", "1", "2")
    assert report.caption(spec, np.array([0.0, 1.0, 0.0])) == "1"


@pytest.mark.parametrize("shape", [(8, 8, 2), (1, 6, 1), (6, 1, 3), (1, 6, 3), (4, 4, 5)], ids=str)
def test_images_of_any_number_of_channels_are_drawn(shape: tuple[int, ...]):
    pictures = np.linspace(0, 1, 2 * int(np.prod(shape))).reshape(2, *shape)
    assert plot.images(pictures, ["a", "b"], "both").axes


@pytest.mark.parametrize("last", [2, 3, 7])
def test_steps_of_a_short_run_have_whole_ticks(last: int):
    """Found without `whole`: 1.0, 1.25, 1.5, ... in a run of two steps."""
    rows = [{"step": i, "train/loss": 1 / i, "val/loss": 1 / i} for i in range(1, last + 1)]
    rows = [row | {"train/learning_rate": 0.1, "train/grad_norm": 1.0} for row in rows]
    for made in (plot.learning_curves(rows, None), plot.learning_rate(rows)):
        ticks = made.axes[-1].get_xticks()
        assert np.array_equal(ticks, np.round(ticks))
