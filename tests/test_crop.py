"""Random-resized crop: windows of the stated area and aspect, cut where the pixels are."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from conftest import QUICK
from descent import UserError, compose, seeds
from descent.augmentation import Chain, FlipCrop, RandomResizedCrop
from descent.augmentation.crop import box
from descent.session import build
from descent.types import Spec

SHAPES = [(37, 53), (53, 37), (40, 40), (8, 9)]


def draw(part: RandomResizedCrop, count: int, step: int = 0) -> dict:
    return part.draw(seeds.key(seeds.stream(0, "augment"), tf.constant(step)), [count, 8, 8, 1])


def boxes(part: RandomResizedCrop, count: int, height: int, width: int, step: int = 0) -> np.ndarray:
    @tf.function
    def several(windows):
        return tf.map_fn(
            lambda window: box(window, tf.constant(height), tf.constant(width), part.aspect),
            windows,
            fn_output_signature=tf.TensorSpec([4], tf.int32),
        )

    return several(part.window(draw(part, count, step))).numpy()


def reference(window: dict, height: int, width: int, aspect: tuple[float, float]) -> list[int]:
    """Torchvision's algorithm from its documentation, in Python's floats, with the draws given."""
    for area, ratio in zip(window["area"], window["aspect"], strict=True):
        w = round(math.sqrt(area * height * width * ratio))
        h = round(math.sqrt(area * height * width / ratio))
        if 0 < w <= width and 0 < h <= height:
            return [int(window["place"][0] * (height - h + 1)), int(window["place"][1] * (width - w + 1)), h, w]
    own = width / height
    h, w = height, width
    if own < aspect[0]:
        h = round(width / aspect[0])
    elif own > aspect[1]:
        w = round(height * aspect[1])
    return [(height - h) // 2, (width - w) // 2, h, w]


@pytest.mark.parametrize(("height", "width"), [*SHAPES, (10, 90), (90, 10)])
@pytest.mark.parametrize("area", [(0.08, 1.0), (0.9, 1.0)])
def test_windows_are_those_of_the_reference(height, width, area):
    part = RandomResizedCrop(area=area)
    windows = {name: np.float64(value) for name, value in part.window(draw(part, 300)).items()}
    expected = [
        reference({name: value[i] for name, value in windows.items()}, height, width, part.aspect) for i in range(300)
    ]
    same = (boxes(part, 300, height, width) == expected).all(axis=1)
    assert same.mean() > 0.99  # float32 and float64 may round a side to either whole number


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_windows_lie_inside_with_area_and_aspect_in_range(height, width):
    part = RandomResizedCrop(area=(0.2, 0.6), aspect=(0.8, 1.25))
    top, left, tall, wide = boxes(part, 2000, height, width).T
    assert top.min() == 0
    assert left.min() == 0
    assert (top + tall).max() == height
    assert (left + wide).max() == width
    # A side is rounded by half a pixel at most.
    share = tall * wide / (height * width)
    slack = (tall + wide + 1) / 2 / (height * width)
    assert ((share > 0.2 - slack) & (share < 0.6 + slack)).all()
    assert ((wide + 0.5) / (tall - 0.5) > 0.8).all()
    assert ((wide - 0.5) / (tall + 0.5) < 1.25).all()


def test_areas_aspects_and_places_are_uniform():
    """Against the closed form, within five standard errors of the mean: small windows always fit."""
    part, count = RandomResizedCrop(area=(0.05, 0.25), aspect=(0.5, 2.0)), 4000
    top, left, tall, wide = boxes(part, count, 1000, 1000).T.astype(float)
    for values, low, high in (
        (tall * wide / 1e6, 0.05, 0.25),
        (np.log(wide / tall), math.log(0.5), math.log(2)),
        (top / (1000 - tall), 0, 1),
        (left / (1000 - wide), 0, 1),
    ):
        error = (high - low) / math.sqrt(12 * count)
        assert values.mean() == pytest.approx((low + high) / 2, abs=5 * error + 1e-3)
        assert values.std() == pytest.approx((high - low) / math.sqrt(12), rel=0.05)


def test_no_draw_that_fits_gives_the_middle():
    """A panorama of 10 x 90 and a share of at least 0.9: nothing fits; the middle of aspect 4 / 3 is 10 x 13."""
    assert {tuple(row) for row in boxes(RandomResizedCrop(area=(0.9, 1.0)), 50, 10, 90)} == {(0, 38, 10, 13)}
    assert {tuple(row) for row in boxes(RandomResizedCrop(area=(0.9, 1.0)), 50, 90, 10)} == {(38, 0, 13, 10)}


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("shape", [(6, 6, 3), (6, 6, 1)])
def test_the_whole_image_is_the_identity(shape):
    part = RandomResizedCrop(area=(1.0, 1.0), aspect=(1.0, 1.0), flip=False)
    x = images(5, *shape)
    after = part.apply(draw(part, 5), tf.constant(x))
    assert after.dtype == tf.uint8
    np.testing.assert_array_equal(after, x)
    real = tf.constant(x, tf.float32) / 255
    np.testing.assert_allclose(part.apply(draw(part, 5), real), real, atol=1e-6)


def test_flips_are_of_half_of_the_images_or_of_none():
    part = RandomResizedCrop(area=(1.0, 1.0), aspect=(1.0, 1.0), flip=True)
    x, plan = images(400, 4, 4, 1), draw(part, 400)
    after, flips = tf.function(part.apply)(plan, tf.constant(x)).numpy(), plan["flip"].numpy()
    assert 150 < flips.sum() < 250
    np.testing.assert_array_equal(after[flips], x[flips][:, :, ::-1])
    np.testing.assert_array_equal(after[~flips], x[~flips])
    for mirrors in (True, False):
        spec = Spec(kind="image", shape=(4, 4, 1), sizes={"train": 1}, num_classes=2, mirrors=mirrors)
        assert RandomResizedCrop().resolved(spec).flip is mirrors


def pillow(image: np.ndarray, where: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The window cut out, then resized, by Pillow."""
    top, left, tall, wide = where
    window = Image.fromarray(image[top : top + tall, left : left + wide])
    return np.array(window.resize(size[::-1], Image.Resampling.BILINEAR))


def test_a_window_is_resized_as_pillow_does():
    part = RandomResizedCrop(area=(0.1, 1.0), flip=False)
    x, plan = images(20, 30, 24, 3), draw(part, 20)
    after = part.apply(plan, tf.constant(x)).numpy().astype(int)
    where = boxes(part, 20, 30, 24)
    for image, mine, window in zip(x, after, where, strict=True):
        assert np.abs(mine - pillow(image, window, (30, 24))).max() <= 1


def photographs(root: Path, sizes: list[tuple[int, int]]) -> Path:
    """Smooth pictures without symmetry, in two classes."""
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for i, (rows, columns) in enumerate(sizes):
            y, x = np.mgrid[:rows, :columns] / max(rows, columns)
            planes = [np.sin(i + 5 * x + y), np.cos(i + 4 * y * x), np.sin(i - 2 * y + x * x)]
            picture = (127.5 + 120 * np.stack(planes, -1)).astype(np.uint8)
            Image.fromarray(picture).save(root / name / f"{i}.png")
    return root


def pipeline(path: Path, *words: str):
    run = compose(
        "data=image_folder", f"data.path={path}", "data.size=[16,12]", "data.mirrors=false", "trainer.steps=6",
        "trainer.batch_size=4", "trainer.threads=2", "trainer.jit=false", "model.widths=[4]", *words,
    )  # fmt: skip
    return build(run.resolved()).pipeline


def batches(made, count: int = 6) -> np.ndarray:
    chunks = [chunk.inputs.numpy() for chunk in made.training(0)]
    return np.concatenate(chunks)[:count]


@pytest.fixture(autouse=True)
def caches(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("caches")))


def test_windows_of_an_image_folder_are_cut_from_the_files_pixels(tmp_path):
    """Each training image is Pillow's crop of the original, not of what it was shrunk to."""
    sizes = [(90 + 7 * i, 120 - 5 * i) for i in range(8)]
    made = pipeline(photographs(tmp_path, sizes), "augmentation/sample=random_resized_crop")
    part, seen = made.sample, batches(made)
    for step in range(6):
        plan = part.draw(seeds.key(seeds.stream(made.seed, "augment"), tf.constant(step)), [4, 16, 12, 3])
        for i, path in enumerate(taken(made, step)):
            original = np.array(Image.open(path))
            window = {name: value[i] for name, value in plan["window"].items()}
            where = box(window, *map(tf.constant, original.shape[:2]), part.aspect).numpy()
            assert np.abs(seen[step, i].astype(int) - pillow(original, where, (16, 12))).max() <= 1


def taken(made, step: int) -> list[str]:
    """The files of a training batch."""
    from descent.data.pipeline import shuffled

    positions = tf.range(step * 4, step * 4 + 4, dtype=tf.int64)
    indices = shuffled(positions, made.spec.sizes["train"], seeds.stream(made.seed, "order"))
    return [path.decode() for path in tf.gather(made.source.splits["train"].paths, indices).numpy()]


def test_a_batch_is_a_function_of_the_step_whatever_the_chunk(tmp_path):
    root = photographs(tmp_path, [(40, 50)] * 6)
    words = ["augmentation/sample=random_resized_crop", "data.mirrors=true"]
    first, other = (pipeline(root, *words, f"trainer.steps_per_call={k}") for k in (1, 4))
    np.testing.assert_array_equal(batches(first), batches(other))
    resumed = np.concatenate([chunk.inputs.numpy() for chunk in first.training(3)])
    np.testing.assert_array_equal(resumed[:3], batches(first)[3:6])
    assert len({batch.tobytes() for batch in batches(first)}) == 6


def test_files_of_the_datas_size_give_the_same_from_the_source_and_from_memory(tmp_path):
    made = pipeline(photographs(tmp_path, [(16, 12)] * 6), "augmentation/sample=random_resized_crop")

    class Memory:
        gather = made.source.gather

    np.testing.assert_array_equal(batches(made), batches(dataclasses.replace(made, source=Memory)))


def test_in_a_chain_the_source_cuts_for_the_first_part(tmp_path):
    crop, flips = RandomResizedCrop(flip=False), FlipCrop(shift=1, flip=True)
    made = pipeline(photographs(tmp_path, [(60, 50)] * 6))
    alone, chained, other = (
        dataclasses.replace(made, sample=part)
        for part in (crop, Chain(parts={"crop": crop}), Chain(parts={"flips": flips, "crop": crop}))
    )
    assert [Chain(parts={}).cuts, chained.sample.cuts, other.sample.cuts] == [False, True, False]
    key = seeds.key(seeds.stream(made.seed, "augment"), tf.constant(0))
    plan = chained.sample.draw(key, [4, 16, 12, 3])["crop"]
    original = np.array(Image.open(taken(made, 0)[0]))
    window = {name: value[0] for name, value in plan["window"].items()}
    where = box(window, *map(tf.constant, original.shape[:2]), crop.aspect).numpy()
    assert np.abs(batches(chained)[0, 0].astype(int) - pillow(original, where, (16, 12))).max() <= 1
    assert batches(other).shape == batches(alone).shape


def test_evaluation_sees_whole_images(tmp_path):
    root = photographs(tmp_path, [(60, 50)] * 6)
    plain, cropped = (pipeline(root, f"augmentation/sample={name}") for name in ("none", "random_resized_crop"))
    for mine, other in zip(plain.evaluation("test", 2, 1), cropped.evaluation("test", 2, 1), strict=True):
        np.testing.assert_array_equal(mine.inputs, other.inputs)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("area=[0.5,0.2]", r"area=\[0.5, 0.2\] should be the smaller share, then the larger, at most 1"),
        ("area=[0.5,1.2]", r"area=\[0.5, 1.2\] should be the smaller share, then the larger, at most 1"),
        ("aspect=[2,1]", r"aspect=\[2.0, 1.0\] should be the smaller ratio, then the larger"),
        ("area=[0,1]", r"area\[0\]=0: should be above 0"),
    ],
)
def test_a_range_that_is_none_is_one_line(word, said):
    with pytest.raises(UserError, match=said):
        compose(*QUICK, "augmentation/sample=random_resized_crop", f"augmentation.sample.{word}")


def test_sources_in_memory_are_ones_that_cannot_cut():
    from descent.data.cutting import CuttingSource

    assert not isinstance(build(compose(*QUICK).resolved()).pipeline.source, CuttingSource)
