"""Readers of the file formats that small image sets come in: IDX, NumPy's .npz, CIFAR's pickled batches."""

from __future__ import annotations

import gzip
import pickle
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from descent.types import UserError

Pair = tuple[np.ndarray, np.ndarray]
Pairs = tuple[Pair, Pair]


class Layout(NamedTuple):
    """A way the files of a set may lie in a folder.

    Attributes:
        files: all of their names.
        read: from the folder to training and test samples.
        words: what to call the files in a message.
    """

    files: tuple[str, ...]
    read: Callable[[Path], Pairs]
    words: str


def find(layouts: Iterable[Layout], folder: Path) -> Pairs | None:
    """What the first layout reads whose files are all in the folder, or None."""
    for layout in layouts:
        if all((folder / name).is_file() for name in layout.files):
            return layout.read(folder)
    return None


def pairs(raw: Any) -> Pairs:
    """((images, labels), (images, labels)) as uint8 [m, h, w, c] and int32 [m]."""
    (images, labels), (test_images, test_labels) = raw
    return _pair(images, labels), _pair(test_images, test_labels)


def _pair(images: np.ndarray, labels: Any) -> Pair:
    images = images[..., None] if images.ndim == 3 else images
    return images, np.asarray(labels).reshape(-1).astype(np.int32)


def read_idx(folder: Path) -> Pairs:
    """The four IDX files of LeCun's MNIST: big-endian magic, one uint32 per dimension, then bytes."""
    images, labels, test_images, test_labels = (_idx(folder / name) for name in IDX.files)
    return pairs(((images, labels), (test_images, test_labels)))


def _idx(path: Path) -> np.ndarray:
    try:
        raw = gzip.decompress(path.read_bytes())
        shape = np.frombuffer(raw, ">u4", count=raw[3], offset=4)
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise UserError(f"data: {path} is not a readable IDX file ({error})") from error


IDX = Layout(
    tuple(
        f"{name}-ubyte.gz"
        for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    ),
    read_idx,
    "the four *-ubyte.gz files",
)


def npz(name: str) -> Layout:
    """One .npz file with `x_train`, `y_train`, `x_test` and `y_test`, as Keras keeps its sets."""

    def read(folder: Path) -> Pairs:
        try:
            with (folder / name).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                return pairs(((file["x_train"], file["y_train"]), (file["x_test"], file["y_test"])))
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise UserError(f"data: {folder / name} is not a readable .npz file of images ({error})") from error

    return Layout((name,), read, name)


def batches(train: tuple[str, ...], test: str, labels: str, inside: str = "") -> Layout:
    """CIFAR's pickled batches (Krizhevsky 2009): rows of 3,072 bytes, all red, then all green, then all blue.

    Args:
        train: the names of the training batches.
        test: the name of the test batch.
        labels: the key of the labels in a batch.
        inside: the folder the archive unpacks to, when it is not the batches' own folder that is given.
    """
    words = inside.rstrip("/") or f"the batches {train[0]} to {test}"
    train, test = tuple(f"{inside}{name}" for name in train), f"{inside}{test}"

    def read(folder: Path) -> Pairs:
        parts = [_batch(folder / name, labels) for name in train]
        images, targets = (np.concatenate(column) for column in zip(*parts, strict=True))
        return pairs(((images, targets), _batch(folder / test, labels)))

    return Layout((*train, test), read, words)


def _batch(path: Path, labels: str) -> Pair:
    try:
        with path.open("rb") as file:
            content = {key.decode(): value for key, value in ArraysOnly(file, encoding="bytes").load().items()}
        images = content["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return _pair(np.ascontiguousarray(images), content[labels])
    except (pickle.UnpicklingError, OSError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"data: {path} is not a readable CIFAR batch ({error})") from error


class ArraysOnly(pickle.Unpickler):
    """A pickle can run anything when it is read: this one makes arrays, and refuses all else."""

    allowed = frozenset(
        {("numpy", "ndarray"), ("numpy", "dtype"), ("numpy._core.multiarray", "_reconstruct"), ("_codecs", "encode")}
    )

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core.", "numpy._core.")  # as NumPy 1 called it
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, not just arrays")
        return super().find_class(module, name)
