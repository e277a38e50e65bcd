"""A program taken over from the last run of a process gives the bytes of one made anew; another is not taken over."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from descent import checkpoint, compose, identity, part
from descent.optimizer import SGD
from descent.session import finishing, programs
from descent.session.programs import Programs
from descent.step import Step
from samples import text_file

EVERYTHING = (
    "model=cnn", "model.widths=[4,4]", "augmentation=mixup_cutmix", "regularization=standard",
    "regularization.gradient_noise=0.1", "averaging=ema", "clipping=global_norm", "trainer.accumulate=2",
)  # fmt: skip
ANOTHER = ("seed=1", "optimizer.learning_rate=0.004", "schedule=cosine", "name=another", "callback=early_stopping")


def results(folder):
    """All that a run leaves, but for its times."""
    summary = json.loads((folder / "summary.json").read_text())
    kept = {name: value for name, value in summary.items() if name not in finishing.WALL_CLOCK}
    weights = [w.tobytes() for w in checkpoint.load_weights(folder / "checkpoints/best")]
    saved, _ = checkpoint.newest(folder / "checkpoints")
    state = {kind: [a.tobytes() for a in arrays] for kind, arrays in saved.arrays.items()}
    return kept, weights, state, (folder / "metrics.jsonl").read_bytes()


@pytest.fixture
def traces(monkeypatch):
    """The steps that are traced, one entry for each time."""
    seen, update = [], Step.update
    monkeypatch.setattr(Step, "update", lambda own, *given: (seen.append(own), update(own, *given))[1])
    return seen


@pytest.mark.parametrize(
    "words",
    [EVERYTHING, ("model=mlp", "regularization=dropout", "augmentation=standard", "averaging=swa", "sharpness=sam"),
     pytest.param(("trainer.jit=true", "regularization=dropout"), marks=pytest.mark.slow),
     pytest.param(("data=docstrings", "model=lstm", "regularization=standard"), marks=pytest.mark.slow)],
)  # fmt: skip
def test_a_run_with_the_program_of_another_gives_the_bytes_of_a_run_alone(quick, tmp_path, traces, words):
    quick(*words, *ANOTHER).run(tmp_path / "alone")
    there, alone = Programs(), len(traces)
    with there.used():
        quick(*words).run(tmp_path / "first")
        quick(*words, *ANOTHER).run(tmp_path / "second")
        quick(*words).run(tmp_path / "third")
    assert alone > 0
    assert len(traces) == 2 * alone  # all three with one program
    assert results(tmp_path / "second") == results(tmp_path / "alone")
    assert results(tmp_path / "third") == results(tmp_path / "first")
    assert results(tmp_path / "first")[1] != results(tmp_path / "second")[1]


def test_other_programs_are_not_taken_over_and_only_the_last_is_kept(quick, tmp_path):
    there = Programs()
    with there.used():
        kept = []
        for i, words in enumerate([[], ["regularization.dropout=0.3"], ["regularization.dropout=0.3", "seed=2"]]):
            quick("regularization=dropout", *words).run(tmp_path / str(i))
            kept.append(there.built.step)
    assert kept[0] is not kept[1] is kept[2]


def test_nothing_is_kept_of_a_run_that_raised_or_of_a_large_model(quick, tmp_path, monkeypatch):
    there = Programs()
    with there.used():
        quick().run(tmp_path / "a")
    assert there.built is not None
    monkeypatch.setattr(Step, "run", property(lambda _: 1 / 0), raising=False)
    with pytest.raises(ZeroDivisionError), there.used():
        quick().run(tmp_path / "b")
    assert there.built is None
    monkeypatch.undo()
    monkeypatch.setattr(programs, "LARGE", 100)
    with there.used():
        quick().run(tmp_path / "c")
    assert there.built is None


def test_outside_of_its_context_every_run_has_its_own_model(quick, tmp_path):
    there = Programs()
    with there.used():
        first = quick().run(tmp_path / "a").model
    before = [np.array(v) for v in first.trainable_variables]
    assert quick("seed=1").run(tmp_path / "b").model is not first
    assert all(np.array_equal(v, was) for v, was in zip(first.trainable_variables, before, strict=True))


@pytest.mark.parametrize(
    "word",
    ["model.widths=[8]", "model=cnn", "regularization=dropout", "optimizer=sgd", "optimizer.weight_decay=0.1",
     "clipping=global_norm", "averaging=ema", "loss=focal", "augmentation=mixup_cutmix", "trainer.batch_size=16",
     "trainer.steps=30", "trainer.precision=mixed_bfloat16", "trainer.eval_every=7st", "trainer.log_every=3",
     "data.noise=2", "sharpness=sam", "strategy=mirrored"],
)  # fmt: skip
def test_what_is_compiled_makes_another_program(quick, word):
    assert identity.program(quick(word)) != identity.program(quick())


def test_what_a_part_has_made_for_its_data_is_of_the_program(tmp_path):
    """Synonyms of a vocabulary, say: the resolved experiment holds a table."""
    data = f"data.path={text_file(tmp_path)}"
    made = [
        identity.program(compose("data=csv_text", data, "model=lstm", "augmentation=text_eda", *words).resolved())
        for words in ((), ("seed=1",), ("augmentation.sample.swap=0.3",))
    ]
    assert made[0] == made[1] != made[2]


@pytest.mark.parametrize("word", [*ANOTHER, "logger=tensorboard", "tags=[a]"])
def test_what_is_not_compiled_makes_none(quick, word):
    assert identity.program(quick(word)) == identity.program(quick())


@part
class Halved(SGD):
    """Takes its rate into what it builds."""


def test_an_optimizer_from_elsewhere_may_build_its_rate_in(quick):
    first, second = (dataclasses.replace(quick(), optimizer=Halved(learning_rate=rate)) for rate in (0.1, 0.2))
    assert identity.program(first) != identity.program(second)
