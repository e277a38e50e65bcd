"""The same run from Python: composed, built by hand, loaded back, and extended by a user's own parts."""

from __future__ import annotations

import sys
import textwrap

import numpy as np
import pytest

from descent import Experiment, UserError, compose, load
from descent.augmentation import Mixing
from descent.data import Synthetic
from descent.experiment import Augmentation
from descent.model import Mlp
from descent.optimizer import SGD
from descent.schedule import Cosine
from descent.trainer import Trainer


def by_hand(**changes):
    parts = {
        "data": Synthetic(samples=128),
        "augmentation": Augmentation(batch=Mixing(mixup_alpha=0.2)),
        "model": Mlp(widths=(16,)),
        "optimizer": SGD(learning_rate=0.1, momentum=0.9),
        "schedule": Cosine(warmup="2st"),
        "trainer": Trainer(steps=6, threads=2, jit=False),
    }
    return Experiment(**(parts | changes))


def test_an_experiment_is_built_from_its_parts(folder):
    result = by_hand().run(folder)
    assert result.model.count_params() == 64 * 16 + 16 + 16 * 10 + 10
    assert 0 <= result.record["test/accuracy"] <= 1


def test_composed_and_hand_built_runs_are_one_value():
    composed = compose(
        "data=synthetic", "data.samples=128", "augmentation/batch=mixup", "model.widths=[16]", "regularization=none",
        "optimizer=momentum", "optimizer.learning_rate=0.1", "schedule=cosine", "schedule.warmup=2st",
        "trainer.steps=6", "trainer.threads=2", "trainer.jit=false", "callback=[checkpoint]", "logger.tensorboard=null",
    )  # fmt: skip
    assert composed == by_hand()


def test_a_list_of_overrides_is_a_message():
    with pytest.raises(UserError, match=r"compose: \['seed=1'\] is no text"):
        compose(["seed=1"])


def test_a_loaded_run_has_its_model_config_and_metrics(folder):
    result = by_hand().run(folder)
    loaded = load(folder)
    for a, b in zip(result.model.get_weights(), loaded.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert loaded.experiment == by_hand()
    assert loaded.metrics.index.tolist() == [4, 6]
    assert loaded.metrics["val/loss"].iloc[-1] == result.record["val/loss"]
    assert loaded.summary["test/loss"] == result.record["test/loss"]


def test_loading_what_is_no_run_is_a_message(tmp_path):
    with pytest.raises(UserError, match="no run folder"):
        load(tmp_path)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A user's own package with a model and a schedule."""
    (tmp_path / "my_package.py").write_text(
        textwrap.dedent(
            """
            import numpy as np
            from descent import part

            @part
            class MyModel:
                units: int = 4

                def build(self, spec, regularization):
                    import keras
                    inputs = keras.Input(spec.shape)
                    x = keras.layers.Dense(self.units, "relu")(keras.layers.Flatten()(inputs))
                    return keras.Model(inputs, keras.layers.Dense(spec.outputs)(x))

            @part
            class Sawtooth:
                teeth: int = 3

                def __call__(self, progress):
                    return 1 - np.mod(np.asarray(progress) * self.teeth, 1)
            """
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_package"
    sys.modules.pop("my_package", None)


def test_a_users_own_parts_work_by_target(quick, folder, package):
    run = quick(
        "~model", f"+model._target_={package}.MyModel", "+model.units=5",
        "~schedule", f"+schedule._target_={package}.Sawtooth",
    )  # fmt: skip
    result = run.run(folder)
    assert result.model.count_params() == 64 * 5 + 5 + 5 * 10 + 10
    assert load(folder).experiment == run


def test_a_users_part_of_the_wrong_kind_is_named(package):
    with pytest.raises(UserError, match=r"^model=Sawtooth: should be a part of the kind Model$"):
        compose("~model", f"+model._target_={package}.Sawtooth")


def test_a_users_config_folder_joins_by_the_search_path(tmp_path, package):
    (tmp_path / "conf/model").mkdir(parents=True)
    (tmp_path / "conf/model/mine.yaml").write_text(f"_target_: {package}.MyModel\nunits: 7\n")
    run = compose("model=mine", f"hydra.searchpath=[file://{tmp_path}/conf]")
    assert run.model.units == 7
