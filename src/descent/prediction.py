"""A finished run's answers on files: images of any size and mode, raw texts, or arrays of raw elements."""

from __future__ import annotations

import csv
import functools
import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from etils import epy

from descent import display
from descent.data import decoding, raw_texts
from descent.data.decoding import Fit, decoded
from descent.data.verified import ENDINGS, File, findings, listed, readable
from descent.folder import write_atomic
from descent.types import Spec, UserError

with epy.lazy_imports():
    import tensorflow as tf

if TYPE_CHECKING:
    from descent.session import Built

BATCH = 64  # images decoded, or texts encoded, at once
SHOWN = 60  # characters of a text in the table on the terminal


class Answer(NamedTuple):
    """What the run says to one input: its probabilities [n], or its real output [1]."""

    name: str
    values: np.ndarray


class Inputs(NamedTuple):
    """What is to be answered: image files with their EXIF orientations, texts, a table, or an array; what cannot be."""

    files: tuple[str, ...] = ()
    orientations: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()
    table: Path | None = None
    array: Path | None = None
    bad: tuple[str, ...] = ()


def find(path: str, column: str = "text", *, tabular: bool = False) -> Inputs:
    """The inputs at a path: a JPEG or PNG file, a folder of them (and of folders of them), texts, or a .npy file.

    Texts are the lines of a .txt file, or a `column` of a table (.csv, .tsv, .jsonl). For a run on `tabular` data a
    table (.csv, .tsv) is what it is.

    Raises:
        UserError: there is nothing that could be read.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise UserError(f"inputs={path}: no such file or folder")
    if place.suffix.lower() == ".npy":
        return Inputs(array=place)
    if tabular and place.is_file() and place.suffix.lower() in raw_texts.SEPARATORS:
        return Inputs(table=place)
    if place.is_file() and place.suffix.lower() in raw_texts.ENDINGS:
        return Inputs(texts=(found := raw_texts.read(place, column)).texts, bad=found.bad)
    if place.is_file() and place.suffix.lower() not in ENDINGS:
        raise UserError(
            f"inputs={path}: should be a JPEG or PNG file, a folder of them, texts ({', '.join(raw_texts.ENDINGS)}), "
            "or a .npy file"
        )
    return _images_at(path, place)


def _images_at(path: str, place: Path) -> Inputs:
    """The readable images at a place, which the user called `path`."""
    root = place if place.is_dir() else place.parent
    files = listed(place) if place.is_dir() else [File(str(place), place.stat().st_size, place.stat().st_mtime_ns)]
    if not files:
        raise UserError(f"inputs={path}: the folder has no JPEG or PNG files")
    found = list(zip(files, findings(root, files), strict=True))
    wrong = ((os.path.relpath(file.path, root), what) for file, what in found if isinstance(what, str))
    bad = tuple(f"{readable(name)} ({what})" for name, what in wrong)
    good = {file.path: what for file, what in found if isinstance(what, int)}
    if not good:
        raise UserError(f"inputs={path}: none of {len(files)} files can be read; the first: {bad[0]}")
    return Inputs(tuple(good), tuple(good.values()), bad=bad)


def answer(built: Built, inputs: Inputs, data: Any = None, fit: Fit = "crop") -> Iterator[Answer]:
    """The run's answer to each input, in order.

    Args:
        built: the run.
        inputs: what is to be answered.
        data: the run's own source, which encodes texts by its vocabulary and tables by what it fitted.
        fit: how images are brought to the run's shape.

    Raises:
        UserError: the inputs are not of the kind or shape that the run takes.
    """
    spec, dtype = built.pipeline.spec, _raw_dtype(built)
    if inputs.array:
        batches = _arrays(inputs.array, spec, dtype)
    elif inputs.texts:
        batches = _texts(inputs.texts, spec, getattr(data, "encode", None))
    elif inputs.table:
        batches = _table(inputs.table, spec, getattr(data, "encode_file", None))
    else:
        batches = _images(inputs, spec, dtype, fit)
    for names, raw in batches:
        answers = built.evaluator.answers(tf.constant(raw))
        yield from map(Answer, names, answers)


def _raw_dtype(built: Built) -> np.dtype:
    """Of the raw elements that the run's own data has."""
    return built.pipeline.source.gather("test", tf.zeros([1], tf.int64))[0].dtype.as_numpy_dtype


Named = tuple[Sequence[str], np.ndarray]
WANTED = {
    "image": "images",
    "tabular": "a table (.csv, .tsv) or raw elements as a .npy file",
    "text": "a .txt file with a text a line, or a table (.csv, .tsv, .jsonl)",
}


def _check_kind(kind: str, spec: Spec) -> None:
    if spec.kind != kind:
        raise UserError(f"inputs: these are {kind}s, and the run's data is {spec.kind}; give {WANTED[spec.kind]}")


def _texts(texts: tuple[str, ...], spec: Spec, encode: Callable[[list[str]], np.ndarray] | None) -> Iterator[Named]:
    """Texts as ids of the run's own vocabulary."""
    _check_kind("text", spec)
    if encode is None:
        raise UserError("inputs: this run's data has no vocabulary; give raw elements as a .npy file")
    for first in range(0, len(texts), BATCH):
        part = texts[first : first + BATCH]
        yield part, encode(list(part))


def _table(path: Path, spec: Spec, encode: Callable[[Path], tuple[np.ndarray, np.ndarray]] | None) -> Iterator[Named]:
    """The rows of a table, encoded as the run's own are."""
    _check_kind("tabular", spec)
    if encode is None:
        raise UserError("inputs: this run's data is no table with columns; give raw elements as a .npy file")
    lines, raw = encode(path)
    yield [f"row {line}" for line in lines], raw


def _images(inputs: Inputs, spec: Spec, dtype: np.dtype, fit: Fit) -> Iterator[Named]:
    """Images as the run's data has them: upright, of its size and channels, in its range."""
    _check_kind("image", spec)
    if spec.shape[-1] not in (1, 3):
        raise UserError(f"inputs: the run's images have {spec.shape[-1]} channels; give raw elements as a .npy file")
    bring = functools.partial(decoding.fit, how=fit)
    for first in range(0, len(inputs.files), BATCH):
        part = slice(first, first + BATCH)
        images = [
            decoded(tf.io.read_file(path), tf.constant(orientation), spec.shape, bring).numpy()
            for path, orientation in zip(inputs.files[part], inputs.orientations[part], strict=True)
        ]
        values = np.stack(images) / 255 / spec.scale
        yield inputs.files[part], (np.round(values) if np.issubdtype(dtype, np.integer) else values).astype(dtype)


def _arrays(path: Path, spec: Spec, dtype: np.dtype) -> Iterator[Named]:
    """Raw elements from a .npy file: one, or many."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"inputs={path}: not a readable .npy file ({error})") from error
    grey = spec.kind == "image" and spec.shape[-1] == 1
    for shape in (spec.shape, spec.shape[:-1]) if grey else (spec.shape,):
        if array.shape[-len(shape) :] == shape and array.ndim - len(shape) in (0, 1):
            many = array.reshape(-1, *spec.shape)
            break
    else:
        raise UserError(f"inputs={path}: the shape is {array.shape}; this run takes {spec.shape}, or many of them")
    raw = _raw(many, spec, dtype)
    if raw is None:
        tops = {"image": 1 / spec.scale, "text": spec.vocabulary - 1}
        top = f", from 0 to {tops[spec.kind]:.4g}" if spec.kind in tops else ""
        raise UserError(f"inputs={path}: these are no raw elements of this run, which are {np.dtype(dtype)}{top}")
    for first in range(0, len(raw), BATCH):
        part = raw[first : first + BATCH]
        yield [f"{path.name}[{first + i}]" for i in range(len(part))], part


def _raw(many: np.ndarray, spec: Spec, dtype: np.dtype) -> np.ndarray | None:
    """Elements in the type of the run's data; None where they cannot be such."""
    if not np.issubdtype(many.dtype, np.number) and many.dtype != bool:
        return None
    raw = many.astype(dtype)
    whole = not np.issubdtype(dtype, np.integer) or np.array_equal(raw, many)
    highest = {"image": 1 / spec.scale * (1 + 1e-6), "text": spec.vocabulary - 1}.get(spec.kind)
    inside = highest is None or not raw.size or bool(raw.min() >= 0 and raw.max() <= highest)
    return raw if whole and inside and bool(np.isfinite(raw).all()) else None


# --- in words ------------------------------------------------------------------------------------------------------


def rows(answers: Sequence[Answer], spec: Spec, top: int) -> list[list[str]]:
    """A header, and a line for each answer: the most likely classes and their probabilities, or the value."""
    if not spec.num_classes:
        return [["input", "value"], *([name, f"{values[0]:.6g}"] for name, values in answers)]
    names = spec.class_names or tuple(map(str, range(spec.num_classes)))
    top = min(top, spec.num_classes)
    header = ["input", *(word for i in range(1, top + 1) for word in (f"class_{i}", f"probability_{i}"))]
    lines = []
    for name, values in answers:
        best = np.argsort(-values, kind="stable")[:top]
        lines.append([name, *(word for i in best for word in (names[i], f"{values[i]:.6f}"))])
    return [header, *lines]


def table(lines: Sequence[Sequence[str]], most: int = 20) -> str:
    """Lines of words in columns; of many, the first; of a long text (which the CSV has in full), its beginning."""
    shown = [[shortened(word) for word in line] for line in lines[: most + 1]]
    left = len(lines) - 1 - most
    return display.columns(shown) + (f"\n... and {left} more" if left > 0 else "")


def shortened(word: str) -> str:
    """A text of many words in one line; a path, which has none, as it is."""
    flat = " ".join(word.split())
    return flat if len(flat) <= SHOWN or " " not in flat else flat[: SHOWN - 1] + "…"


def write_csv(path: Path, lines: Sequence[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    write_atomic(path, text.getvalue())
