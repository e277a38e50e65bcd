"""The presets of `sweep=`: each chooses its own sweeper, and its ranges are those of the course."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from optuna.distributions import CategoricalDistribution, FloatDistribution

from descent.config import CONF
from hydra_plugins.descent_sweeper._space import distribution


def sweeper(*words: str) -> Any:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", list(words), return_hydra_config=True).hydra.sweeper


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ([], "GridSweeper"),
        (["sweep=seeds"], "GridSweeper"),
        (["sweep=lr_grid"], "GridSweeper"),
        (["sweep=tuned"], "GridSweeper"),
        (["sweep=course"], "OptunaSweeper"),
        (["sweep=ablation"], "AblationSweeper"),
        (["experiment=ablation"], "AblationSweeper"),
        (["experiment=ablation", "sweep=tuned"], "AblationSweeper"),
        (["hydra/sweeper=optuna"], "OptunaSweeper"),
    ],
)
def test_a_preset_chooses_its_sweeper(words: list[str], kind: str):
    assert sweeper(*words)._target_.endswith(f".{kind}")


@pytest.mark.parametrize("preset", ["seeds", "lr_grid", "tuned", "course", "ablation"])
def test_a_preset_sweeps_without_being_told_so(preset: str):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert compose("train", [f"sweep={preset}"], return_hydra_config=True).hydra.mode == RunMode.MULTIRUN


def test_the_ranges_are_those_of_the_course():
    parse = OverridesParser.create().parse_override
    found = {key: distribution(parse(f"{key}={value}")) for key, value in sweeper("sweep=course").params.items()}
    assert found == {
        "optimizer.learning_rate": FloatDistribution(1e-5, 1e-1, log=True),
        "optimizer.weight_decay": FloatDistribution(1e-3, 1e-1, log=True),
        "regularization.dropout": FloatDistribution(0.1, 0.7),
        "schedule.warmup": FloatDistribution(0.05, 0.15),
        "trainer.batch_size": CategoricalDistribution(["16", "32", "64", "128"]),
    }


def test_the_grid_of_rates_is_even_on_a_log_scale():
    rates = np.array(sweeper("sweep=lr_grid").params["optimizer.learning_rate"].split(","), float)
    np.testing.assert_allclose(np.diff(np.log10(rates)), 0.5, atol=0.03)


def test_an_ablation_with_rates_of_its_own_has_both():
    both = sweeper("experiment=ablation", "sweep=tuned")
    assert both.tune.key == "optimizer.learning_rate"
    assert "dropout" in both.techniques
    assert not {int(seed) for seed in both.params.seed.split(",")} & set(both.tune.seeds)
