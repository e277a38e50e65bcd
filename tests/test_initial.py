"""A new run from given weights: of a run, of one of its checkpoints, of a Keras file."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from descent import UserError, checkpoint, compose

SMALL = ("model.widths=[8]", "callback=[checkpoint]")


@pytest.fixture
def earlier(quick, tmp_path) -> Path:
    quick(*SMALL, "trainer.steps=10").run(tmp_path / "earlier")
    return tmp_path / "earlier"


def at_the_start(quick, folder: Path, source: Path, *words: str) -> dict[str, np.ndarray]:
    """The weights of step 0, which a run from given weights saves first."""
    quick(*SMALL, "callback.checkpoint.keep=100", f"init_from={source}", *words).run(folder)
    saved = checkpoint.read(folder / "checkpoints/step-000000")
    paths = [about["path"] for about in saved.about["variables"]["model"]]
    return dict(zip(paths, saved.arrays["model"], strict=True))


def assert_equal(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert actual.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_array_equal(actual[path], array, strict=True)


def test_a_run_starts_from_the_weights_that_another_tested(quick, earlier, tmp_path, capsys):
    paths, arrays = checkpoint.named_weights(earlier / "checkpoints/best")
    found = at_the_start(quick, tmp_path / "new", earlier, "seed=5")
    assert_equal(found, dict(zip(paths, arrays, strict=True)))
    assert f"init_from: {len(paths)} of {len(paths)} variables, 100.0% of the weights, are" in capsys.readouterr().out


def test_one_of_its_checkpoints_gives_the_best_weights_up_to_it(quick, earlier, tmp_path):
    step = earlier / "checkpoints/step-000010"
    saved = checkpoint.read(step)
    expected = dict(zip([v["path"] for v in saved.about["variables"]["best"]], saved.arrays["best"], strict=True))
    assert_equal(at_the_start(quick, tmp_path / "new", step, "seed=5"), expected)


def test_a_keras_file_gives_its_weights(quick, tmp_path):
    built = quick(*SMALL, "trainer.steps=10").run(tmp_path / "earlier").model
    built.save(tmp_path / "model.keras")
    expected = {v.path: np.asarray(v.value) for v in built.variables}
    assert_equal(at_the_start(quick, tmp_path / "new", tmp_path / "model.keras", "seed=5"), expected)


def test_what_does_not_match_stays_as_initialised_and_is_named(quick, earlier, tmp_path, capsys):
    other = ("model.widths=[8,4]", "seed=5")
    found = at_the_start(quick, tmp_path / "new", earlier, *other)
    told = " ".join(capsys.readouterr().out.split())
    given = dict(zip(*checkpoint.named_weights(earlier / "checkpoints/best"), strict=True))
    matched = [path for path in found if path in given and given[path].shape == found[path].shape]
    fresh = [path for path in found if path not in matched]
    assert matched
    assert fresh
    assert f"init_from: {len(matched)} of {len(found)} variables" in told
    for path in matched:
        np.testing.assert_array_equal(found[path], given[path])
    for path in fresh:
        assert path in told.split("as initialised: ")[1]
        assert not np.array_equal(found[path], given.get(path))


def test_weights_of_quite_another_model_are_refused(quick, tmp_path):
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="elsewhere")]).save(tmp_path / "other.keras")
    run = quick(*SMALL, f"init_from={tmp_path / 'other.keras'}")
    with pytest.raises(UserError, match="none of its variables has the path and shape of one of this model"):
        run.run(tmp_path / "new")


def test_a_file_that_holds_no_model_is_one_line(quick, tmp_path):
    (tmp_path / "model.keras").write_text("not one")
    with pytest.raises(UserError, match=r"no model can be read from it") as caught:
        quick(*SMALL, f"init_from={tmp_path / 'model.keras'}").run(tmp_path / "new")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["nowhere", "nowhere.keras", "empty"])
def test_where_there_are_no_weights_is_said_when_composing(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        UserError, match=f"init_from=.*{name}: neither a run folder, nor one of its checkpoints"
    ) as caught:
        compose(f"init_from={tmp_path / name}")
    assert "\n" not in str(caught.value)


def test_a_run_goes_on_when_what_it_started_from_is_gone(quick, earlier, tmp_path):
    run = quick(*SMALL, f"init_from={earlier}")
    whole = run.run(tmp_path / "new")
    (tmp_path / "new/done.json").unlink()
    earlier.rename(tmp_path / "gone")
    assert run.run(tmp_path / "new").record == whole.record
