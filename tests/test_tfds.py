"""Sets of tensorflow-datasets: the pixels that were put in, splits as declared, one line for what is missing."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from descent import UserError, compose
from descent.data import Arrays, ImageFolder, Tfds, tfds
from descent.data.decoding import OpenContents
from descent.types import SPLITS

library = pytest.importorskip("tensorflow_datasets")
NAMES = ("ant", "bee", "cat")


class Base(library.core.GeneratorBasedBuilder):
    """Images whose first pixel is their number; classes in turn."""

    VERSION = library.core.Version("1.0.0")
    counts: ClassVar[dict[str, int]] = {"train": 40, "test": 12}
    shape: tuple[int | None, ...] = (6, 5, 3)
    unlabelled: ClassVar[tuple[str, ...]] = ()

    def _info(self) -> Any:
        features = {
            "image": library.features.Image(shape=self.shape),
            "label": library.features.ClassLabel(names=NAMES),
            "note": library.features.Text(),
        }
        return library.core.DatasetInfo(
            builder=self, features=library.features.FeaturesDict(features), supervised_keys=("image", "label")
        )

    def _split_generators(self, _: Any) -> dict[str, Any]:
        return {split: self._generate_examples(split) for split in self.counts}

    def _generate_examples(self, split: str) -> Any:
        for i in range(self.counts[split]):
            label = -1 if split in self.unlabelled else i % 3
            yield i, {"image": picture(split, i, self.shape), "label": label, "note": f"number {i}"}


class SameSize(Base):
    pass


class WithoutLabels(Base):
    unlabelled: ClassVar[tuple[str, ...]] = ("test",)


class ManySizes(Base):
    shape = (None, None, 3)


class GreyThree(Base):
    counts: ClassVar[dict[str, int]] = {"train": 40, "validation": 9, "test": 12}
    shape = (6, 5, 1)


def picture(split: str, number: int, shape: tuple[int | None, ...]) -> np.ndarray:
    rows, columns, channels = (n or size + number % 4 for n, size in zip(shape, (20, 17, 3), strict=True))
    rng = np.random.default_rng([len(split), number])
    made = rng.integers(0, 256, (rows, columns, channels), np.uint8)
    made[0, 0] = number
    return made


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    for made in (SameSize, ManySizes, GreyThree, WithoutLabels):
        made(data_dir=folder / "tfrecord").download_and_prepare()
    SameSize(data_dir=folder / "array_record", file_format="array_record").download_and_prepare()
    return folder


def source(root: Path, name: str, form: str = "tfrecord", **fields: Any) -> Tfds:
    return Tfds(name=name, path=str(root / form), **fields)


def test_a_split_without_labels_is_no_test(root):
    with pytest.raises(UserError, match=r"data\.name=without_labels: samples of its split test have no label"):
        source(root, "without_labels").open()


def content(opened: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
    size = opened.spec.sizes[split] if hasattr(opened, "spec") else len(opened.splits[split][1])
    images, labels = opened.gather(split, tf.range(size, dtype=tf.int64))
    return images.numpy(), labels.numpy()


@pytest.mark.parametrize("form", ["tfrecord", "array_record"])
def test_images_and_labels_are_those_that_were_put_in(form, root):
    made = source(root, "same_size", form)
    opened = made.open()
    assert isinstance(opened, Arrays)
    images, labels = content(opened, "test")
    numbers = images[:, 0, 0, 0]
    assert sorted(numbers) == list(range(12))
    for image, label in zip(images, labels, strict=True):
        number = int(image[0, 0, 0])
        np.testing.assert_array_equal(image, picture("test", number, (6, 5, 3)))
        assert label == number % 3
    assert made.spec.class_names == NAMES


def test_validation_is_cut_from_train_once_and_stratified(root):
    made = source(root, "same_size", validation=0.3)
    opened = made.open()
    assert made.spec.sizes == {"train": 28, "validation": 12, "test": 12}
    numbers = [set(content(opened, split)[0][:, 0, 0, 0]) for split in ("train", "validation")]
    assert numbers[0] | numbers[1] == set(range(40))
    counts = np.bincount(content(opened, "validation")[1])
    np.testing.assert_allclose(counts, [4, 4, 4], atol=1)


def test_a_set_with_three_splits_keeps_them_and_grey_stays_one_channel(root):
    made = source(root, "grey_three")
    assert made.spec.shape == (6, 5, 1)
    assert made.spec.sizes == {"train": 40, "validation": 9, "test": 12}
    images, _ = content(made.open(), "validation")
    for image in images:
        np.testing.assert_array_equal(image, picture("validation", int(image[0, 0, 0]), (6, 5, 1)))
    with pytest.raises(UserError, match="the set has a validation split"):
        _ = source(root, "grey_three", fold=0).spec


def test_folds_hold_every_sample_once(root):
    held = [content(source(root, "same_size", fold=k, folds=4).open(), "validation")[0][:, 0, 0, 0] for k in range(4)]
    assert sorted(np.concatenate(held)) == list(range(40))


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_many_sizes_are_brought_to_one_as_an_image_folder_does(fit, root, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    for split, count in ManySizes.counts.items():
        for i in range(count):
            place = tmp_path / "files" / split / NAMES[i % 3] / f"{i}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture(split, i, ManySizes.shape)).save(place)
    folder = ImageFolder(path=str(tmp_path / "files"), size=(8, 9), fit=fit).open()
    mine = source(root, "many_sizes", size=(8, 9), fit=fit).open()
    images, other = content(mine, "test")[0], content(folder, "test")[0]
    assert {image.tobytes() for image in images} == {image.tobytes() for image in other}


def test_a_large_set_stays_encoded_and_gives_the_same(root, monkeypatch):
    small = source(root, "many_sizes", size=(8, 9)).open()
    monkeypatch.setattr(tfds, "IN_MEMORY", 0)
    large = source(root, "many_sizes", size=(8, 9)).open()
    assert isinstance(large, OpenContents)
    for split in SPLITS:
        for mine, other in zip(content(large, split), content(small, split), strict=True):
            np.testing.assert_array_equal(mine, other)


def test_a_run_trains_on_it(root, folder):
    run = compose(
        "data=tfds", "data.name=same_size", f"data.path={root}/tfrecord", "trainer.steps=2", "trainer.batch_size=4",
        "trainer.threads=2", "trainer.jit=false", "logger.tensorboard=null", "model.widths=[4]",
    )  # fmt: skip
    assert run.run(folder).summary["steps"] == 2


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "same_sise"}, r"data.name=same_sise is not prepared in .*; did you mean same_size\?$"),
        ({"name": "zebra"}, r"is not prepared in .*; where there is a network: python -c .*builder\('zebra'\)"),
        ({"name": "same_size:2.0.0"}, "is not prepared in"),
        ({"name": "many_sizes"}, "its images have many sizes; say which to bring them to: data.size$"),
        ({"name": "same_size", "std": (1.0,)}, "data.std has 1 numbers for 3 channels"),
    ],
)
def test_a_mistake_is_one_line(fields, said, root):
    with pytest.raises(UserError, match=said) as caught:
        _ = source(root, **fields).spec
    assert "\n" not in str(caught.value)


def test_a_named_version_is_taken(root):
    assert source(root, "same_size:1.0.0").spec == source(root, "same_size").spec


def test_a_damaged_set_is_named(root, tmp_path):
    broken = tmp_path / "same_size/1.0.0"
    broken.mkdir(parents=True)
    (broken / "dataset_info.json").write_text("{}")
    with pytest.raises(UserError, match=r"data.name=same_size: .* is damaged"):
        _ = Tfds(name="same_size", path=str(tmp_path)).spec


def test_a_missing_package_is_named(root, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^data=tfds needs a package that is not installed: pip install tensorflow-d"):
        _ = source(root, "same_size").spec
