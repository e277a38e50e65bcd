"""Known image sets: read from the files they come in, or one message says how to get them."""

from __future__ import annotations

import dataclasses
import gzip
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from descent import UserError
from descent.data import Cifar10, Cifar100, FashionMnist, Mnist
from descent.data.files import IDX
from descent.data.images import KnownImages
from descent.types import SPLITS

TRAIN, TEST = 100, 20


def labels(source: type[KnownImages], count: int) -> np.ndarray:
    return np.arange(count) % len(source.facts.class_names)


def images(source: type[KnownImages], count: int) -> np.ndarray:
    """Sample i holds i, plus 10 in the last row and 100 in the last channel, so that a wrong axis shows."""
    rows, columns, channels = source.facts.shape
    made = np.zeros((count, rows, columns, channels), np.uint8) + np.arange(count, dtype=np.uint8)[:, None, None, None]
    made[:, -1] += 10
    made[..., -1] += 100
    return made


def write_idx(folder: Path, source: type[KnownImages]) -> None:
    arrays = (images(source, TRAIN)[..., 0], labels(source, TRAIN), images(source, TEST)[..., 0], labels(source, TEST))
    for name, array in zip(IDX.files, arrays, strict=True):
        head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        (folder / name).write_bytes(gzip.compress(head + array.astype(np.uint8).tobytes()))


def write_npz(folder: Path, source: type[KnownImages]) -> None:
    np.savez(
        folder / "mnist.npz",
        x_train=images(source, TRAIN)[..., 0],
        y_train=labels(source, TRAIN),
        x_test=images(source, TEST)[..., 0],
        y_test=labels(source, TEST),
    )


def write_batch(path: Path, pixels: np.ndarray, targets: np.ndarray, key: str) -> None:
    """As CIFAR's authors did: protocol 2, keys of bytes, colours as planes."""
    planes = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
    path.write_bytes(pickle.dumps({b"data": planes, key.encode(): targets.tolist()}, protocol=2))


def write_ten(folder: Path, source: type[KnownImages]) -> None:
    pixels, targets = images(source, TRAIN), labels(source, TRAIN)
    for i in range(5):
        own = slice(i * TRAIN // 5, (i + 1) * TRAIN // 5)
        write_batch(folder / f"data_batch_{i + 1}", pixels[own], targets[own], "labels")
    write_batch(folder / "test_batch", images(source, TEST), labels(source, TEST), "labels")


def write_hundred(folder: Path, source: type[KnownImages]) -> None:
    for name, count in (("train", TRAIN), ("test", TEST)):
        write_batch(folder / name, images(source, count), labels(source, count), "fine_labels")


WAYS = [
    (Mnist, write_npz, ""),
    (Mnist, write_idx, ""),
    (FashionMnist, write_idx, ""),
    (Cifar10, write_ten, ""),
    (Cifar10, write_ten, "cifar-10-batches-py"),
    (Cifar100, write_hundred, ""),
    (Cifar100, write_hundred, "cifar-100-python"),
]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for source in (Mnist, FashionMnist, Cifar10, Cifar100):
        monkeypatch.setattr(source, "facts", dataclasses.replace(source.facts, train=TRAIN, test=TEST))


@pytest.mark.parametrize(("source", "write", "inside"), WAYS)
def test_a_set_is_read_from_its_files(source, write: Callable, inside: str, tmp_path, small):
    (tmp_path / inside).mkdir(exist_ok=True)
    write(tmp_path / inside, source)
    own = source(path=str(tmp_path), validation=0.2)
    splits = {name: tuple(np.array(t) for t in pair) for name, pair in own.open().splits.items()}
    assert {name: len(targets) for name, (_, targets) in splits.items()} == dict(own.spec.sizes)
    original = images(source, TRAIN)
    together = np.concatenate([splits[name][0] for name in ("train", "validation")])
    targets = np.concatenate([splits[name][1] for name in ("train", "validation")])
    order = np.argsort(together[:, 0, 0, 0])
    np.testing.assert_array_equal(together[order], original[np.argsort(original[:, 0, 0, 0])])
    np.testing.assert_array_equal(targets[order], labels(source, TRAIN))
    np.testing.assert_array_equal(splits["test"][0], images(source, TEST))
    np.testing.assert_array_equal(splits["test"][1], labels(source, TEST))


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100"])
def test_without_the_data_one_message_names_the_ways(name: str, monkeypatch, tmp_path):
    import keras

    def fail():
        raise OSError("no network")

    source = {"mnist": Mnist, "fashion_mnist": FashionMnist, "cifar10": Cifar10, "cifar100": Cifar100}[name]
    if source.facts.package:
        monkeypatch.setattr(source, "facts", dataclasses.replace(source.facts, package=("set-of-clothes", "/nowhere")))
    monkeypatch.setattr(getattr(keras.datasets, name), "load_data", fail)
    with pytest.raises(UserError) as caught:
        source().open()
    ways = ["data.path=", "download"] + (["apt install set-of-clothes"] if source.facts.package else [])
    assert all(way in str(caught.value) for way in ways)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=f"data.path={tmp_path}: no folder with"):
        source(path=str(tmp_path)).open()


@pytest.mark.parametrize("source", [Mnist, Cifar10, Cifar100])
def test_a_download_is_what_keras_gives(source, monkeypatch, small):
    import keras

    def column(count: int) -> np.ndarray:  # CIFAR's labels come as a column
        return labels(source, count)[:, None] if source is not Mnist else labels(source, count)

    def load_data():
        pixels = [
            images(source, count)[..., 0] if source is Mnist else images(source, count) for count in (TRAIN, TEST)
        ]
        return (pixels[0], column(TRAIN)), (pixels[1], column(TEST))

    monkeypatch.setattr(getattr(keras.datasets, source.facts.name), "load_data", load_data)
    opened = source().open()
    assert all(opened.splits[split][0].shape[1:] == source.facts.shape for split in SPLITS)
    np.testing.assert_array_equal(opened.splits["test"][1], labels(source, TEST))


DAMAGED = [
    (
        FashionMnist,
        IDX.files,
        gzip.compress(b"\x00\x00\x08\x03nonsense", mtime=0),
        r"train-images-idx3-ubyte\.gz is not a readable",
    ),
    (Mnist, ("mnist.npz",), b"nonsense", r"mnist\.npz is not a readable"),
    (Mnist, ("mnist.npz",), b"PK\x03\x04nonsense", r"mnist\.npz is not a readable"),
    (Cifar100, ("train", "test"), b"nonsense", "train is not a readable CIFAR batch"),
    (Cifar100, ("train", "test"), b"", "train is not a readable CIFAR batch"),
    (Cifar100, ("train", "test"), pickle.dumps({b"data": [1]}), "train is not a readable CIFAR batch"),
]


@pytest.mark.parametrize(("source", "files", "content", "said"), DAMAGED)
def test_a_damaged_file_is_named(source, files, content: bytes, said: str, tmp_path):
    for name in files:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said):
        source(path=str(tmp_path)).open()


def test_a_pickled_batch_runs_nothing(tmp_path):
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self):
            return Path.touch, (trap,)

    for name in ("train", "test"):
        (tmp_path / name).write_bytes(pickle.dumps({b"data": Trap()}))
    with pytest.raises(UserError, match="not just arrays"):
        Cifar100(path=str(tmp_path)).open()
    assert not trap.exists()


def test_class_names_are_distinct_and_in_order():
    assert len(set(Cifar100.facts.class_names)) == 100
    assert list(Cifar100.facts.class_names) == sorted(Cifar100.facts.class_names)
    assert len(set(Cifar10.facts.class_names)) == 10
