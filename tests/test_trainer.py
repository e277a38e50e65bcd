"""How many steps a call has, where calls begin, and that no program is compiled twice."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest

from descent import compose
from descent.session import build
from descent.trainer import CHUNK_VALUES, DEFAULT_EPOCHS, LONGEST_CALL, Trainer, boundaries, train
from descent.types import SPLITS

SMALL, LARGE = 1e4, 1e8  # FLOPs of a sample


@pytest.mark.parametrize("flops", [SMALL, 1e6, 1e7, LARGE])
@pytest.mark.parametrize("every", ["1ep", "10ep", "100st", 0.07])
@pytest.mark.parametrize("samples", [1168, 54_000])
def test_calls_fill_the_interval_between_evaluations(flops, every, samples):
    """The last call of an interval is shorter by less than a step for each of its calls."""
    trainer = Trainer(epochs=20, eval_every=every)
    clock = trainer.clock(samples)
    interval = clock.in_steps(every)
    chunk = trainer.chunk(clock, 64, flops)
    calls = math.ceil(interval / chunk)
    assert 1 <= chunk <= LONGEST_CALL
    assert 0 <= calls * chunk - interval < calls


def test_larger_models_have_shorter_calls():
    trainer = Trainer(steps=100_000, eval_every=1.0, batch_size=128)
    chunks = [trainer.chunk(trainer.clock(50_000), 784, flops) for flops in (SMALL, 1e6, 1e7, LARGE)]
    assert chunks == sorted(chunks, reverse=True)
    assert chunks[-1] == 1
    assert chunks[2] * 3 * 1e7 * 128 / 1e11 == pytest.approx(0.25, rel=0.2)


@pytest.mark.parametrize("values", [64, 784, 224 * 224 * 3])
def test_memory_bounds_a_chunk(values):
    trainer = Trainer(steps=100_000, eval_every=1.0, batch_size=64)
    chunk = trainer.chunk(trainer.clock(50_000), values, SMALL)
    assert chunk == 1 or chunk * 64 * values <= CHUNK_VALUES


def test_a_call_of_given_length_has_it():
    trainer = Trainer(steps=100, steps_per_call=7)
    assert trainer.chunk(trainer.clock(1000), 64, SMALL) == 7
    assert Trainer(steps=5, steps_per_call=7).chunk(Trainer(steps=5).clock(1000), 64, SMALL) == 5


def dense():
    return keras.layers.Dense(2)


def convolution():
    return keras.layers.Conv1D(2, 1)


def recurrent():
    return keras.Sequential([keras.layers.LSTM(2)])


@pytest.mark.parametrize(
    ("layer", "steps", "flops", "compiled"),
    [
        (dense, 1_460, SMALL, False),  # over in two seconds, and compiling takes as long
        (dense, 100_000, SMALL, True),
        (dense, 1_000, LARGE, True),
        (convolution, 100_000, LARGE, False),
        (recurrent, 100_000, LARGE, False),
    ],
)
def test_xla_compiles_long_runs_of_models_that_gain(layer, steps, flops, compiled):
    model = keras.Sequential([layer()])
    assert Trainer(steps=steps).jits(model, steps, flops) is compiled
    assert [Trainer(jit=jit).jits(model, steps, flops) for jit in (True, False)] == [True, False]


def test_a_run_without_a_length_has_that_of_its_kind_of_data():
    for kind, epochs in DEFAULT_EPOCHS.items():
        assert Trainer().settled(kind).clock(320).steps == epochs * 10
        assert Trainer(steps=7).settled(kind).clock(320).steps == 7
        assert Trainer(epochs=3).settled(kind) == Trainer(epochs=3)
    run = compose("trainer.epochs=null")
    assert run.clock.steps == math.ceil(40 * run.data.spec.sizes["train"] / 32)
    assert run.trainer.epochs is None  # so that a run keeps its identity
    assert run.resolved().trainer.epochs == 40


@pytest.fixture
def built(quick):
    """40 steps in calls of at most 8, stopped every 11."""
    return build(quick("trainer.steps=40", "trainer.steps_per_call=8").resolved())


def test_a_chunk_begins_at_the_start_and_at_every_stop(built):
    assert built.pipeline.starts(0, boundaries(11, 40)) == [0, 8, 11, 19, 22, 30, 33]
    assert built.pipeline.starts(20, boundaries(11, 40)) == [20, 22, 30, 33]
    assert built.pipeline.starts(0) == [0, 8, 16, 24, 32]


def test_segments_are_all_the_steps_in_order(built):
    segments = list(train(built.step, built.pipeline, 0, boundaries(11, 40)))
    assert [s.step for s in segments] == [8, 11, 19, 22, 30, 33, 40]
    assert [s.first for s in segments] == [1, *(s.step + 1 for s in segments[:-1])]
    assert int(built.state.step.numpy()) == 40


def test_where_calls_end_changes_no_byte(quick):
    rows = []
    for stops in ([], boundaries(11, 40)):
        made = build(quick("trainer.steps=40", "trainer.steps_per_call=8").resolved())
        rows.append(np.concatenate([s.rows for s in train(made.step, made.pipeline, 0, stops)]))
    assert rows[0].tobytes() == rows[1].tobytes()


@pytest.mark.parametrize("jit", [False, True])
def test_nothing_is_traced_after_the_first_call(quick, jit):
    made = build(quick("trainer.steps=40", "trainer.steps_per_call=8", f"trainer.jit={str(jit).lower()}").resolved())
    for _ in train(made.step, made.pipeline, 0, boundaries(11, 40)):
        assert made.step.run.experimental_get_tracing_count() == 1
        for split in SPLITS:
            made.evaluator.outcome(split)
        assert made.step.evaluate.experimental_get_tracing_count() == 1  # for all splits


def test_an_interval_below_a_step_is_every_step_at_once():
    assert boundaries(1e-12, 5) == [1, 2, 3, 4, 5]
