"""A folder of images: the right pixels from every kind of file, bad files named, splits disjoint and fixed."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from descent import UserError
from descent.data import ImageFolder, verified
from descent.data.decoding import fit, upright
from descent.data.image_folder import balanced
from descent.types import SPLITS


@pytest.fixture(autouse=True)
def caches(tmp_path_factory, monkeypatch) -> Path:
    """Findings are remembered by nobody, or in a folder of the test's own."""
    place = tmp_path_factory.mktemp("caches")
    monkeypatch.setenv("XDG_CACHE_HOME", str(place))
    verified._known.cache_clear()
    return place


def photo(seed: int = 0, rows: int = 30, columns: int = 40) -> Image.Image:
    """A smooth picture without a symmetry, so that a turn or a mirror image shows."""
    y, x = np.mgrid[:rows, :columns] / max(rows, columns)
    planes = [np.sin(2 + seed + 3 * x + y), np.cos(seed + 4 * y * x), np.sin(1 + seed - 2 * y + x * x)]
    return Image.fromarray((127.5 + 120 * np.stack(planes, -1)).astype(np.uint8))


def save(path: Path, image: Image.Image, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def fill(root: Path, counts: dict[str, int]) -> Path:
    """A folder with so many small PNG files in each class; every file has pixels of its own."""
    number = itertools.count()
    for name, count in counts.items():
        for i in range(count):
            save(root / name / f"{i:03}.png", Image.new("RGB", (4, 4), (next(number) % 256, len(name), i % 256)))
    return root


def expected(path: Path, size: tuple[int, int], how: str, channels: int) -> np.ndarray:
    """Pillow's own: turned by EXIF, transparency dropped, resized by its antialiased bilinear filter."""
    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file).convert("RGB")
    (rows, columns), (h, w) = size, (image.height, image.width)
    if how == "crop":
        scale = max(rows / h, columns / w)
        left, top = (w - columns / scale) / 2, (h - rows / scale) / 2
        box = (left, top, left + columns / scale, top + rows / scale)
        image = image.resize((columns, rows), Image.Resampling.BILINEAR, box=box)
    else:
        image = ImageOps.pad(image, (columns, rows), Image.Resampling.BILINEAR)
    return np.array(image.convert("L"))[..., None] if channels == 1 else np.array(image)


def kinds(folder: Path) -> list[Path]:
    """One file of each kind that should be read; padded to a square of 24, each has whole sides."""
    folder.mkdir(parents=True)
    sharp = photo(7, 48, 32)
    alpha = sharp.convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(sharp.size))
    grey16 = Image.fromarray(np.array(photo(4).convert("L")).astype(np.uint16) * 257)
    made = {
        "colour.jpg": (photo(1), {"quality": 95}),
        "UPPER.JPEG": (photo(2, 60, 20), {"quality": 95}),
        "progressive.jpg": (photo(5), {"progressive": True}),
        "grey.jpg": (photo(3).convert("L"), {}),
        "colour.png": (sharp, {}),
        "rgba.png": (alpha, {}),
        "grey.png": (photo(4).convert("L"), {}),
        "grey_alpha.png": (photo(4).convert("LA"), {}),
        "palette.png": (sharp.quantize(64), {}),
        "bits.png": (photo(6).convert("1"), {}),
        "deep.png": (grey16, {}),
        "tiny.png": (photo(1, 3, 2), {}),
        "jpeg_called.png": (photo(8), {"format": "JPEG", "quality": 95}),
    }
    return [save(folder / name, image, **options) for name, (image, options) in made.items()]


def pixels(source: ImageFolder) -> dict[str, np.ndarray]:
    """Every image the source gives, by the name of its file."""
    opened = source.open()
    given = {}
    for split in SPLITS:
        paths = opened.splits[split].paths.numpy()
        images, _ = opened.gather(split, tf.range(len(paths), dtype=tf.int64))
        given |= {Path(path.decode()).name: image for path, image in zip(paths, images.numpy(), strict=True)}
    return given


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize(("size", "how"), [((24, 24), "crop"), ((16, 40), "crop"), ((24, 24), "pad")])
def test_every_kind_of_file_gives_the_pixels_that_pillow_gives(size, how: str, channels: int, tmp_path):
    files = kinds(tmp_path / "kinds")
    fill(tmp_path, {"other": 3})
    given = pixels(ImageFolder(path=str(tmp_path), size=size, fit=how, channels=channels))
    for path in files:
        if path.name == "deep.png":  # Pillow clips 16 bits; their high byte is what the eye sees
            continue
        difference = np.abs(given[path.name].astype(int) - expected(path, size, how, channels))
        assert difference.mean() < 1.5, path.name
        assert np.percentile(difference, 95) <= 4, path.name


def test_sixteen_bits_are_shown_by_their_high_byte(tmp_path):
    fill(tmp_path, {"other": 3, "deep": 3})
    shade = np.array(photo(4).convert("L"))
    save(tmp_path / "deep/x.png", Image.fromarray(shade.astype(np.uint16) * 257))
    given = pixels(ImageFolder(path=str(tmp_path), size=shade.shape, channels=1))["x.png"]
    np.testing.assert_allclose(given[..., 0].astype(int), shade, atol=1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_its_exif_says(orientation: int, tmp_path):
    exif = Image.Exif()
    exif[verified.ORIENTATION] = orientation
    for name in ("turned.jpg", "turned.png"):
        options = {"quality": 95} if name.endswith("jpg") else {}
        path = save(tmp_path / "turned" / name, photo(orientation), exif=exif, **options)
        assert verified.look(str(path)) == orientation
    save(tmp_path / "turned" / "third.png", photo())
    fill(tmp_path, {"other": 3})
    given = pixels(ImageFolder(path=str(tmp_path), size=(40, 30)))
    for name in ("turned.jpg", "turned.png"):
        wanted = expected(tmp_path / "turned" / name, (40, 30), "crop", 3)
        assert np.abs(given[name].astype(int) - wanted).mean() < 1.5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_is_exact(orientation: int):
    image = photo(1)
    image.getexif()[verified.ORIENTATION] = orientation
    turned = upright(tf.constant(np.array(image)), tf.constant(orientation))
    np.testing.assert_array_equal(turned, np.array(ImageOps.exif_transpose(image)))


@pytest.mark.parametrize("how", ["crop", "pad"])
def test_an_image_of_the_size_is_left_as_it_is(how: str):
    image = np.array(photo())
    np.testing.assert_array_equal(fit(tf.constant(image), image.shape[:2], how), image)


def test_padding_is_black_and_on_both_sides():
    white = tf.fill([10, 20, 3], tf.constant(255, tf.uint8))
    fitted = np.array(fit(white, (20, 20), "pad"))
    assert (fitted[5:15] == 255).all()
    assert (fitted[:5] == 0).all()
    assert (fitted[15:] == 0).all()


def spoil(root: Path) -> dict[str, str]:
    """Bad files of every kind, and what is to be said of each."""
    whole = save(root / "a/whole.jpg", photo()).read_bytes()
    png = bytearray(save(root / "a/whole.png", photo()).read_bytes())
    (root / "a/cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "a/cut.png").write_bytes(png[: len(png) // 2])
    (root / "a/last.png").write_bytes(png[:-4])
    png[png.index(b"IDAT") + 40] ^= 0xFF
    (root / "a/flipped.png").write_bytes(png)
    (root / "b/empty.jpg").touch()
    (root / "b/text.png").write_text("not an image")
    save(root / "b/other.png", photo(), format="GIF")
    (root / "b/nowhere.png").symlink_to(root / "b/missing.png")
    return {
        "a/cut.jpg": "runcated",
        "a/cut.png": "",
        "a/flipped.png": "",
        "a/last.png": "truncated",
        "b/empty.jpg": "empty",
        "b/nowhere.png": "No such file",
        "b/other.png": "neither JPEG nor PNG",
        "b/text.png": "neither JPEG nor PNG",
    }


def test_bad_files_are_left_out_and_named_in_one_line(tmp_path, capsys):
    root = fill(tmp_path, {"a": 20, "b": 20})
    said = spoil(root)
    (root / "a/notes.txt").write_text("not listed")
    (root / "a/._hidden.jpg").write_text("not listed")
    source = ImageFolder(path=str(root), max_bad=0.2)
    assert [line.split(" (")[0] for line in source.index.bad] == list(said)
    assert all(what in line for what, line in zip(said.values(), source.index.bad, strict=True))
    assert sum(source.spec.sizes.values()) == 42
    assert capsys.readouterr().out == ""
    given = pixels(source)
    assert len([name for name in given if "whole" in name]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert "8 unreadable files" in lines[0]
    assert "a/cut.jpg" in lines[0]
    assert "and 5 more" in lines[0]


def test_too_many_bad_files_are_an_error(tmp_path):
    spoil(fill(tmp_path, {"a": 20, "b": 20}))
    with pytest.raises(
        UserError, match=r"8 of 50 files are unreadable, more than data.max_bad=0.05 of them: a/cut.jpg"
    ):
        ImageFolder(path=str(tmp_path)).spec  # noqa: B018


def everything(source: ImageFolder) -> dict[str, list[str]]:
    index = source.index
    return {split: [str(Path(p).relative_to(source.root)) for p in index.splits[split].paths] for split in SPLITS}


def test_splits_are_disjoint_stratified_and_together_everything(tmp_path):
    root = fill(tmp_path, {"a": 50, "b": 30, "c": 20})
    source = ImageFolder(path=str(root), validation=0.2, test=0.1)
    splits = everything(source)
    assert sorted(itertools.chain(*splits.values())) == sorted(str(p.relative_to(root)) for p in root.rglob("*.png"))
    assert source.spec.sizes == {"train": 70, "validation": 20, "test": 10}
    assert [sum(name.startswith(c) for name in splits["validation"]) for c in "abc"] == [10, 6, 4]
    assert source.spec.class_names == ("a", "b", "c")
    for split in SPLITS:
        assert splits[split] == sorted(splits[split])
        paths, labels, _ = source.index.splits[split]
        assert ["abc"[label] for label in labels] == [Path(path).parent.name for path in paths]


def test_the_split_depends_on_the_split_seed_and_the_names_alone(tmp_path):
    left, right = (fill(tmp_path / side, {"a": 40, "b": 40}) for side in ("left", "elsewhere"))
    first = everything(ImageFolder(path=str(left)))
    assert first == everything(ImageFolder(path=str(right)))
    assert first != everything(ImageFolder(path=str(left), split_seed=1))


def test_a_relative_path_is_the_same_folder(tmp_path, monkeypatch):
    fill(tmp_path / "images", {"a": 10, "b": 10})
    monkeypatch.chdir(tmp_path)
    relative = ImageFolder(path="images")
    paths = relative.index.splits["train"].paths
    np.testing.assert_array_equal(paths, ImageFolder(path=str(tmp_path / "images")).index.splits["train"].paths)


def test_folds_are_everything_but_the_test_once(tmp_path):
    root = fill(tmp_path, {"a": 23, "b": 14})
    folds = [everything(ImageFolder(path=str(root), fold=k, folds=4)) for k in range(4)]
    assert all(fold["test"] == folds[0]["test"] for fold in folds)
    rest = sorted(folds[0]["train"] + folds[0]["validation"])
    assert sorted(name for fold in folds for name in fold["validation"]) == rest


def test_folders_named_like_splits_are_the_splits(tmp_path):
    for split, count in {"train": 10, "val": 4, "test": 5}.items():
        fill(tmp_path / split, {"a": count, "b": count})
    source = ImageFolder(path=str(tmp_path))
    assert source.spec.sizes == {"train": 20, "validation": 8, "test": 10}
    assert all(name.startswith("val/") for name in everything(source)["validation"])
    with pytest.raises(UserError, match=r"data.fold=0 cuts the training images, but there is .*val"):
        ImageFolder(path=str(tmp_path), fold=0).spec  # noqa: B018


def test_a_split_without_a_folder_is_cut_from_train(tmp_path):
    fill(tmp_path / "train", {"a": 20, "b": 20})
    fill(tmp_path / "test", {"a": 5, "b": 5})
    assert ImageFolder(path=str(tmp_path)).spec.sizes == {"train": 36, "validation": 4, "test": 10}


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path, {"car": 10, "train": 10})
    assert ImageFolder(path=str(tmp_path)).spec.class_names == ("car", "train")


def test_balanced_epochs_show_each_class_equally_often(tmp_path):
    root = fill(tmp_path, {"a": 50, "b": 30, "c": 7})
    plain, even = ImageFolder(path=str(root)), ImageFolder(path=str(root), balanced=True)
    counts = np.bincount(even.index.splits["train"].labels)
    assert (counts == np.bincount(plain.index.splits["train"].labels).max()).all()
    assert set(everything(even)["train"]) == set(everything(plain)["train"])
    assert everything(even)["validation"] == everything(plain)["validation"]


def test_balancing_uses_each_sample_equally_often_to_within_one():
    labels = np.repeat([0, 1, 2], [13, 4, 7])
    used = np.bincount(balanced(labels))
    for label in range(3):
        own = used[labels == label]
        assert own.sum() == 13
        assert own.max() - own.min() <= 1


def test_mistakes_are_one_line_each(tmp_path):
    def said(**fields: object) -> str:
        with pytest.raises(UserError) as caught:
            ImageFolder(**fields).spec  # noqa: B018
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "there is no such folder" in said(path=str(tmp_path / "missing"))
    assert "has 0 folders; at least 2 classes" in said(path=str(tmp_path))
    fill(tmp_path, {"a": 3})
    assert "has 1 folders; at least 2 classes" in said(path=str(tmp_path))
    fill(tmp_path, {"b": 2})
    assert "class b has 2 readable JPEG or PNG images; at least 3" in said(path=str(tmp_path))
    fill(tmp_path / "set/train", {"a": 3, "b": 3})
    fill(tmp_path / "set/test", {"a": 3, "zebra": 3})
    assert "class zebra of the test split has no folder in train" in said(path=str(tmp_path / "set"))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "path is null"),
        ({"path": "x", "size": (3,)}, "rows and columns"),
        ({"path": "x", "mean": (0.5,)}, "mean has 1 numbers for 3 channels"),
        ({"path": "x", "validation": 0.5, "test": 0.5}, "leave images to train on"),
        ({"path": "x", "fold": 5}, "fold=5 should be below folds=5"),
    ],
)
def test_wrong_fields_are_refused(fields: dict, said: str):
    with pytest.raises(ValueError, match=said):
        ImageFolder(**fields)


def test_findings_are_remembered_until_a_file_changes(tmp_path, caches, monkeypatch):
    root, looked = fill(tmp_path, {"a": 5, "b": 5}), []
    look = verified.look
    monkeypatch.setattr(verified, "WORTH", 0)
    monkeypatch.setattr(verified, "look", lambda path: looked.append(Path(path).name) or look(path))

    def fresh() -> int:
        """How many files a new process would read."""
        verified._known.cache_clear()
        looked.clear()
        ImageFolder(path=str(root), max_bad=1).spec  # noqa: B018
        return len(looked)

    assert fresh() == 10
    assert fresh() == 0
    os.utime(root / "a/003.png", ns=(1, 1))
    assert fresh() == 1
    assert looked == ["003.png"]
    (root / "b/001.png").write_bytes(b"")
    assert fresh() == 1
    assert {path.relative_to(caches).parts[0] for path in caches.rglob("*")} == {"descent"}
    assert {path.suffix for path in root.rglob("*") if path.is_file()} == {".png"}
    for store in caches.rglob("*.json"):
        store.write_text("{ damaged")
    assert fresh() == 10


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    monkeypatch.setattr(verified, "WORTH", 0)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    root = fill(tmp_path / "images", {"a": 5, "b": 5})
    assert sum(ImageFolder(path=str(root)).spec.sizes.values()) == 10


def test_the_graph_gives_what_eager_gives_in_any_order(tmp_path):
    root = fill(tmp_path, {"a": 20, "b": 20})
    opened = ImageFolder(path=str(root), size=(4, 4)).open()
    indices = tf.constant([[5, 0, 5], [7, 31, 1]], tf.int64)
    flow = tf.data.Dataset.from_tensor_slices(indices).map(lambda i: opened.gather("train", i), num_parallel_calls=2)
    for row, (images, labels) in zip(indices, flow, strict=True):
        assert images.shape == (3, 4, 4, 3)
        wanted = opened.gather("train", row)
        np.testing.assert_array_equal(images, wanted[0])
        np.testing.assert_array_equal(labels, wanted[1])
    assert labels.dtype == tf.int32


def test_a_folder_of_images_trains(tmp_path, folder):
    from conftest import QUICK
    from descent import compose

    root = fill(tmp_path / "images", {"a": 30, "b": 30})
    changed = [word for word in QUICK if not word.startswith("debug")]
    run = compose(
        *changed, "data=image_folder", f"data.path={root}", "data.size=[8,8]", "trainer.steps=3", "trainer.batch_size=8"
    )
    assert run.run(folder).summary["steps"] == 3


def test_on_the_command_line_a_mistake_names_its_key(tmp_path):
    from descent import compose

    with pytest.raises(UserError, match=r"data: path is null; .*data\.path=FOLDER"):
        compose("data=image_folder")
    with pytest.raises(UserError, match=r"data\.path=.*missing: there is no such folder"):
        compose("data=image_folder", f"data.path={tmp_path}/missing")
