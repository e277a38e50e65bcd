"""A finished run's model for use elsewhere: from raw elements to probabilities, in four formats.

What is exported holds everything between the raw data and the answer: scaling, standardising, the best weights, the
softmax; a SavedModel also the names of the classes. It computes in float32, whatever the run's precision was.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from etils import epy

from descent import environment
from descent.folder import write_atomic
from descent.step import scaled
from descent.types import Spec, UserError

with epy.lazy_imports():
    import keras
    import tensorflow as tf

if TYPE_CHECKING:
    from descent.experiment import Experiment
    from descent.session import Built

Format = Literal["keras", "saved_model", "litert", "onnx"]
SAMPLES = 256  # of the test split, that a check compares
# Largest difference of probabilities: float32 sums in another order, or what the run rounded to 8 bits and the export
# does not.
TOLERANCE = {"float32": 1e-4, "mixed_bfloat16": 0.05, "mixed_float16": 0.02}
OPSET = 18  # of ONNX: the newest that tf2onnx 1.17 writes


@dataclasses.dataclass(frozen=True)
class Served:
    """The model as others call it: raw elements [b, ...] in, `probabilities` [b, n] or real `values` [b, 1] out."""

    model: keras.Model
    spec: Spec
    dtype: tf.DType
    logits: Callable[[Any], Any] = lambda outputs: outputs

    @property
    def signature(self) -> tf.TensorSpec:
        return tf.TensorSpec([None, *self.spec.shape], self.dtype, name="inputs")

    def __call__(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = self.logits(self.model(scaled(self.spec, inputs), training=False))
        return {"probabilities": tf.nn.softmax(outputs)} if self.spec.num_classes else {"values": outputs}

    def named(self, inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        """The same, with the `class` of each sample [b] in words."""
        answer = self(inputs)
        if not self.spec.class_names:
            return answer
        best = tf.argmax(answer["probabilities"], axis=-1)
        return answer | {"class": tf.gather(tf.constant(self.spec.class_names), best)}


class Writer(NamedTuple):
    """A format.

    Attributes:
        file: name of what is written.
        write: puts a served model at a path.
        answer: what the file at a path says to raw elements [m, ...]: [m, n].
        packages: what it needs beside the core, as pip calls it: the names to import.
    """

    file: str
    write: Callable[[Served, Path], None]
    answer: Callable[[Path, np.ndarray], np.ndarray]
    packages: dict[str, str]


# --- formats -------------------------------------------------------------------------------------------------------


def _write_keras(served: Served, path: Path) -> None:
    """One Keras model from raw elements to probabilities; the trained model is a layer of it."""
    inputs = keras.Input(served.spec.shape, dtype=served.dtype.name, name="inputs")
    text = served.spec.kind == "text"
    x = inputs if text else keras.layers.Rescaling(served.spec.scale, name="scale")(inputs)
    model = keras.models.clone_model(served.model, clone_function=_plain)
    model.set_weights(served.model.get_weights())
    outputs = served.logits(model(x))
    if served.spec.num_classes:
        outputs = keras.layers.Softmax(name="probabilities")(outputs)
    keras.Model(inputs, outputs, name="served").save(path)


def _plain(layer: keras.Layer) -> keras.Layer:
    """A layer like it, of Keras' own where ours is another in training only: the file then loads without Descent."""
    from descent.model.convolution import Conv2D
    from descent.model.layers import BatchNormalization, Dropout

    if isinstance(layer, Dropout):
        return keras.layers.Dropout(layer.rate, tuple(layer.noise_shape(layer.input.ndim)), name=layer.name)
    own = {Conv2D: keras.layers.Conv2D, BatchNormalization: keras.layers.BatchNormalization}
    return own.get(type(layer), type(layer)).from_config(layer.get_config())


def _answer_keras(path: Path, raw: np.ndarray) -> np.ndarray:
    return np.asarray(keras.saving.load_model(path)(tf.constant(raw), training=False))


def _write_saved_model(served: Served, path: Path) -> None:
    archive = keras.export.ExportArchive()
    archive.track(served.model)
    archive.add_endpoint("serve", served.named, input_signature=[served.signature])
    archive.write_out(str(path), verbose=False)


def _answer_saved_model(path: Path, raw: np.ndarray) -> np.ndarray:
    answer = tf.saved_model.load(str(path)).signatures["serving_default"](inputs=tf.constant(raw))
    return np.asarray(next(answer[name] for name in ("probabilities", "values") if name in answer))


def _write_litert(served: Served, path: Path) -> None:
    """Through a SavedModel: only that way the converter freezes Keras' variables."""
    between = path.with_name(f"{path.name}.saved_model")
    archive = keras.export.ExportArchive()
    archive.track(served.model)
    archive.add_endpoint("serve", served.__call__, input_signature=[served.signature])
    try:
        archive.write_out(str(between), verbose=False)
        path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(between)).convert())
    finally:
        shutil.rmtree(between, ignore_errors=True)


def _answer_litert(path: Path, raw: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    return next(iter(Interpreter(str(path)).get_signature_runner()(inputs=raw).values()))


def _write_onnx(served: Served, path: Path) -> None:
    import tf2onnx

    traced = tf.function(served.__call__, autograph=False)
    handlers: dict[str, tuple[Any, list[Any]]] = {"Erfc": (_erfc, [])}
    made, _ = tf2onnx.convert.from_function(traced, [served.signature], opset=OPSET, custom_op_handlers=handlers)
    named = made.metadata_props.add()
    named.key, named.value = "class_names", json.dumps(served.spec.class_names)
    path.write_bytes(made.SerializeToString())


def _erfc(graph: Any, node: Any, name: str, _: Any) -> None:
    """`1 - erf(x)`, in which TensorFlow writes its exact GELU and which ONNX does not have."""
    (x,), outputs = node.input, node.output
    shape, dtype = graph.get_shape(outputs[0]), graph.get_dtype(outputs[0])
    one = graph.make_const(f"{name}_one", np.array(1, np.float32)).output[0]
    graph.remove_node(name)
    erf = graph.make_node("Erf", [x]).output[0]
    graph.make_node("Sub", [one, erf], outputs=outputs, name=name, shapes=[shape], dtypes=[dtype])


def _answer_onnx(path: Path, raw: np.ndarray) -> np.ndarray:
    import onnxruntime

    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"inputs": raw})[0]


WRITERS: dict[Format, Writer] = {
    "keras": Writer("model.keras", _write_keras, _answer_keras, {}),
    "saved_model": Writer("saved_model", _write_saved_model, _answer_saved_model, {}),
    "litert": Writer("model.tflite", _write_litert, _answer_litert, {"ai-edge-litert": "ai_edge_litert"}),
    "onnx": Writer(
        "model.onnx",
        _write_onnx,
        _answer_onnx,
        {"onnx": "onnx", "onnxruntime": "onnxruntime", "tf2onnx": "tf2onnx"},
    ),
}


# --- writing and checking ------------------------------------------------------------------------------------------


def require(formats: Sequence[Format]) -> None:
    """Asks for the packages of these formats before anything slow happens.

    Raises:
        UserError: one is not installed.
    """
    for name in formats:
        if missing := [p for p, module in WRITERS[name].packages.items() if importlib.util.find_spec(module) is None]:
            raise UserError(f"format={name} needs packages that are not installed: pip install {' '.join(missing)}")


class Export(NamedTuple):
    """What was kept: the format, where it is, and its largest difference from the run's own outputs."""

    format: Format
    path: Path
    difference: float


def export(experiment: Experiment, built: Built, folder: Path, formats: Sequence[Format]) -> list[Export]:
    """Writes a restored run's model to a folder; each format is kept only if it answers as the run does.

    Raises:
        UserError: a format cannot express the model, or answers otherwise; what was there before stays.
    """
    require(formats)
    raw = _samples(built)
    expected = built.evaluator.answers(raw)
    served = Served(_in_float32(experiment, built), built.pipeline.spec, raw.dtype, built.step.gradient.logits)
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name in formats:
        made.append(_kept(name, served, folder, raw.numpy(), expected, TOLERANCE[experiment.trainer.precision]))
        _describe(folder, served, made[-1])
    return made


def _samples(built: Built) -> tf.Tensor:
    """The first raw elements of the test split."""
    count = min(SAMPLES, built.pipeline.spec.sizes["test"])
    return built.pipeline.source.gather("test", tf.range(count, dtype=tf.int64))[0]


def _in_float32(experiment: Experiment, built: Built) -> keras.Model:
    """The model, made anew in float32 where the run computed in less."""
    if experiment.trainer.precision == "float32":
        return built.state.model
    keras.config.set_dtype_policy("float32")
    model = experiment.model.build(built.pipeline.spec, experiment.regularization)
    model.set_weights([np.array(v) for v in built.state.model.weights])
    return model


def _kept(name: Format, served: Served, folder: Path, raw: np.ndarray, expected: np.ndarray, limit: float) -> Export:
    """Writes one format beside its place, checks it there, and only then moves it in."""
    path = folder / WRITERS[name].file
    temporary = folder / f".new-{path.name}"  # the ending stays: formats are told by it
    _remove(temporary)
    try:
        found = _tried(name, served, temporary, raw)
        difference = float(np.max(np.abs(found - expected)))
        bound = limit if served.spec.num_classes else limit * max(1.0, float(np.abs(expected).max()))
        if not difference <= bound:
            raise UserError(
                f"format={name}: what was written differs from the run by {difference:.3g}, more than {bound:.3g}; "
                "it was not kept"
            )
        _replace(temporary, path)
    finally:
        _remove(temporary)
    return Export(name, path, difference)


def _tried(name: Format, served: Served, path: Path, raw: np.ndarray) -> np.ndarray:
    """What the written file answers.

    Raises:
        UserError: the format cannot express the model; in one line, and without what the converter says beside.
    """
    writer, problem = WRITERS[name], ""
    with environment.silenced():
        try:
            writer.write(served, path)
            return writer.answer(path, raw)
        except Exception as error:  # a converter can raise anything
            problem = " ".join(str(error).split())[:300] or type(error).__name__
    raise UserError(f"format={name}: this model cannot be written so ({problem})")


def _replace(temporary: Path, path: Path) -> None:
    """Moves a file or folder to its place; a folder that was there is taken away first and put out last."""
    old = path.with_name(f".old-{path.name}")
    _remove(old)
    if path.is_dir():
        path.rename(old)
    temporary.rename(path)
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _describe(folder: Path, served: Served, made: Export) -> None:
    """`export.json`: what goes in and comes out, all that is known of the data, and how each format was checked."""
    place = folder / "export.json"
    try:
        checked = json.loads(place.read_text(encoding="utf-8"))["largest_difference"]
    except (OSError, ValueError, KeyError, TypeError):
        checked = {}
    about = {
        "inputs": {"shape": [None, *served.spec.shape], "dtype": served.dtype.name},
        "outputs": {"name": "probabilities" if served.spec.num_classes else "values", "size": served.spec.outputs},
        "data": dataclasses.asdict(served.spec),
        "largest_difference": checked | {made.path.name: made.difference},
    }
    write_atomic(place, json.dumps(about, indent=2) + "\n")
