"""Samplers and pruners on functions whose best place is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from descent import UserError
from descent.sweep.job import Outcome
from descent.sweep.sampling import sampler
from descent.sweep.settings import Settings
from descent.sweep.study import Pruning, Study
from trials import job, made

BOX = {"x": FloatDistribution(1e-4, 1.0, log=True), "y": FloatDistribution(0.0, 1.0)}


def bowl(params: dict[str, float]) -> float:
    """Least, and 0, at x = 0.01, y = 0.3."""
    return (np.log10(params["x"]) + 2) ** 2 / 16 + (params["y"] - 0.3) ** 2


def search(study: Study, folder: Path, trials: int) -> list[float]:
    """Asks for so many trials and tells their values; returns these."""
    values = []
    for _ in range(trials):
        trial = study.ask()
        assert trial is not None
        values.append(bowl(trial.params))
        study.tell(trial, job(folder / "job", best={"monitor": "val/loss", "value": values[-1]}), Outcome("done"))
    return values


@pytest.mark.parametrize("kind", ["tpe", "cmaes"])
@pytest.mark.parametrize("seed", [0, 1])
def test_what_learns_comes_nearer_than_chance(tmp_path: Path, kind: str, seed: int):
    """The mean over the box is 1/12 in x and 1/12 + 0.2^2 in y."""
    chance = 1 / 12 + 1 / 12 + 0.2**2
    study = made(tmp_path, space=BOX, sampler=kind, seed=seed, trials=40, storage="journal")
    assert np.mean(search(study, tmp_path, 40)[-10:]) < 0.4 * chance


@pytest.mark.parametrize("kind", ["tpe", "cmaes", "random", "qmc"])
def test_a_restart_repeats_nothing(tmp_path: Path, kind: str):
    for _ in range(3):
        search(made(tmp_path, space=BOX, sampler=kind, trials=12), tmp_path, 4)
    trials = made(tmp_path, space=BOX, sampler=kind, trials=12).study.get_trials()
    assert len({trial.params["x"] for trial in trials}) == 12


def test_sixteen_points_of_sobols_sequence_fill_sixteen_bins(tmp_path: Path):
    """The one-dimensional projections of a (t, m, s)-net in base 2; the first trial of Optuna's is drawn."""
    search(made(tmp_path, space=BOX, sampler="qmc", trials=17), tmp_path, 9)
    search(made(tmp_path, space=BOX, sampler="qmc", trials=17), tmp_path, 8)
    trials = made(tmp_path, space=BOX, sampler="qmc", trials=17).study.get_trials()[1:]
    for places in ([np.log10(t.params["x"]) / 4 + 1 for t in trials], [t.params["y"] for t in trials]):
        assert sorted(int(16 * place) for place in places) == list(range(16))


def test_a_grid_asks_for_every_cell_once(tmp_path: Path):
    space = {"x": IntDistribution(0, 4, step=2), "y": CategoricalDistribution(["a", "b"])}
    study = made(tmp_path, space=space, sampler="grid", trials=99)
    cells = []
    while trial := study.ask():
        cells.append(tuple(trial.params.values()))
        study.tell(trial, job(tmp_path / "job"), Outcome("done"))
    assert sorted(cells) == [(x, y) for x in (0, 2, 4) for y in "ab"]


def test_an_interval_is_no_grid():
    with pytest.raises(UserError, match=r"x: a grid needs choice or range, not an interval"):
        sampler("grid", BOX, 0, 0)


# --- giving up -------------------------------------------------------------------------------------------------------


def watched(study: Study, folder: Path, pruner: str, steps: int, rung: int, curve) -> int:
    """Runs a trial whose validation loss is `curve` of the step; returns the step at which it ended."""
    trial = study.ask()
    assert trial is not None
    evaluations = range(rung, steps + 1, rung)
    watch = Pruning(folder, trial._trial_id, pruner, "val/loss", evaluations).watch()
    for step in evaluations:
        if told := watch({"step": step, "val/loss": curve(step)}):
            assert told == f"pruned by {pruner} at step {step}"
            study.tell(trial, job(folder / "job"), Outcome("pruned"))
            return step
    study.tell(trial, job(folder / "job"), Outcome("done"))
    return steps


def test_the_median_gives_up_what_is_worse_than_half_of_the_finished(tmp_path: Path):
    study = made(tmp_path, trials=9)
    for value in (1.0, 2.0, 3.0, 4.0, 5.0):
        assert watched(study, tmp_path, "none", 20, 10, lambda _, value=value: value) == 20
    assert watched(study, tmp_path, "median", 20, 10, lambda _: 2.9) == 20
    assert watched(study, tmp_path, "median", 20, 10, lambda _: 3.2) == 10


def test_a_record_without_an_evaluation_gives_nothing_up(tmp_path: Path):
    study = made(tmp_path, trials=9)
    for value in range(6):
        watched(study, tmp_path, "none", 20, 10, lambda _, value=value: value)
    trial = study.ask()
    assert trial is not None
    watch = Pruning(tmp_path, trial._trial_id, "median", "val/loss", (10, 20)).watch()
    assert not watch({"step": 10, "train/loss": 99.0})
    assert watch({"step": 10, "val/loss": 99.0})


def test_trials_of_another_batch_size_are_compared_by_their_evaluations(tmp_path: Path):
    study = made(tmp_path, trials=9)
    for i in range(5):
        assert watched(study, tmp_path, "none", 20 * (i + 1), 10 * (i + 1), lambda _, i=i: float(i)) == 20 * (i + 1)
    assert watched(study, tmp_path, "median", 14, 7, lambda _: 2.1) == 7


def test_asha_lets_a_third_of_each_rung_go_on(tmp_path: Path):
    """Algorithm 2 of Li et al. (2020), in the order of arrival: the best max(1, n // 3) of the n seen at a rung."""
    study, draw = made(tmp_path, trials=20, storage="journal"), np.random.default_rng(0)
    seen: dict[int, list[float]] = {1: [], 3: [], 9: []}
    for value in draw.uniform(size=20):
        expected = 27
        for rung, values in seen.items():
            values.append(value)
            if value > sorted(values)[max(1, len(values) // 3) - 1]:
                expected = rung
                break
        assert watched(study, tmp_path, "asha", 27, 1, lambda _, value=value: value) == expected


def test_hyperband_gives_up_at_rungs_and_never_what_leads(tmp_path: Path):
    study, draw = made(tmp_path, trials=30, storage="journal"), np.random.default_rng(0)
    best, ends = np.inf, []
    for value in draw.uniform(size=30):
        ends.append(watched(study, tmp_path, "hyperband", 27, 1, lambda _, value=value: value))
        if value < best:
            best = value
            assert ends[-1] == 27
    assert set(ends) <= {1, 3, 9, 27}
    assert sum(ends) < 0.7 * 27 * 30


def test_settings_are_the_keys_of_the_file():
    import yaml

    from descent.config import CONF

    keys = yaml.safe_load((CONF / "hydra/sweeper/optuna.yaml").read_text())
    assert set(keys) == {*Settings.__dataclass_fields__, "_target_", "_convert_", "params"}
