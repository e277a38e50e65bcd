"""A mistake anywhere in a sweep costs a second: nothing is started, nothing is left."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OPTUNA = "hydra/sweeper=optuna"
RATE = "optimizer.learning_rate=tag(log,interval(1e-3,1e-1))"


def sweep(*words: str, env: dict[str, str], cwd: Path) -> str:
    """What a sweep says to a mistake; TensorFlow is poisoned."""
    name = f"mistake{time.time_ns()}"
    command = [sys.executable, str(ROOT / "train.py"), "-m", *words, f"name={name}"]
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stdout + done.stderr
    assert not (ROOT / "outputs" / name).exists()
    return done.stderr.replace(f" name={name}", "")


@pytest.mark.parametrize("jobs", [2, 24])
def test_the_last_job_stops_all_in_a_second_and_a_little_more_for_each(poisoned, tmp_path: Path, jobs: int):
    """On an idle machine 1 s and 0.15 s a job, where the package is imported in half a second: twice that, relatively.

    Times are those of a processor that other tests share.
    """
    before = processor_seconds()
    subprocess.run([sys.executable, "-c", "import descent"], env=poisoned, check=True)
    unit = processor_seconds() - before
    told = sweep(f"seed={','.join(map(str, range(jobs - 1)))},x", env=poisoned, cwd=tmp_path)
    assert told == f"error: job {jobs} (seed=x): seed=x: should be a whole number\n"
    assert processor_seconds() - before - unit < 4 * unit * (1 + 0.15 * jobs)


def processor_seconds() -> float:
    """What all processes that this one has started, and that have ended, have taken."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([OPTUNA, "optimizer.learning_rate=interval(-1,1)"], "optimizer.learning_rate=-1: should be above 0"),
        ([OPTUNA, "regularization.dropout=interval(0.1,1.5)"], "regularization.dropout=1.5: should be a rate"),
        ([OPTUNA, RATE, "optimizer=choice(sgd,adamm)"], "optimizer=adamm: there is no such option; did you mean adam?"),
        ([OPTUNA, "seed=0"], "a study needs something to vary"),
        ([OPTUNA, RATE, "hydra.sweeper.sampler=bayes"], "hydra.sweeper.sampler=bayes: should be 'tpe', 'cmaes'"),
        ([OPTUNA, RATE, "hydra.sweeper.objective=[val/acc]"], "hydra.sweeper.objective=val/acc: no run has it; choose"),
        ([OPTUNA, RATE, "hydra.sweeper.sampler=grid"], "optimizer.learning_rate: a grid needs choice or range"),
        (
            [OPTUNA, RATE, "hydra.sweeper.pruner=median", "hydra.sweeper.objective=val/accuracy"],
            "hydra.sweeper.pruner=median compares trials by val/loss; set callback.checkpoint.monitor=val/accuracy",
        ),
        ([OPTUNA, "optimizer.learning_rate=interval(0.1,0.001)"], "optimizer.learning_rate=interval(0.1,0.001): "),
    ],
)
def test_a_study_is_checked_at_its_ends_first(poisoned, tmp_path: Path, words: list[str], told: str):
    pytest.importorskip("optuna")
    assert told in sweep(*words, env=poisoned, cwd=tmp_path)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["hydra.launcher.workers=0"], "hydra.launcher.workers=0: should be"),
        (["init_from=nowhere"], "init_from=nowhere: neither a run folder"),
        (["resume_mismatch=refues"], "resume_mismatch=refues: should be refuse or warn"),
        (["retry=flase"], "retry=flase: should be true or false"),
        ([OPTUNA, RATE, "retry=no"], "retry=no: should be true or false"),
        (["optimizer.learning_rate=interval(1e-4,1e-1)"], "optimizer.learning_rate=interval(1e-4,1e-1): a grid needs"),
        (["sweep=ablation", "hydra.sweeper.factors.initialisation=[1,2]"], "factors.initialisation=[1,2]: should be"),
        (["sweep=ablation", "hydra.sweeper.techniques.dropout=[a,b]"], "techniques.dropout=[a,b]: should be overrides"),
        (["hydra.sweeper.tune=5"], "hydra.sweeper.tune=5: should have key, values and seeds"),
        (["hydra.launcher.workers=abc"], "hydra.launcher.workers=abc: should be"),
        (["hydra.launcher.time_limit=-1"], "hydra.launcher.time_limit=-1: should be above 0"),
        (["hydra/launcher=submitit", "hydra.launcher.executor=pbs"], "hydra.launcher.executor=pbs: should be 'slurm'"),
        (["hydra/launcher=ray", "hydra.launcher.workers=0"], "hydra.launcher.workers=0: should be"),
        (["sweep=ablation", '+hydra.sweeper.factors.rate="optimizer.learning_rate=0.1"'], "should be a list of levels"),
    ],
)
def test_what_a_launcher_and_an_ablation_cannot_be_asked_to_do(poisoned, tmp_path: Path, words: list[str], told: str):
    assert told in sweep("seed=0,1", *words, env=poisoned, cwd=tmp_path)
