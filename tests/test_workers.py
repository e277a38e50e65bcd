"""Several processes train as one, and none outlives another that is lost. Each test starts processes: they are slow."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import QUICK
from descent import cluster, compose
from descent.identity import identity
from test_replicas import EVERYTHING, apart, state

ROOT = Path(__file__).resolve().parents[1]
RUN = ("debug=fast", "logger.tensorboard=null", "trainer.threads=1", *EVERYTHING)


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))


def launched(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts/launch.py"), "workers=2", *words, f"hydra.run.dir={folder}"]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder.parent, timeout=240)


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    compose(*QUICK, *EVERYTHING).run(tmp_path / "alone")
    for name in ("a", "b"):
        done = launched(tmp_path / name, *RUN)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("best weights of step") == 1  # the chief alone speaks
    assert apart(state(tmp_path / "alone"), state(tmp_path / "a")) <= 1e-5
    assert (tmp_path / "a/metrics.jsonl").read_bytes() == (tmp_path / "b/metrics.jsonl").read_bytes()
    assert apart(state(tmp_path / "a"), state(tmp_path / "b")) == 0
    one, two = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("alone", "a"))
    for name in ("test/loss", "test/accuracy", "val/loss", "val/accuracy"):
        assert two[name] == pytest.approx(one[name], abs=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "alone", "b"]


def test_a_mistake_is_told_once_and_leaves_nothing(tmp_path):
    done = launched(tmp_path / "run", "optimizer.learning_rat=1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: optimizer.learning_rat: there is no such key; did you mean optimizer.learning_rate?\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_lost_worker_is_noticed_and_the_run_goes_on_to_the_same_end(scripts, tmp_path, capsys):
    """Once killed, once stopped, once cut off where that can be done; the full number is for the command."""
    campaign = importlib.import_module("worker_campaign")
    cut = campaign.cable.possible()
    campaign.WorkerCampaign(kills=2 + cut, out=str(tmp_path / "runs"))()
    told = "3 losses (1 SIGKILL, 1 SIGSTOP, 1 cut network)" if cut else "2 losses (1 SIGKILL, 1 SIGSTOP)"
    assert f"{told} in 1 runs" in capsys.readouterr().out


def test_a_process_that_cannot_leave_a_call_ends_when_another_is_lost(tmp_path):
    """As where the call under way was cancelled, and what it held cannot be let go of."""
    lines = (
        "import pathlib, threading",
        "from descent.cluster import LOST",
        "from descent.session import peers",
        "peers.GRACE = 0.1",
        f"with peers.watched(1, pathlib.Path({str(tmp_path / 'own')!r})):",
        "    LOST.set()",
        "    threading.Event().wait(60)",
    )
    (tmp_path / "own").mkdir()
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=60)
    assert done.returncode == cluster.Lost.code
    assert "worker 1: another worker is lost" in done.stderr
    assert not (tmp_path / "own").exists()


@pytest.mark.slow
def test_a_signal_to_one_stops_all_and_slurms_script_goes_on(tmp_path):
    """With stand-ins for srun, which starts the tasks of a step with Slurm's variables, and for scontrol."""
    folder, place = tmp_path / "run", tmp_path / "bin"
    place.mkdir()
    stand_in(
        place / "srun",
        "while [[ $1 == --* ]]; do shift; done",
        "export SLURM_STEP_NODELIST=127.0.0.1 SLURM_STEP_TASKS_PER_NODE=2",
        'SLURM_PROCID=0 "$@" & chief=$!',
        'SLURM_PROCID=1 "$@" & other=$!',
        f"echo $other > {place}/pid; wait $other; wait $chief",
    )
    stand_in(place / "scontrol", f'echo "$@" > {place}/asked')
    environment = {
        **os.environ, "PATH": f"{place}:{os.environ['PATH']}", "PYTHON": sys.executable, "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_JOB_ID": "77",
    }  # fmt: skip
    words = [word for word in RUN if word != "trainer.steps=100"]
    steps = ["trainer.steps=600", "callback.checkpoint.every=50st", "trainer.steps_per_call=10"]
    command = ["bash", str(ROOT / "scripts/slurm.sh"), str(folder), *words, *steps, "strategy.port=23517"]
    job = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not list(folder.glob("checkpoints/step-*")):
        assert job.poll() is None
        assert time.monotonic() < until
        time.sleep(0.1)
    os.kill(int((place / "pid").read_text()), signal.SIGTERM)
    assert job.wait(60) == 130
    assert json.loads((folder / "summary.json").read_text())["status"] == "interrupted"
    assert (place / "asked").read_text().split() == ["requeue", "77"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "resumed" in done.stdout


def stand_in(path: Path, *lines: str) -> None:
    path.write_text("\n".join(["#!/usr/bin/env bash", *lines]) + "\n")
    path.chmod(0o755)


def test_the_launcher_says_why_a_run_ended(scripts):
    launch = importlib.import_module("launch")
    assert launch.verdict([0, 0]) == launch.verdict([0, 5]) == 0
    assert launch.verdict([2, 5]) == launch.verdict([5, 2]) == 2
    assert launch.verdict([130, 130]) == 130
    assert launch.verdict([-9, 5]) == launch.verdict([5, -6]) == launch.Lost.code
    assert len(set(cluster.free_ports(3))) == 3


def test_workers_have_their_own_cores_where_there_are_enough():
    cores = os.sched_getaffinity(0)
    one, two = cluster.shares_of_cores(2)
    assert len(cores) < 2 or not one & two
    assert [len(share) for share in cluster.shares_of_cores(len(cores) + 3)] == [1] * (len(cores) + 3)
    with cluster.held_to(one):
        assert subprocess.run(["nproc"], capture_output=True, text=True, check=True).stdout == f"{len(one)}\n"
    assert os.sched_getaffinity(0) == cores


def test_where_a_run_computes_is_not_what_it_is():
    assert identity(compose("strategy=mirrored", "strategy.devices=2")) == identity(compose())
