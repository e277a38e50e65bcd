"""Several replicas train as one device does: on logical devices of the CPU, which TensorFlow treats like GPUs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from descent import UserError, checkpoint, compose, metric, replicas, seeds
from descent.augmentation import Mixing
from descent.data.decoding import OpenFolder
from descent.folder import read_rows
from descent.model import layers
from descent.optimizer.direct import direct
from descent.session import build
from descent.session.building import scope
from descent.strategy import Mirrored
from descent.types import Batch

CNN = ("model=cnn", "model.widths=[4,8]", "model.dense=8")
EVERYTHING = (
    *CNN, "augmentation=mixup_cutmix", "clipping=global_norm", "clipping.max_norm=0.5", "averaging=ema",
    "trainer.accumulate=2", "trainer.batch_size=16", "trainer.steps=100", "trainer.log_every=1", "regularization=l2",
    "trainer.eval_every=50st", "optimizer=nesterov", "optimizer.learning_rate=0.1",
)  # fmt: skip


def mirrored(count: int) -> list[str]:
    return ["strategy=mirrored", f"strategy.devices={count}"]


def state(folder: Path) -> dict[str, list[np.ndarray]]:
    saved, _ = checkpoint.newest(folder / "checkpoints")
    assert saved is not None
    return saved.arrays


def apart(a: dict[str, list[np.ndarray]], b: dict[str, list[np.ndarray]]) -> float:
    pairs = [(x, y) for kind in a for x, y in zip(a[kind], b[kind], strict=True)]
    return max(float(np.abs(x.astype(np.float64) - y).max()) for x, y in pairs)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "run"
    quick = ("debug=fast", "logger.tensorboard=null", "trainer.threads=2", "trainer.jit=false")
    compose(*quick, *EVERYTHING).run(folder)
    return folder


@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.slow), 2, 4])
def test_replicas_train_as_one_device(quick, alone: Path, folder: Path, count: int):
    """With synchronised batch norm, clipping, accumulation, EMA and mixing, over a hundred steps."""
    result = quick(*EVERYTHING, *mirrored(count)).run(folder)
    assert apart(state(alone), state(folder)) <= 1e-5
    ours, theirs = (read_rows(path / "metrics.jsonl") for path in (folder, alone))
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose([mine[name] for name in other], list(other.values()), rtol=1e-4, atol=1e-5)
    assert result.summary["status"] == "completed"


def test_what_else_a_step_may_do_is_done_alike(quick, tmp_path):
    words = [*CNN, "trainer.batch_size=8", "trainer.steps=10", "optimizer=momentum", "sharpness=sam"]
    words += ["averaging=lookahead", "regularization=max_norm", "regularization.l1=0.001"]
    quick(*words).run(tmp_path / "one")
    quick(*words, *mirrored(2)).run(tmp_path / "two")
    assert apart(state(tmp_path / "one"), state(tmp_path / "two")) <= 1e-5


@pytest.mark.parametrize("samples", [17, 21])
def test_last_batches_that_are_not_full_count_as_many_samples_as_they_have(quick, tmp_path, samples: int):
    """Of 8: one sample, all with the first replica and none with the second; or five."""
    words = [f"data.samples={samples}", "trainer.batch_size=8", "trainer.epochs=1", "trainer.steps=null"]
    words += ["regularization=l2", "regularization.l2=0.1", "model.widths=[8]", "optimizer=momentum"]
    quick(*words).run(tmp_path / "one")
    quick(*words, *mirrored(2)).run(tmp_path / "two")
    assert apart(state(tmp_path / "one"), state(tmp_path / "two")) <= 1e-6
    one, two = (read_rows(tmp_path / name / "metrics.jsonl")[-1] for name in ("one", "two"))
    assert one["step"] == 3
    np.testing.assert_allclose([two[name] for name in one], list(one.values()), rtol=1e-4, atol=1e-6)


def test_bfloat16_differs_less_between_replicas_than_from_float32(quick, tmp_path):
    words = [
        *CNN,
        "trainer.batch_size=8",
        "trainer.steps=10",
        "optimizer=momentum",
        "averaging=swa",
        "regularization=l2",
    ]
    half = "trainer.precision=mixed_bfloat16"
    quick(*words).run(tmp_path / "float32")
    quick(*words, half).run(tmp_path / "one")
    quick(*words, half, *mirrored(2)).run(tmp_path / "two")
    one, two, exact = (state(tmp_path / name) for name in ("one", "two", "float32"))
    assert 0 < apart(one, two) <= apart(one, exact)


def test_copies_stay_equal_while_the_scale_of_the_loss_finds_its_size(quick):
    """In float16 the first steps overflow: on which replica does not matter, as the sums do."""
    words = ["trainer.precision=mixed_float16", "trainer.nonfinite=skip", "averaging=ema", "trainer.batch_size=8"]
    built = build(quick(*CNN, *words, *mirrored(2)).resolved())
    built.state.scaling.value.assign(2.0**24)
    chunk = next(iter(built.pipeline.training(0)))
    built.step.run(chunk, tf.constant(0), tf.constant(built.pipeline.chunk))
    assert float(built.state.scaling.value.numpy()) < 2.0**24
    for variables in built.state.groups().values():
        for variable in variables:
            first, second = (copy.numpy() for copy in variable.values)
            np.testing.assert_array_equal(first, second)


def test_dropout_differs_between_replicas_and_is_reproducible(quick, tmp_path):
    words = ["regularization=dropout", "trainer.log_every=1", *mirrored(2)]
    for name in ("a", "b"):
        quick(*words).run(tmp_path / name)
    a, b = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("a", "b"))
    assert a == b
    assert apart(state(tmp_path / "a"), state(tmp_path / "b")) == 0


def strategy(count: int) -> tf.distribute.Strategy:
    return Mirrored(devices=count).build()


def on_each(where: tf.distribute.Strategy, compute, *given) -> list:
    found = tf.function(lambda: where.run(compute, given), autograph=False)()
    return where.experimental_local_results(found)


def test_masks_differ_between_replicas():
    layer = layers.Dropout(0.5, name="drop", dtype="float32")

    def masked() -> tf.Tensor:
        with layers.noise(replicas.own_key(seeds.key(7, tf.constant(3)))):
            return layer(tf.ones([8, 64]), training=True)

    first, second = on_each(strategy(2), masked)
    assert 0.3 < np.mean(first != second) < 0.7
    np.testing.assert_array_equal(first, masked())  # the first draws as a run on one device does


@pytest.mark.parametrize(("size", "parts", "count"), [(16, 1, 2), (48, 3, 4), (24, 2, 3), (12, 1, 4)])
def test_slices_are_a_partition_and_mixing_them_mixes_the_global_batch(size: int, parts: int, count: int):
    slices = [replicas.rows(size, parts, count, replica) for replica in range(count)]
    assert sorted(np.concatenate(slices)) == list(range(size))
    for own in slices:
        shares = own.reshape(parts, -1)
        assert ((shares // (size // parts)) == np.arange(parts)[:, None]).all()  # an equal share of every part
    if (size // parts // count) % 2:
        return
    mixing = Mixing(mixup_alpha=1.0, cutmix_alpha=1.0, mode="elem")
    plan = mixing.draw(seeds.key(1, tf.constant(2)), [size, 4, 4, 1], tf.constant(0.0))
    inputs = tf.reshape(tf.range(size * 16, dtype=tf.float32), [size, 4, 4, 1])
    whole = mixing.apply(plan, Batch(inputs, tf.one_hot(tf.range(size), size), tf.ones([size])))
    for own in slices:
        part = Batch(tf.gather(inputs, own), tf.gather(tf.one_hot(tf.range(size), size), own), tf.ones([len(own)]))
        mixed = mixing.apply({name: tf.gather(value, own) for name, value in plan.items()}, part)
        np.testing.assert_array_equal(mixed.inputs, tf.gather(whole.inputs, own))
        np.testing.assert_array_equal(mixed.targets, tf.gather(whole.targets, own))


def photographs(root: Path) -> list[str]:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for i in range(20):
            Image.fromarray(rng.integers(0, 256, [12, 16, 3], np.uint8)).save(root / name / f"{i}.png")
    return ["data=image_folder", f"data.path={root}", "data.size=[8,8]", "augmentation/sample=random_resized_crop"]


@pytest.mark.parametrize("kind", ["arrays", "image folder"])
def test_a_worker_reads_its_slice_of_the_same_batch_and_no_more(quick, tmp_path, kind: str):
    words = ["augmentation/sample=standard"] if kind == "arrays" else photographs(tmp_path / "photographs")
    pipeline = build(quick(*CNN, "augmentation/batch=mixup_cutmix", "trainer.batch_size=8", *words).resolved()).pipeline
    assert isinstance(pipeline.source, OpenFolder) == (kind != "arrays")
    read: list[int] = []

    class Counting(type(pipeline.source)):  # type: ignore[misc]
        def gather(self, split, indices):
            read.append(indices.shape[0])
            return super().gather(split, indices)

        def gather_cut(self, split, indices, *others):
            read.append(indices.shape[0])
            return super().gather_cut(split, indices, *others)

    pipeline.source.__class__ = Counting
    whole = next(iter(pipeline.training(0)))
    own = tuple(int(i) for i in replicas.rows(8, 1, 2, 1))
    part = next(iter(dataclasses.replace(pipeline, own=own).training(0)))
    assert set(read) == {pipeline.chunk * 8, pipeline.chunk * 4}
    tf.nest.map_structure(lambda a, b: np.testing.assert_array_equal(tf.gather(a, own, axis=1), b), whole, part)

    evaluated = [next(iter(pipeline.evaluation("validation", 4, 3, worker, 2))) for worker in range(2)]
    joined = tf.reshape(tf.concat([chunk.targets for chunk in evaluated], axis=1), [-1])
    expected = next(iter(pipeline.evaluation("validation", 4, 3))).targets
    np.testing.assert_array_equal(joined, tf.reshape(expected, [-1]))


@pytest.mark.parametrize("shape", [[8, 5, 5, 3], [8, 3]])
def test_batch_norm_is_that_of_the_whole_batch(shape: list[int]):
    """Outputs, running statistics and gradients, against the fused kernel, and Keras, on one device."""
    x = 3 + 2 * tf.random.stateless_normal(shape, [1, 2])
    weight = tf.random.stateless_normal(shape, [3, 4])
    where = strategy(4)
    with scope(where):
        ours = layers.BatchNormalization(dtype="float32")
        ours.build(shape)
    theirs = layers.BatchNormalization(dtype="float32")
    theirs.build(shape)

    def compute(layer, inputs, weight):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=True)
            loss = replicas.total(tf.reduce_sum(outputs * outputs * weight))
        sources = [inputs, layer.gamma.value, layer.beta.value]
        gradients = tape.gradient(loss, sources)
        return [outputs, gradients[0] / replicas.number(), *gradients[1:]]

    def own():
        rows = (replicas.own_rows(t, 4) for t in (x, weight))
        outputs, gradient, *others = compute(ours, *rows)
        # The gradient of a sum over replicas, each of which has the loss of all, counts it once for each.
        return [replicas.gathered(outputs), replicas.gathered(gradient), *replicas.total([o / 4 for o in others])]

    expected = compute(theirs, x, weight)
    for found in on_each(where, lambda: tf.nest.map_structure(tf.identity, own()))[:1]:
        for mine, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(mine, other, rtol=2e-4, atol=2e-4)
    for mine, other in zip(ours.non_trainable_variables, theirs.non_trainable_variables, strict=True):
        copies = [copy.numpy() for copy in mine.value.values]
        assert all(np.array_equal(copy, copies[0]) for copy in copies)
        np.testing.assert_allclose(copies[0], other, rtol=1e-5, atol=1e-6)


OPTIMIZERS = (
    "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw", "amsgrad", "lamb", "lars", "lion", "momentum",
    "muon", "nadam", "nesterov", "rmsprop", "sgd",
)  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_updates_all_copies_alike(name: str):
    """Three steps of equal gradients on two replicas are, bit for bit, those on one."""
    part = dataclasses.replace(compose(f"optimizer={name}").optimizer, weight_decay=0.1)
    gradients = [tf.random.stateless_normal(shape, [5, 6]) for shape in ([4, 3], [3])]

    def made() -> tuple[list[keras.Variable], keras.Optimizer]:
        start = keras.initializers.Constant(0.5)
        named = (("kernel", (4, 3)), ("bias", (3,)))
        variables = [keras.Variable(start, shape=shape, name=name) for name, shape in named]
        return variables, part.build(variables, 3)

    def stepped(variables, optimizer):
        def update() -> tf.Tensor:
            optimizer.learning_rate = tf.constant(0.01)
            optimizer.apply([tf.identity(g) for g in gradients], variables)
            return tf.constant(True)

        return tf.cond(gradients[0][0, 0] < 99, update, lambda: tf.constant(False))

    where = strategy(2)
    with scope(where):
        ours, optimizer = made()
        optimizer = direct(optimizer)
    theirs, other = made()
    ourselves = tf.function(lambda: where.run(lambda: stepped(ours, optimizer)), autograph=False)
    themselves = tf.function(lambda: stepped(theirs, other), autograph=False)
    for _ in range(3):
        ourselves()
        themselves()
    assert int(optimizer.iterations.numpy()) == 3
    for mine, its in zip([*ours, *optimizer.variables], [*theirs, *other.variables], strict=True):
        for copy in mine.value.values:
            np.testing.assert_array_equal(copy, its, err_msg=mine.path)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_evaluation_counts_every_sample_once_and_alike(quick, split):
    """For sizes that four replicas cannot share out evenly."""
    words = [*CNN, "data=digits", "trainer.batch_size=8"]
    one, four = build(quick(*words).resolved()), build(quick(*words, *mirrored(4)).resolved())
    size = one.pipeline.spec.sizes[split]
    assert size % 4
    found = []
    for built in (one, four):
        outcome = built.evaluator.outcome(split, averaged=True)
        assert [len(column) for column in outcome] == [size] * 3
        found.append((outcome.targets, metric.evaluate(built.pipeline.spec, split, outcome)))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    for name, value in found[0][1].items():
        assert found[1][1][name] == pytest.approx(value, abs=1e-6)


def test_all_replicas_skip_a_step_that_is_not_finite_on_one(quick):
    words = ["augmentation=mixup", "trainer.batch_size=8", "trainer.nonfinite=skip", "averaging=ema", *mirrored(2)]
    built = build(quick(*CNN, *words).resolved())
    chunk = next(iter(built.pipeline.training(0)))
    share = chunk.plan["lam"].numpy()
    share[0, 1] = np.nan  # of a sample of the first replica
    before = built.state.snapshot()
    done = built.step.run(chunk._replace(plan={"lam": tf.constant(share)}), tf.constant(0), tf.constant(1))
    assert bool(done.sound)
    after = built.state.snapshot()
    for kind in ("model", "optimizer", "averaging"):
        for x, y in zip(before[kind], after[kind], strict=True):
            np.testing.assert_array_equal(x, y)
    assert [int(v) for v in after["step"]] == [1, 1, 1]
    for copy in built.state.skipped.values:
        assert int(copy) == 1


def test_a_run_goes_on_with_another_number_of_replicas(quick, tmp_path):
    """Where it is told to: the last digits are not those of an unbroken run."""
    words = ["averaging=ema", "callback.checkpoint.every=5st", "trainer.steps=20", "optimizer=momentum"]
    words.append("regularization=l2")  # no dropout, whose masks differ
    quick(*words).run(tmp_path / "whole")
    interrupted(quick(*words, *mirrored(2)), tmp_path / "cut")
    with pytest.raises(UserError, match="replicas was 2, is 4; resume_mismatch=warn"):
        quick(*words, *mirrored(4)).run(tmp_path / "cut")
    quick(*words, *mirrored(4)).run(tmp_path / "cut", mismatch="warn")
    assert apart(state(tmp_path / "whole"), state(tmp_path / "cut")) <= 1e-5


def interrupted(run, folder: Path) -> None:
    """A run that ends, as if killed, after its tenth step."""
    from descent.session import running

    class Killed(Exception):
        pass

    def train(*arguments):
        for segment in whole(*arguments):
            yield segment
            if segment.step >= 10:
                raise Killed

    whole = running.train
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "train", train)
        with pytest.raises(Killed):
            run.run(folder)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trainer.batch_size=30"], r"trainer\.batch_size=30 is .* multiple of 4 \(4 replicas\); use 28 or 32"),
        (["augmentation=mixup", "trainer.batch_size=12"], r"multiple of 8 \(4 replicas times 2 samples, as MixUp"),
        (["trainer.accumulate=2", "trainer.batch_size=12"], r"multiple of 8 \(4 replicas times 2 parts"),
        (["trainer.jit=true"], r"trainer\.jit=true: XLA cannot compile a loop over several replicas"),
        (["strategy.devices=0"], r"strategy\.devices"),
        (["strategy.devices=[CPU:0,CPU:0]"], r"strategy\.devices=.*should name each device once"),
    ],
)
def test_what_cannot_be_is_said_before_tensorflow_starts(words: list[str], message: str):
    with pytest.raises(UserError, match=message):
        compose(*mirrored(4), *words)


def test_devices_that_are_not_there_are_named(quick, folder):
    with pytest.raises(UserError, match=r"strategy\.devices: there is no GPU:7; there are CPU:0"):
        quick("strategy=mirrored", "strategy.devices=[GPU:7]").run(folder)
