"""A study: Hydra's syntax of a space, trials that survive a kill, and results that are those of the jobs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from descent import UserError
from descent.config import PROJECT
from descent.sweep import sampling
from descent.sweep import study as studies
from descent.sweep.job import Outcome
from hydra_plugins.descent_sweeper._space import distribution
from hydra_plugins.descent_sweeper.optuna_sweeper import OptunaSweeper
from trials import SPACE, job, made

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("k=interval(0.1, 0.7)", FloatDistribution(0.1, 0.7)),
        ("k=tag(log, interval(1e-5, 1e-1))", FloatDistribution(1e-5, 1e-1, log=True)),
        ("k=tag(int, interval(1, 9))", IntDistribution(1, 9)),
        ("k=tag(int, log, interval(8, 512))", IntDistribution(8, 512, log=True)),
        ("k=range(0, 10, 2)", IntDistribution(0, 8, step=2)),
        ("k=range(0.0, 1.0, 0.25)", FloatDistribution(0.0, 0.75, step=0.25)),
        ("k=choice(sgd, adam)", CategoricalDistribution(["sgd", "adam"])),
        ("k=sgd,adam", CategoricalDistribution(["sgd", "adam"])),
    ],
)
def test_hydras_syntax(word: str, wanted: object):
    assert distribution(OverridesParser.create().parse_override(word)) == wanted


def test_what_is_no_space_is_named():
    with pytest.raises(UserError, match="glob"):
        distribution(OverridesParser.create().parse_override("k=glob(*)"))


@pytest.mark.parametrize(
    "word", ["k=tag(log,interval(0,0.1))", "k=interval(0.1,0.001)", "k=range(5,1,-1)", "k=range(3,3)"]
)
def test_a_space_without_values_is_named(word: str):
    with pytest.raises(UserError, match=re.escape(word)):
        distribution(OverridesParser.create().parse_override(word))


def test_every_cell_of_a_grid_is_asked_for_once_though_none_has_ended(tmp_path: Path):
    grid = made(tmp_path, space={"y": SPACE["y"], "n": IntDistribution(1, 3)}, sampler="grid", trials=20)
    asked = []
    while trial := grid.ask():
        asked.append(tuple(sorted(trial.params.items())))
    assert len(asked) == 6 == len(set(asked))
    grid.give_up(grid.left()[0])
    assert grid.ask() is None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"sampler": "bayes"}, "hydra.sweeper.sampler=bayes: should be 'tpe', 'cmaes', 'random', 'grid' or 'qmc'"),
        ({"trials": 0}, "hydra.sweeper.trials=0: should be at least 1"),
        ({"objective": ["val/loss", "seconds"], "pruner": "asha"}, "pruner=asha needs one objective, and there are 2"),
        ({"objective": ["val/loss", "seconds"], "sampler": "cmaes"}, "sampler=cmaes needs one objective"),
    ],
)
def test_what_a_study_cannot_be_asked_to_do(words: dict, told: str):
    with pytest.raises(UserError, match=re.escape(told)):
        OptunaSweeper(**words)._settings()


def test_the_extremes_have_every_end_and_every_choice():
    found = sampling.extremes(SPACE)
    assert found == [{"x": 0.0, "y": "a"}, {"x": 1.0, "y": "a"}, {"x": 0.0, "y": "b"}]


@pytest.mark.parametrize("storage", ["sqlite", "journal"])
def test_a_trial_that_was_left_open_is_found_again_and_no_other_is_asked_for(tmp_path: Path, storage: str):
    before = made(tmp_path, storage=storage)
    assert (tmp_path / studies.FILES[storage]).exists()
    asked = [before.ask() for _ in range(3)]
    assert asked[0] is not None
    before.tell(asked[0], job(tmp_path / "job"), Outcome("done"))
    before.study.ask()  # killed before it had its values
    after = made(tmp_path)
    left = after.left()
    assert [trial.number for trial in left] == [1, 2]
    assert [trial.params for trial in left] == [trial.params for trial in asked[1:] if trial]
    last = after.ask()
    assert last is not None
    assert after.ask() is None
    for trial in (*left, last):
        after.tell(trial, job(tmp_path / "job"), Outcome("done"))
    states = [trial.state for trial in made(tmp_path).study.get_trials()]
    assert states.count(TrialState.COMPLETE) == 4
    assert states.count(TrialState.RUNNING) == 0


def test_a_line_that_a_kill_cut_short_is_taken_back(tmp_path: Path):
    before = made(tmp_path, storage="journal")
    before.ask()
    with (tmp_path / "study.log").open("a") as file:
        file.write('{"op_code":6,"worker')
    after = made(tmp_path)  # as it was begun
    assert after.ask() is not None
    assert len(made(tmp_path).study.get_trials()) == 2


def test_a_study_keeps_its_choices_and_objectives(tmp_path: Path):
    made(tmp_path).ask()
    made(tmp_path, space=SPACE | {"x": FloatDistribution(0.0, 9.0)})
    with pytest.raises(UserError, match="y: its study had other choices"):
        made(tmp_path, space=SPACE | {"y": CategoricalDistribution(["a", "c"])})
    with pytest.raises(UserError, match="its study has other objectives"):
        made(tmp_path, objectives=["val/accuracy"])


def test_a_study_is_searched_as_it_was_begun(tmp_path: Path):
    made(tmp_path, pruner="none", seed=1).ask()
    for changes, told in (
        ({"pruner": "median", "seed": 1}, "hydra.sweeper.pruner=median: the study in .* was begun with none"),
        ({"pruner": "none", "seed": 2}, "hydra.sweeper.seed=2: .* was begun with 1"),
        ({"sampler": "tpe", "seed": 1}, "hydra.sweeper.sampler=tpe: .* was begun with random"),
    ):
        with pytest.raises(UserError, match=told):
            made(tmp_path, **changes)
    assert len(made(tmp_path, pruner="none", seed=1, trials=9).study.get_trials()) == 1


@pytest.mark.parametrize(
    ("state", "wanted"),
    [("done", "COMPLETE"), ("pruned", "PRUNED"), ("failed", "FAIL"), ("halted", "FAIL"), ("stopped", "RUNNING")],
)
def test_what_a_study_is_told(tmp_path: Path, state, wanted: str):
    study = made(tmp_path)
    trial = study.ask()
    assert trial is not None
    study.tell(trial, job(tmp_path / "job"), Outcome(state))
    assert study.study.get_trials()[0].state.name == wanted


@pytest.mark.parametrize("sampler", ["random", "grid"])
def test_what_failed_is_asked_for_again_once(tmp_path: Path, sampler: str):
    space = {"y": SPACE["y"], "n": IntDistribution(1, 2)}
    study = made(tmp_path, space=space, sampler=sampler, trials=20)
    trials = [study.ask() for _ in range(3)]
    study.give_up(trials[1])
    for _ in range(2):
        study.retry()
    again = made(tmp_path, space=space, sampler=sampler, trials=3)  # three have begun: no new ones
    again.retry()
    assert again.ask().params == trials[1].params
    assert again.ask() is None
    again.retry()  # it is running
    assert again.ask() is None
    again.give_up(again.left()[-1])
    again.retry()
    assert again.ask().params == trials[1].params


def test_two_objectives_and_their_directions(tmp_path: Path):
    study = made(tmp_path, objectives=["val/loss", "seconds"])
    assert [d.name for d in study.study.directions] == ["MINIMIZE", "MINIMIZE"]
    trial = study.ask()
    assert trial is not None
    study.tell(trial, job(tmp_path / "job", seconds=3.0), Outcome("done"))
    assert study.study.get_trials()[0].values == [0.5, 3.0]
    assert studies.rises("val/accuracy")
    assert not studies.rises("parameters")


@pytest.mark.slow
def test_a_killed_study_ends_with_every_trial_once():
    name = f"test{time.time_ns()}"
    here = PROJECT / "outputs" / name
    words = [
        "hydra/sweeper=optuna", "hydra.sweeper.trials=8", "hydra.launcher.workers=2",
        "optimizer.learning_rate=tag(log,interval(1e-3,1e-1))", "debug=fast", "trainer.threads=1",
        "trainer.jit=false", "logger.tensorboard=null", f"name={name}",
    ]  # fmt: skip
    command = [sys.executable, str(ROOT / "train.py"), "-m", *words]
    try:
        for enough in (2, 5):
            running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            until = time.monotonic() + 300
            # Not rglob: it fails where a folder that it looks into, of a checkpoint, has just gone.
            while len(list(here.glob("sweep-*/*/done.json"))) < enough and time.monotonic() < until:
                time.sleep(0.1)
            os.kill(running.pid, signal.SIGKILL)
            running.wait()
        done = subprocess.run(command, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stdout + done.stderr
        (folder,) = here.glob("sweep-*")
        trials = optuna.load_study(study_name=studies.NAME, storage=studies.storage(folder)).get_trials()
        finished = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        assert len(finished) == 8
        assert not [trial for trial in trials if trial.state == TrialState.RUNNING]
        assert len({trial.params["optimizer.learning_rate"] for trial in finished}) == 8
        assert len(list(folder.glob("*/done.json"))) == 8
    finally:
        shutil.rmtree(here, ignore_errors=True)
