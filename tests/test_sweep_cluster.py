"""Jobs that run elsewhere: one that dies is tried once more, one that must go is queued again, none is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from descent import UserError
from descent.config import PROJECT
from descent.sweep.cluster import Cluster, Task
from descent.sweep.job import Job, Outcome
from descent.sweep.remote import Remote
from test_sweep_jobs import job
from test_sweep_pool import LAUNCHERS, command, folders, name

__all__ = ["name"]  # the fixture


class Scripted(Remote):
    """Each job ends at once, with the next of these outcomes, or as if its process had died."""

    def __init__(self, folder: Path, workers: int, *script: Outcome | str) -> None:
        super().__init__(folder, workers)
        self.script, self.handed = list(script), 0

    def place(self, job: Job) -> int:
        self.handed += 1
        return self.handed

    def over(self, handle: int) -> bool:
        return True

    def result(self, handle: int) -> Outcome:
        told = self.script.pop(0)
        if isinstance(told, str):
            raise RuntimeError(told)
        return told

    def ask(self, handle: int, at_once: bool) -> None:
        pass


DONE, STOPPED = Outcome("done"), Outcome("stopped")


def ended(remote: Remote) -> list[tuple[int, Outcome]]:
    found = []
    while not remote.idle:
        found += [(job.number, outcome) for job, outcome in remote.wait(0)]
    return found


def test_a_job_whose_process_dies_is_tried_once_more(tmp_path: Path):
    remote = Scripted(tmp_path, 1, "gone", DONE, "gone", STOPPED)
    for number in (1, 2):
        remote.submit(job(tmp_path / str(number), number))
    (first, second) = ended(remote)
    assert first == (1, DONE)
    assert second[1].state == "failed"
    assert second[1].message.startswith("its process ended without a result, twice")
    assert remote.handed == 4


def test_no_more_are_placed_than_there_are_workers(tmp_path: Path):
    remote = Scripted(tmp_path, 2, *[DONE] * 5)
    assert remote.free == 2
    for number in range(5):
        remote.submit(job(tmp_path / str(number), number))
    assert (remote.handed, remote.free) == (2, 0)
    assert sorted(number for number, _ in ended(remote)) == list(range(5))


def test_a_stop_hands_nothing_over_again(tmp_path: Path):
    remote = Scripted(tmp_path, 1, STOPPED)
    for number in (1, 2):
        remote.submit(job(tmp_path / str(number), number))
    assert [one.number for one in remote.stop()] == [2]
    assert ended(remote) == [(1, STOPPED)]
    assert remote.handed == 1


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Cluster]:
    pytest.importorskip("submitit")
    monkeypatch.setenv("SUBMITIT_PREEMPT_SIGNAL", "USR1")

    def make(**more: Any) -> Cluster:
        values = {"executor": "local", "workers": 1, "requeues": 2, "parameters": {"timeout_min": 5}}
        return Cluster(tmp_path, **values | more)

    return make


def test_what_submitit_does_not_know_is_named(cluster: Callable[..., Cluster]):
    with pytest.raises(UserError, match=r"hydra\.launcher: Unknown argument 'queue' for executor 'slurm'"):
        cluster(parameters={"slurm_queue": "gpu"})
    with pytest.raises(UserError, match="slurm"):
        cluster(executor="slurm")


def test_what_is_queued_again_is_the_same_job(cluster: Callable[..., Cluster], tmp_path: Path):
    one = Task(job(tmp_path / "job"), tmp_path / "progress", cluster().stop_file)
    again = one.checkpoint()
    assert again.function is one
    assert not again.args


GATE = """
import os, time
from pathlib import Path
from descent import part
from descent.types import Verdict

@part
class Gate:
    def __call__(self, memory, record):
        place = Path(os.environ["GATE"])
        (place / "waiting").write_text(str(os.getpid()))
        while not (place / "open").exists():
            time.sleep(0.05)
        return Verdict(memory)
"""


@pytest.fixture
def gated(tmp_path: Path) -> dict[str, str]:
    """An environment with a callback that holds a run at its first record: nothing depends on how fast it is."""
    (tmp_path / "gates.py").write_text(GATE)
    return {**os.environ, "PYTHONPATH": str(tmp_path), "GATE": str(tmp_path)}


@pytest.mark.slow
def test_a_job_outlives_its_launcher_and_a_preemption_bit_for_bit(name: str, gated: dict[str, str], tmp_path: Path):
    """The launcher is killed, the same command finds the job again, the job is preempted, saves and goes on."""
    pytest.importorskip("submitit")
    model = ["model=cnn", "model.widths=[4,8]", "model.dense=8"]
    words = ["seed=0", *model, "trainer.steps=300", "trainer.eval_every=100st", "+callback.gate._target_=gates.Gate"]
    here, sweep = PROJECT / "outputs" / name, command(name, *LAUNCHERS["submitit"], *words)
    first = subprocess.Popen(sweep, env=gated, stdout=subprocess.DEVNULL)
    wait_for(lambda: (tmp_path / "waiting").exists())
    first.kill()
    first.wait()
    again = subprocess.Popen(sweep, env=gated, stdout=subprocess.PIPE, text=True)
    assert again.stdout is not None
    assert next(line for line in again.stdout if line.startswith("sweep ")).split() == ["sweep", "1", "jobs"]
    os.kill(int((tmp_path / "waiting").read_text()), signal.SIGUSR1)
    (tmp_path / "open").touch()
    out, _ = again.communicate(timeout=400)
    assert again.returncode == 0, out
    (folder,) = folders(name).values()
    assert len(list(here.glob("sweep-*/.submitit/*_submitted.pkl"))) == 1
    told = "".join(path.read_text() for path in here.glob("sweep-*/.submitit/*_log.out"))
    assert told.count("Requeued job") == 1
    assert json.loads((folder / "environment.json").read_text())["command"][0].endswith("train.py")
    events = [json.loads(line)["event"] for line in (folder / "events.jsonl").read_text().splitlines()]
    assert (events.count("started"), events.count("resumed")) == (1, 1)
    plain = command(name, *words, f"hydra.run.dir={here / 'plain'}")
    plain.remove("-m")
    subprocess.run(plain, env=gated, check=True, capture_output=True, timeout=400)
    assert (folder / "metrics.jsonl").read_bytes() == (here / "plain/metrics.jsonl").read_bytes()


def wait_for(there: Callable[[], bool], seconds: float = 200) -> None:
    until = time.monotonic() + seconds
    while not there() and time.monotonic() < until:
        time.sleep(0.2)
    assert there()
