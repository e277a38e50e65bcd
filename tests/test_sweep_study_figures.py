"""The figures of studies whose answer is known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from descent import plot
from descent.sweep import study, study_figures
from descent.sweep.job import Outcome
from descent.sweep.settings import Settings
from trials import job, made

SQUARE = {"x": FloatDistribution(0.0, 1.0), "y": FloatDistribution(0.0, 1.0)}


def told(folder: Path, function, count: int, **more):
    """A study of so many trials whose objectives are a function of the settings."""
    begun = made(folder, trials=count, storage="journal", **more)
    names = begun.objectives
    for _ in range(count):
        trial = begun.ask()
        assert trial is not None
        values = dict(zip(names, np.atleast_1d(function(**trial.params)), strict=True))
        begun.tell(trial, job(folder / "job", best={"monitor": None}, **values), Outcome("done"))
    return begun.study


def test_the_shares_of_a_linear_function_are_those_of_its_squared_slopes(tmp_path: Path):
    """Var(3 x + y) over the unit square is 9/12 + 1/12."""
    found = told(tmp_path, lambda x, y: 3 * x + y, 120, space=SQUARE)
    shares = study_figures.importance(found, study_figures.trials(found))["val/loss"]
    assert list(shares) == ["x", "y"]
    assert shares["x"] == pytest.approx(0.9, abs=0.05)
    assert sum(shares.values()) == pytest.approx(1)


def test_few_trials_say_nothing_of_importance(tmp_path: Path):
    found = told(tmp_path, lambda x, y: x + y, 7, space=SQUARE)
    assert study_figures.importance(found, study_figures.trials(found)) == {}


def test_the_front_is_optunas():
    """Of distinct points, against the trials that Optuna calls its best."""
    import optuna

    draw = np.random.default_rng(0)
    values, higher = draw.uniform(size=(60, 3)), (True, False, True)
    other = optuna.create_study(directions=["maximize", "minimize", "maximize"])
    for row in values:
        other.add_trial(optuna.trial.create_trial(values=list(row)))
    best = {trial.number for trial in other.best_trials}
    assert set(np.flatnonzero(study_figures.front(values, higher))) == best
    assert 1 < len(best) < 60


def test_two_objectives_have_a_front_and_a_table(tmp_path: Path):
    space = {"x": FloatDistribution(1e-3, 1.0, log=True), "y": CategoricalDistribution(["a", "b"])}
    found = told(
        tmp_path,
        lambda x, y: (10 * (y == "b") - np.log(x), (y == "b") + x),  # b is worse than any a in both
        20,
        space=space,
        objectives=["val/loss", "seconds"],
    )
    titles = list(study_figures.drawn(found))
    assert [title.split(":")[0] for title in titles] == [
        "The trials in their order", "Pareto front", "What mattered", "Slices", "Slices",
    ]  # fmt: skip
    head, rows = study_figures.compromises(found)
    assert head == ["trial", "x", "y", "val/loss", "seconds"]
    assert {row[2] for row in rows} == {"a"}
    losses = [float(row[3]) for row in rows]
    assert losses == sorted(losses)
    assert len(rows) == sum(trial.params["y"] == "a" for trial in found.get_trials())


def test_trials_that_were_given_up_stand_where_they_were(tmp_path: Path):
    begun = made(tmp_path, trials=12)
    for i in range(12):
        trial = begun.ask()
        assert trial is not None
        if i % 3:
            begun.study._storage.set_trial_intermediate_value(trial._trial_id, 5, 9.0 + i)
            begun.study.tell(trial.number, state=TrialState.PRUNED)
        else:
            begun.tell(trial, job(tmp_path / "job", best={"monitor": "val/loss", "value": i + 1.0}), Outcome("done"))
    found = study.read(tmp_path)
    assert found is not None
    drawn = study_figures.drawn(found)
    axis = drawn["The trials in their order"].axes[0]
    lines = {line.get_label(): line.get_xydata() for line in axis.get_lines()}
    np.testing.assert_array_equal(lines["finished"], [(i, i + 1) for i in range(0, 12, 3)])
    np.testing.assert_array_equal(lines["given up"], [(i, 9 + i) for i in range(12) if i % 3])
    np.testing.assert_array_equal(lines["best so far"][:, 1], 1)


@pytest.mark.parametrize("before", [SQUARE, {"x": SQUARE["x"]}], ids=["removed", "added"])
def test_a_study_whose_space_has_changed_is_drawn_over_the_space_it_has_now(tmp_path: Path, before: dict):
    """An axis is removed, or added: the trials from before have no place along each of those there are now."""
    now = {"x": FloatDistribution(0.0, 2.0)} if before is SQUARE else SQUARE
    aims = {"objectives": ["val/loss", "seconds"]}
    told(tmp_path, lambda **at: (1.0, 2.0 + sum(at.values())), 9, space=before, **aims)
    found = told(tmp_path, lambda **at: (sum(at.values()), 1.0), 10, space=now, **aims)
    given_up = study.Study(folder=tmp_path, space=before, settings=Settings(trials=40, sampler="random"), **aims).ask()
    assert given_up is not None
    found._storage.set_trial_intermediate_value(given_up._trial_id, 5, 9.0)
    found.tell(given_up.number, state=TrialState.PRUNED)
    drawn = study_figures.drawn(found)
    (title,) = (title for title in drawn if title.startswith("Slices: val/loss"))
    assert [axis.get_xlabel() for axis in drawn[title].axes] == list(now)
    assert [len(axis.collections[0].get_offsets()) for axis in drawn[title].axes] == [10] * len(now)
    assert [len(axis.get_lines()) for axis in drawn[title].axes] == [0] * len(now)
    mattered = study_figures.importance(found, study_figures.trials(found))
    assert {key for shares in mattered.values() for key in shares} == (set(now) if len(now) > 1 else set())
    head, rows = study_figures.compromises(found)
    assert head == ["trial", *now, *(key for key in before if key not in now), "val/loss", "seconds"]
    assert {len(row) for row in rows} == {len(head)}


def test_choices_of_a_user_begin_no_formula(tmp_path: Path):
    space = {"k": CategoricalDistribution(["^a_\\w+$|^b$", "c$"])}
    found = told(tmp_path, lambda k: float(len(k)), 4, space=space)
    (figure,) = (made for title, made in study_figures.drawn(found).items() if title.startswith("Slices"))
    plot.svg(figure)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == [r"^a_\w+\$|^b\$", r"c\$"]


def test_a_folder_without_a_study_has_none(tmp_path: Path):
    assert study.read(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_neither_optuna_nor_matplotlib_is_imported_before_training():
    """What a sweep imports to start and run its jobs: the launchers, the sweepers, the pool, its worker."""
    code = (
        "import sys, hydra_plugins.descent_launcher.launcher, hydra_plugins.descent_sweeper.optuna_sweeper\n"
        "import hydra_plugins.descent_sweeper.grid\n"
        "from descent.sweep import board, closing, job, pool, running, settings, worker\n"
        "sys.exit(', '.join({'optuna', 'matplotlib', 'tensorflow'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
