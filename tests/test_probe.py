"""Probes: what they find is right, and a run with them is the run without them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from descent import Experiment
from descent.folder import RunFolder, read_rows
from descent.probe import NoiseScale, gradient_statistics, histogram
from descent.session import Run, inspecting
from descent.session.running import Session

SMALL = ("model=cnn", "model.widths=[8]", "model.dense=8")
ALL = "callback=[checkpoint,batch_preview,histograms,noise_scale]"


def built(experiment: Experiment, folder: Path) -> Run:
    return Run(experiment, RunFolder(folder), [])


@pytest.mark.parametrize("model", [SMALL, ("model=mlp",)])
def test_a_run_with_probes_is_the_run_without_them(quick, tmp_path, model):
    words = (*model, "augmentation=mixup_cutmix", "trainer.eval_every=5st", "regularization=standard")
    plain, probed = tmp_path / "plain", tmp_path / "probed"
    without = quick(*words, "callback=[checkpoint]").run(plain).model.get_weights()
    weights = quick(*words, ALL, "callback.batch_preview.every=2").run(probed).model.get_weights()
    rows = read_rows(probed / "metrics.jsonl")
    assert any("train/noise_scale" in row for row in rows)
    for row in rows:
        row.pop("train/noise_scale", None)
    assert rows == read_rows(plain / "metrics.jsonl")
    assert all(np.array_equal(a, b) for a, b in zip(weights, without, strict=True))
    assert sorted(path.name for path in probed.glob("plots/batch_*.png")) == ["batch_000006.png", "batch_000016.png"]


def test_the_gradients_are_those_of_the_next_update(quick, folder):
    """Plain gradient descent moves the weights by the rate times them: dropout, mixing and batch norm included."""
    rate = 0.01
    words = (*SMALL, "augmentation=mixup", "optimizer=sgd", f"optimizer.learning_rate={rate}")
    run = built(quick(*words, "schedule=constant", "clipping=none", "optimizer.weight_decay=0"), folder)
    before, found = run.inspector.weights(), run.inspector.gradients()
    chunk = next(iter(run.pipeline.training(0)))
    run.step.run(chunk, np.int32(0), np.int32(1))
    after = run.inspector.weights()
    assert found.keys() == before.keys()
    for path, gradient in found.items():
        moved = (before[path] - after[path]) / rate
        assert moved == pytest.approx(gradient, abs=1e-4), path


def test_squares_are_those_of_the_gradients_of_each_batch_and_of_all(quick, folder):
    run = built(quick("schedule=constant"), folder)
    each = []
    for step in range(3):
        run.state.step.assign(step)
        each.append(np.concatenate([g.ravel() for g in run.inspector.gradients().values()]).astype(np.float64))
    run.state.step.assign(0)
    small, big, count = run.inspector.squares(3)
    assert count == 3
    assert small == pytest.approx(np.mean([g @ g for g in each]), rel=1e-5)
    assert big == pytest.approx(np.mean(each, axis=0) @ np.mean(each, axis=0), rel=1e-5)


def test_at_the_end_the_last_whole_batches_are_used(quick, folder):
    run = built(quick(), folder)
    run.state.step.assign(run.pipeline.steps)
    assert list(run.inspector._whole(4)) == list(range(run.pipeline.steps - 5, run.pipeline.steps - 1))


def test_signal_and_variance_are_recovered_from_their_expected_norms():
    """McCandlish et al. 2018, eq. A.1: E |G_B|^2 = |G|^2 + tr(Sigma) / B."""
    signal, variance = 0.7, 90.0
    norms = [signal + variance / size for size in (32, 256)]
    assert gradient_statistics(*norms, 32, 256) == pytest.approx((signal, variance))


class Gaussian:
    """Batches whose gradients have a mean and a covariance that are known."""

    batch_size = 16

    def __init__(self) -> None:
        self.draw, self.mean, self.deviation = np.random.default_rng(0), np.full(50, 0.1), np.linspace(0.5, 1.5, 50)

    def squares(self, count: int) -> tuple[float, float, int]:
        noise = self.draw.normal(size=(count, 50)) * self.deviation / self.batch_size**0.5
        each = self.mean + noise
        return float((each**2).sum(1).mean()), float((each.mean(0) ** 2).sum()), count


def test_the_noise_scale_of_gradients_of_known_moments():
    run, memory, record = Gaussian(), {}, {}
    for _ in range(400):
        memory, record = NoiseScale(decay=0.99).look(memory, run)
    expected = np.square(run.deviation).sum() / np.square(run.mean).sum()
    assert record["train/noise_scale"] == pytest.approx(expected, rel=0.1)


def test_it_is_asked_at_the_first_and_every_nth_evaluation():
    memory, asked = {}, []
    for _ in range(5):
        memory, record = NoiseScale(every=2).look(memory, Gaussian())
        asked.append(bool(record))
    assert asked == [True, False, True, False, True]


def test_nothing_is_said_of_a_gradient_that_is_lost_in_noise():
    @dataclasses.dataclass
    class Lost:
        batch_size: int = 16

        def squares(self, count: int) -> tuple[float, float, int]:
            return 1.0, 0.01, count  # the mean of 8 is shorter than noise alone would leave it

    assert NoiseScale().look({}, Lost())[1] == {}


def test_a_histogram_has_the_moments_and_all_values():
    values = np.random.default_rng(1).normal(size=1000).astype(np.float32)
    made = histogram(values)
    assert made.num == sum(made.bucket) == 1000
    assert (made.min, made.max) == (values.min(), values.max())
    assert made.sum == pytest.approx(values.sum(dtype=float))
    assert made.sum_squares == pytest.approx(np.square(values, dtype=float).sum())


def test_tensorboard_reads_the_histograms_of_every_variable(quick, folder):
    run = quick("callback=[checkpoint,histograms]", "trainer.eval_every=10st")
    model = run.run(folder).model
    events = EventAccumulator(str(folder / "tensorboard/histograms"), {"histograms": 0})
    events.Reload()
    paths = {v.path: v.shape for v in model.trainable_variables}
    assert set(events.Tags()["histograms"]) == {f"{kind}/{p}" for kind in ("weights", "gradients") for p in paths}
    for path, shape in paths.items():
        assert [e.step for e in events.Histograms(f"weights/{path}")] == [10, 20]
        assert events.Histograms(f"weights/{path}")[0].histogram_value.num == np.prod(shape)


@pytest.mark.parametrize(("killed", "expected"), [(0, 0.0), (13, 13 / 48), (32, 32 / 48)])
def test_units_that_are_zero_for_all_samples_are_dead(quick, folder, killed: int, expected: float):
    run = Session(quick("model.widths=[32,16]"), RunFolder(folder), [])
    layer = run.state.model.get_layer("dense_0")
    kernel, _ = layer.get_weights()
    layer.set_weights([np.abs(kernel) * 0, np.where(np.arange(32) < killed, -1.0, 1.0)])
    last = run.state.model.get_layer("dense_1")
    last.set_weights([last.get_weights()[0] * 0, last.get_weights()[1] + 1])
    assert inspecting.dead_units(run.state.model, run.pipeline) == {"dead_units": pytest.approx(expected)}


def test_a_model_without_relus_has_no_dead_units(quick, folder):
    run = Session(quick("model.activation=gelu"), RunFolder(folder), [])
    assert inspecting.dead_units(run.state.model, run.pipeline) == {}
