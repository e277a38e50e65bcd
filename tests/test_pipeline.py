"""From a step to its batch: every sample once an epoch, in orders that are random, whatever the chunk or the start."""

from itertools import pairwise
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from descent import seeds
from descent.augmentation import FlipCrop, Mixing, NoMixing, NoSampleAugmentation
from descent.data import pipeline as data_pipeline
from descent.data.arrays import Arrays, cut
from descent.data.pipeline import Pipeline, shuffled
from descent.types import Spec

SIZE, BATCH = 53, 8
SHAPE = (4, 5, 1)


def source(size: int = SIZE) -> tuple[Spec, Arrays]:
    """Sample i has the label i and its pixels, so that an order can be read off the targets."""
    sizes = {"train": size, "validation": 21, "test": 16}
    spec = Spec(kind="image", shape=SHAPE, sizes=sizes, num_classes=size)
    splits = {
        name: (np.full((n, *SHAPE), np.arange(n)[:, None, None, None], np.uint8), np.arange(n, dtype=np.int32))
        for name, n in sizes.items()
    }
    return spec, Arrays(spec, splits)


def pipeline(*, chunk: int = 7, epochs: int = 3, seed: int = 0, mixes: bool = False) -> Pipeline:
    spec, data = source()
    return Pipeline(
        source=data,
        spec=spec,
        sample=FlipCrop(shift=1, flip=True) if mixes else NoSampleAugmentation(),
        mixing=Mixing(mixup_alpha=0.5, cutmix_alpha=1.0, mode="pair", off_after=0.6) if mixes else NoMixing(),
        batch_size=BATCH,
        samples=epochs * SIZE,
        steps=-(-epochs * SIZE // BATCH),
        chunk=chunk,
        seed=seed,
    )


def steps_of(flow: Pipeline, start: int = 0) -> dict[str, np.ndarray]:
    """Every step from `start` to the end of the run, chunks joined and their surplus left out."""
    chunks = list(flow.training(start).as_numpy_iterator())
    count = flow.steps - start
    joined = {name: [getattr(c, name) for c in chunks] for name in ("inputs", "targets", "weight")}
    joined |= {name: [c.plan[name] for c in chunks] for name in chunks[0].plan}
    return {name: np.concatenate(arrays)[:count] for name, arrays in joined.items()}


def assert_same_bytes(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert left.keys() == right.keys()
    for name, array in left.items():
        assert array.dtype == right[name].dtype
        assert array.tobytes() == right[name].tobytes(), name


def orders(size: int, epochs: int, word: int) -> np.ndarray:
    draw = tf.function(lambda p: shuffled(p, size, word), autograph=False)
    return draw(tf.range(size * epochs, dtype=tf.int64)).numpy().reshape(epochs, size)


both_ways = pytest.mark.parametrize("most", [0, 2**62], ids=["ciphered", "sorted"])


@pytest.fixture(scope="module", params=[0, 4096], ids=["ciphered", "sorted"])
def many(request: pytest.FixtureRequest) -> np.ndarray:
    """The orders of 1,500 epochs of 16 samples, made in either way."""
    with mock.patch.object(data_pipeline, "SORTED", request.param):
        return orders(16, 1500, seeds.stream(0, "order"))


def test_every_sample_is_used_exactly_once_an_epoch():
    used = steps_of(pipeline(epochs=3))
    epochs = used["targets"].ravel()[: 3 * SIZE].reshape(3, SIZE)
    assert np.array_equal(np.sort(epochs, axis=1), np.tile(np.arange(SIZE), (3, 1)))


def test_inputs_belong_to_their_targets():
    used = steps_of(pipeline())
    assert np.array_equal(used["inputs"], np.broadcast_to(used["targets"][..., None, None, None], used["inputs"].shape))


@pytest.mark.parametrize("epochs", [1, 3, 8])
def test_only_positions_past_the_end_of_the_run_have_no_weight(epochs):
    flow = pipeline(epochs=epochs)
    weight = np.concatenate([c.weight.ravel() for c in flow.training(0).as_numpy_iterator()])
    assert len(weight) >= flow.steps * BATCH
    assert np.array_equal(weight, np.arange(len(weight)) < epochs * SIZE)


@pytest.fixture(scope="module")
def singly() -> dict[str, np.ndarray]:
    return steps_of(pipeline(chunk=1, epochs=6, mixes=True))


@pytest.mark.parametrize("chunk", [7, 32])
def test_the_size_of_a_chunk_changes_no_byte(chunk, singly):
    assert_same_bytes(steps_of(pipeline(chunk=chunk, epochs=6, mixes=True)), singly)


@pytest.mark.parametrize("start", [13, 39])
def test_a_run_from_a_later_step_is_the_tail_of_the_whole_run(start, singly):
    tail = steps_of(pipeline(chunk=7, epochs=6, mixes=True), start)
    assert_same_bytes(tail, {name: array[start:] for name, array in singly.items()})


def test_another_seed_gives_other_orders_and_other_draws(singly):
    other = steps_of(pipeline(chunk=7, epochs=6, mixes=True, seed=1))
    assert all(not np.array_equal(other[name], singly[name]) for name in ("inputs", "targets", "lam", "box"))


def test_plans_differ_from_step_to_step_and_stop_where_mixing_stops(singly):
    """Mixing stops after 0.6 of 40 steps: step 24 is the first without."""
    mixed = (singly["lam"] < 1).any(axis=1)
    assert mixed[:24].all()
    assert not mixed[24:].any()
    assert len({row.tobytes() for row in singly["lam"][:24]}) == 24


def test_augmentation_differs_from_epoch_to_epoch(singly):
    first, second = singly["inputs"].reshape(-1, *SHAPE)[: 2 * SIZE].reshape(2, SIZE, *SHAPE)
    labels = singly["targets"].ravel()[: 2 * SIZE].reshape(2, SIZE)
    first, second = first[np.argsort(labels[0])], second[np.argsort(labels[1])]
    assert np.mean([not np.array_equal(a, b) for a, b in zip(first, second, strict=True)]) > 0.5


@both_ways
@pytest.mark.parametrize("size", [1, 2, 3, 17, 255, 256, 257, 5000])
def test_an_order_is_a_permutation_for_any_size(size, most, monkeypatch):
    monkeypatch.setattr(data_pipeline, "SORTED", most)
    assert np.array_equal(np.sort(orders(size, 3, 5), axis=1), np.tile(np.arange(size), (3, 1)))


@both_ways
def test_part_of_an_order_does_not_depend_on_the_rest(most, monkeypatch):
    monkeypatch.setattr(data_pipeline, "SORTED", most)
    whole = shuffled(tf.range(100, dtype=tf.int64), 16, 7).numpy()
    for begin, end in pairwise([0, 5, 16, 37, 100]):
        assert np.array_equal(shuffled(tf.range(begin, end, dtype=tf.int64), 16, 7), whole[begin:end])


def test_orders_of_a_thousand_epochs_are_distinct(many):
    assert len({order.tobytes() for order in many[:1000]}) == 1000


def test_epochs_256_apart_have_unrelated_orders(many):
    same = np.mean(many[:-256] == many[256:])
    places = many[256:].size
    assert same == pytest.approx(1 / 16, abs=4 * np.sqrt(15 / 256 / places))


@both_ways
@pytest.mark.parametrize("other", [256, 512, 65_536])
def test_seeds_a_multiple_of_256_apart_have_unrelated_orders(other, most, monkeypatch):
    monkeypatch.setattr(data_pipeline, "SORTED", most)
    left, right = (orders(200, 3, seeds.stream(seed, "order")) for seed in (0, other))
    raw = orders(200, 3, seeds.stream(0, "order") + other)
    assert np.mean(left == right) < 0.03
    assert np.mean(left == raw) < 0.03


def test_each_sample_comes_equally_often_at_each_place(many):
    """Counts of a sum of permutation matrices: chi-squared with (n - 1)^2 degrees, scaled by (n - 1) / n."""
    epochs, n = many.shape
    counts = np.zeros((n, n))
    np.add.at(counts, (np.tile(np.arange(n), epochs), many.ravel()), 1)
    statistic = ((counts - epochs / n) ** 2 / (epochs / n)).sum() * (n - 1) / n
    assert 1e-3 < stats.chi2.sf(statistic, (n - 1) ** 2) < 1 - 1e-3


@pytest.mark.parametrize("place", [0, 7, 14])
def test_each_sample_is_followed_equally_often_by_each_other(many, place):
    n = many.shape[1]
    counts = np.zeros((n, n))
    np.add.at(counts, (many[:, place], many[:, place + 1]), 1)
    assert stats.chisquare(counts[~np.eye(n, dtype=bool)]).pvalue > 1e-3


def test_the_order_of_an_epoch_says_nothing_of_the_next(many):
    counts = np.zeros((16, 16))
    np.add.at(counts, (many[:-1, 0], many[1:, 0]), 1)
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3


@pytest.mark.parametrize("split", ["validation", "test", "train"])
@pytest.mark.parametrize(("batch", "chunk"), [(8, 1), (8, 3), (21, 2), (1, 8)])
@pytest.mark.parametrize("small", [True, False])
def test_evaluation_covers_each_sample_once_in_order(split, batch, chunk, small, monkeypatch):
    flow = pipeline(mixes=True)
    monkeypatch.setattr(type(flow), "small", lambda *_: small)
    chunks = list(flow.evaluation(split, batch, chunk))
    weight, targets = (np.concatenate([getattr(c, name) for c in chunks]) for name in ("weight", "targets"))
    size = flow.spec.sizes[split]
    assert targets.shape[1:] == (batch,)
    assert np.array_equal(targets.ravel()[:size], np.arange(size))
    assert np.array_equal(weight.ravel(), np.arange(weight.size) < size)
    assert np.array_equal(np.concatenate([c.inputs for c in chunks])[..., 0, 0, 0], targets)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.15, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_cut_has_its_exact_size_and_each_class_its_share_to_within_one(share, seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice(7, 1797, p=rng.dirichlet(np.ones(7)))
    count = round(1797 * share)
    taken = cut(labels, count, rng)
    assert taken.sum() == count
    for label in range(7):
        wanted = np.sum(labels == label) * count / 1797
        assert abs(np.sum(taken[labels == label]) - wanted) < 1


def test_a_cut_takes_each_sample_of_a_class_equally_often():
    labels = np.repeat([0, 1, 2], [5, 11, 4])
    taken = sum(cut(labels, 5, np.random.default_rng(seed)).astype(int) for seed in range(2000))
    for label in range(3):
        assert stats.chisquare(taken[labels == label]).pvalue > 1e-3


def test_batches_of_a_renewed_pipeline_are_those_of_one_of_that_seed_and_nothing_is_traced_again(monkeypatch):
    traced, chunk_at = [], Pipeline.chunk_at
    monkeypatch.setattr(Pipeline, "chunk_at", lambda own, first: (traced.append(own.seed), chunk_at(own, first))[1])
    first = pipeline(mixes=True)
    expected = steps_of(first)
    renewed = first.renewed(5)
    got = steps_of(renewed)
    assert traced == [0]
    assert_same_bytes(got, steps_of(pipeline(seed=5, mixes=True)))
    assert not np.array_equal(got["targets"], expected["targets"])
    assert renewed.indices(3) == pipeline(seed=5).indices(3) != first.indices(3)
