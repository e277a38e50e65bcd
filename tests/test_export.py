"""An exported run answers as the run does, in every format, or is not kept."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from conftest import QUICK
from descent import UserError, compose, export
from descent.config import restore
from descent.model.layers import Dropout, StochasticDepth
from descent.session import build

ROOT = Path(__file__).resolve().parents[1]
CNN = ("model=cnn", "model.widths=[4,8]", "model.dense=8", "optimizer.learning_rate=0.01")


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("descent.report.draw", lambda *_: None)
        compose(*QUICK, *CNN).run(folder)
    return folder


def test_the_whole_test_split_scores_in_every_format_as_in_the_summary(finished):
    """The accuracy of the file on raw bytes is the one that the run wrote down."""
    experiment, built, folder = restore(finished)
    formats = list(export.WRITERS)
    made = export.export(experiment, built, folder.path / "export", formats)
    size = experiment.data.spec.sizes["test"]
    raw, labels = (np.asarray(t) for t in built.pipeline.source.gather("test", tf.range(size)))
    assert raw.dtype == np.uint8
    for name, path, difference in made:
        probabilities = export.WRITERS[name].answer(path, raw)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
        accuracy = folder.read_json("summary.json")["test/accuracy"]
        assert np.mean(probabilities.argmax(axis=1) == labels) == pytest.approx(accuracy, abs=1 / size), name
        assert difference < 1e-5
    about = json.loads((folder.path / "export/export.json").read_text())
    assert about["inputs"] == {"shape": [None, 8, 8, 1], "dtype": "uint8"}
    assert about["data"]["class_names"] == list("0123456789")
    assert set(about["largest_difference"]) == {"saved_model", "model.keras", "model.tflite", "model.onnx"}


def alone(script: str, file: Path, raw: np.ndarray) -> Any:
    """What a script prints as JSON, of a file and raw elements, in a process that has nothing of Descent."""
    given = file.with_name("raw.npy")
    np.save(given, raw)
    words = [sys.executable, "-I", "-c", "import json, sys\nimport numpy as np\n" + script, str(file), str(given)]
    return json.loads(subprocess.run(words, capture_output=True, text=True, timeout=300, check=True).stdout)


LOAD = """
import keras
answer = keras.models.load_model(sys.argv[1])(np.load(sys.argv[2]))
assert "descent" not in sys.modules
print(json.dumps(np.asarray(answer).tolist()))
"""


@pytest.mark.slow
def test_a_keras_file_of_plain_layers_needs_nothing_but_keras(finished, tmp_path):
    experiment, built, _ = restore(finished)
    export.export(experiment, built, tmp_path, ["keras"])
    raw = built.pipeline.source.gather("validation", tf.range(5))[0].numpy()
    np.testing.assert_allclose(alone(LOAD, tmp_path / "model.keras", raw), built.evaluator.answers(raw), atol=1e-5)


@pytest.mark.parametrize(("kind", "settings"), [(Dropout, {"spatial": True}), (StochasticDepth, {})])
def test_dropout_in_a_keras_file_silences_what_it_silenced(kind, settings):
    """For whoever trains on from there: maps, or samples, as a whole."""
    inputs, layer = keras.Input([4, 5, 6]), kind(0.5, **settings)
    plain = keras.models.clone_model(keras.Model(inputs, layer(inputs)), clone_function=export._plain)
    outputs = np.array(plain(np.ones([40, 4, 5, 6], np.float32), training=True))
    shared = outputs.reshape(40, 20, 6) if layer.spatial else outputs.reshape(40, 120, 1)
    assert np.array_equal(shared, np.broadcast_to(shared[:, :1], shared.shape))
    assert set(np.unique(shared)) == {0.0, 2.0}


SERVE = """
import tensorflow as tf
answer = tf.saved_model.load(sys.argv[1]).signatures["serving_default"](inputs=tf.constant(np.load(sys.argv[2])))
assert "descent" not in sys.modules
print(json.dumps([answer["probabilities"].numpy().tolist(), [word.decode() for word in answer["class"].numpy()]]))
"""


@pytest.mark.slow
def test_a_saved_model_needs_nothing_but_tensorflow(finished, tmp_path):
    experiment, built, _ = restore(finished)
    export.export(experiment, built, tmp_path, ["saved_model"])
    raw = built.pipeline.source.gather("validation", tf.range(5))[0].numpy()
    probabilities, classes = alone(SERVE, tmp_path / "saved_model", raw)
    np.testing.assert_allclose(probabilities, built.evaluator.answers(raw), atol=1e-5)
    assert classes == [experiment.data.spec.class_names[i] for i in np.argmax(probabilities, axis=1)]


def test_an_onnx_file_names_its_classes(finished, tmp_path):
    import onnx

    experiment, built, _ = restore(finished)
    export.export(experiment, built, tmp_path, ["onnx"])
    named = {entry.key: entry.value for entry in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert json.loads(named["class_names"]) == list("0123456789")


@pytest.mark.parametrize(
    "words",
    [
        ["model=vit_tiny", "model.patch=4", "model.width=8", "model.depth=1", "model.heads=2"],
        ["model=convnext_tiny", "model.widths=[4,8]", "model.blocks=[1,1]"],
        ["data.num_classes=null", "loss=mse", "regularization=none"],
        ["loss=mse", "regularization=none"],
        [*CNN, "loss=binary_cross_entropy"],
        [*CNN, "trainer.precision=mixed_bfloat16"],
    ],
    ids=lambda words: " ".join(words[-2:]),
)
def test_every_format_expresses_every_kind_of_model(words, tmp_path):
    """Exact GELU, layer norms, real targets, other losses' probabilities; one in bfloat16 is exported in float32."""
    experiment = compose(*QUICK, *words).resolved()
    made = export.export(experiment, build(experiment), tmp_path, list(export.WRITERS))
    assert len(made) == 4
    assert {path.name for path in tmp_path.iterdir()} == {path.name for _, path, _ in made} | {"export.json"}


@pytest.mark.parametrize("name", list(export.WRITERS))
def test_what_answers_otherwise_is_not_kept(name, finished, tmp_path, monkeypatch):
    experiment, built, _ = restore(finished)
    (first,) = export.export(experiment, built, tmp_path, [name])
    before = content(first.path)
    writer = export.WRITERS[name]
    wrong = writer._replace(answer=lambda path, raw: writer.answer(path, raw) + 0.001)
    monkeypatch.setitem(export.WRITERS, name, wrong)
    with pytest.raises(UserError, match=rf"^format={name}: what was written differs from the run by 0.001"):
        export.export(experiment, built, tmp_path, [name])
    assert content(first.path) == before
    assert {path.name for path in tmp_path.iterdir()} == {first.path.name, "export.json"}


def content(path: Path) -> dict[str, bytes]:
    files = path.rglob("*") if path.is_dir() else [path]
    return {str(file): file.read_bytes() for file in files if file.is_file()}


def test_a_later_export_takes_the_place_of_an_earlier_one(finished, tmp_path):
    experiment, built, _ = restore(finished)
    (first,) = export.export(experiment, built, tmp_path, ["saved_model"])
    (first.path / "stale").write_text("of the earlier one")
    export.export(experiment, built, tmp_path, ["saved_model"])
    assert not (first.path / "stale").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"saved_model", "export.json"}


def test_what_a_format_cannot_express_is_one_line(finished, tmp_path, monkeypatch):
    def fails(served, path):
        raise ValueError("no such\noperation: " + "x" * 1000)

    experiment, built, _ = restore(finished)
    monkeypatch.setitem(export.WRITERS, "litert", export.WRITERS["litert"]._replace(write=fails))
    with pytest.raises(UserError, match=r"^format=litert: this model cannot be written so \(no such operation: x+\)$"):
        export.export(experiment, built, tmp_path, ["litert"])
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named_before_anything_is_read(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"format=onnx needs .* not installed: pip install onnx onnxruntime tf2onnx$"):
        export.require(["keras", "onnx"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run=/nowhere"], "error: /nowhere: no run folder (it has no config.yaml)\n"),
        (["run=x", "format=tflite"], "error: format[0]=tflite: should be 'keras', 'saved_model', 'litert' or 'onnx'\n"),
        (["rnu=x"], "error: rnu: there is no such key; did you mean run? (and 1 more)\n"),
    ],
)
def test_a_mistake_is_one_line_and_code_two(words, said):
    command = [sys.executable, str(ROOT / "scripts/export.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (2, said)
