"""The pool: what befalls one job ends only that job, and an interrupted sweep goes on."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from descent.config import PROJECT

ROOT = Path(__file__).resolve().parents[1]
FAULTS = """
import os, time
from descent import part
from descent.types import Verdict
from hydra.experimental.callback import Callback

class Told(Callback):
    def on_multirun_end(self, config, **_):
        with open(os.environ["TOLD"], "a") as file:
            file.write("told\\n")

@part
class Fault:
    kind: str = "none"

    def __call__(self, memory, record):
        if self.kind == "raises":
            raise ValueError("out of luck\\nand more")
        if self.kind == "dies":
            os.kill(os.getpid(), 9)
        if self.kind == "leaves":
            os._exit(7)
        if self.kind == "hangs":
            time.sleep(600)
        return Verdict(memory)
"""


@pytest.fixture
def name() -> Iterator[str]:
    """Of runs whose folder goes away with the test."""
    name = f"test{time.time_ns()}"
    yield name
    shutil.rmtree(PROJECT / "outputs" / name, ignore_errors=True)


@pytest.fixture
def faulty(tmp_path: Path) -> dict[str, str]:
    """An environment with a callback that misbehaves."""
    (tmp_path / "faults.py").write_text(FAULTS)
    told = str(tmp_path / "told")
    return {**os.environ, "PYTHONPATH": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": "3", "TOLD": told}


LAUNCHERS = {
    "pool": [],
    "submitit": ["hydra/launcher=submitit", "hydra.launcher.executor=local"],
}


def command(name: str, *words: str) -> list[str]:
    fixed = ["debug=fast", "trainer.threads=1", "logger.tensorboard=null", f"name={name}"]
    return [sys.executable, str(ROOT / "train.py"), "-m", *fixed, *words]


def watched(name: str, *words: str) -> list[str]:
    """The same, with TensorBoard's files."""
    return [word for word in command(name, *words) if word != "logger.tensorboard=null"]


def sweep(name: str, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(name, *words), env=env, capture_output=True, text=True, timeout=500)


def folders(name: str) -> dict[str, Path]:
    """The job folders by the value that differs."""
    found = [path for path in (PROJECT / "outputs" / name).glob("sweep-*/[!.]*") if path.is_dir()]
    return {re.sub(r"-[0-9a-f]{12}$", "", path.name): path for path in found}


def status(folder: Path) -> str:
    return json.loads((folder / "summary.json").read_text())["status"]


@pytest.mark.slow
def test_a_fault_ends_only_its_own_job(name: str, faulty: dict[str, str]):
    words = [
        "+callback.fault._target_=faults.Fault",
        "+callback.fault.kind=raises,dies,leaves,hangs,none",
        "+hydra.callbacks.told._target_=faults.Told",
        "hydra.launcher.time_limit=45",
        "hydra.launcher.workers=2",
    ]
    done = sweep(name, *words, env=faulty)
    assert done.returncode == 1, done.stdout + done.stderr
    for told in (
        "ValueError: out of luck",
        "killed by SIGKILL, twice (out of memory?)",
        "ended by itself, with exit code 7",
        "over its limit of 45 s (hydra.launcher.time_limit)",
    ):
        assert told in done.stdout
    (good,) = [path for key, path in folders(name).items() if "kind=none" in key]
    assert status(good) == "completed"
    # The same command again tries none of them again, and says so.
    again = sweep(name, *words, env=faulty)
    assert again.returncode == 1
    assert "5 jobs, 4 failed before, 1 done before" in again.stdout
    # Asked to, it does: what is well by now is done.
    (Path(faulty["PYTHONPATH"]) / "faults.py").write_text(FAULTS.replace("if self.kind", "if False and self.kind"))
    mended = sweep(name, *words, "retry=true", env=faulty)
    assert mended.returncode == 0, mended.stdout + mended.stderr
    # Callbacks are told of each end, whatever its exit code.
    assert Path(faulty["TOLD"]).read_text() == 3 * "told\n"
    assert all(status(path) == "completed" for path in folders(name).values())
    assert len(folders(name)) == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "number"),
    [("pool", signal.SIGINT), ("pool", signal.SIGTERM), ("submitit", signal.SIGTERM)],
)
def test_a_stopped_sweep_goes_on_where_it_was(name: str, launcher: str, number: int):
    words = [*LAUNCHERS[launcher], "seed=0,1", "data.samples=65536", "trainer.steps=200000", "trainer.eval_every=100st"]
    running = subprocess.Popen(command(name, *words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    until = time.monotonic() + 200
    while not list((PROJECT / "outputs" / name).glob("sweep-*/*/timing.jsonl")) and time.monotonic() < until:
        time.sleep(0.2)
    running.send_signal(number)
    out, _ = running.communicate(timeout=120)
    assert running.returncode == 130, out
    assert "the same command goes on from here" in out
    begun = [path for path in folders(name).values() if (path / "timing.jsonl").exists()]
    assert begun  # one that was not yet in its loop had nothing to save, and starts anew
    assert all(status(path) == "interrupted" for path in begun)
    assert all(list((path / "checkpoints").glob("step-*")) for path in begun)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["pool", "submitit"])
def test_more_values_are_added_the_old_are_kept_and_tensorboard_shows_all(name: str, launcher: str):
    own = LAUNCHERS[launcher]
    subprocess.run(watched(name, *own, "seed=0,1"), check=True, capture_output=True, timeout=300)
    before = {path: (path / "done.json").stat().st_mtime_ns for path in folders(name).values()}
    done = subprocess.run(watched(name, *own, "seed=range(0,3)"), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0
    assert "3 jobs, 2 done before" in done.stdout
    assert len(folders(name)) == 3
    assert all((path / "done.json").stat().st_mtime_ns == when for path, when in before.items())
    (place,) = (PROJECT / "outputs" / name).glob("sweep-*")
    with served(place) as address:
        runs = {f"{path.name}/tensorboard" for path in folders(name).values()}
        assert until(lambda: set(asked(f"{address}/data/runs")), runs) == runs
        for path in folders(name).values():
            rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
            expected = [(row["step"], pytest.approx(row["val/loss"])) for row in rows if "val/loss" in row]
            query = urlencode({"run": f"{path.name}/tensorboard", "tag": "val/loss"})
            found = asked(f"{address}/data/plugin/scalars/scalars?{query}")
            assert [(step, value) for _, step, value in found] == expected


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a TensorBoard of this folder, on this machine alone."""
    words = ["--logdir", str(folder), "--host", "127.0.0.1", "--port", "0", "--load_fast", "false"]
    command = [sys.executable, "-m", "tensorboard.main", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            yield next(found[0] for line in server.stderr if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
        finally:
            server.kill()  # it has nothing to save, and at SIGTERM may wait for its own threads for ever


def asked(address: str) -> Any:
    with urlopen(address, timeout=30) as answer:
        return json.load(answer)


def until(look: Callable[[], Any], wanted: Any, seconds: float = 60.0) -> Any:
    """What is seen when it is as wanted, or in the end."""
    end = time.monotonic() + seconds
    while (seen := look()) != wanted and time.monotonic() < end:
        time.sleep(0.3)
    return seen


@pytest.mark.slow
def test_the_pool_gives_the_bytes_of_a_process_of_its_own_and_of_the_basic_launcher(name: str, tmp_path: Path):
    words = ["seed=0,1,2", "model=cnn", "augmentation=mixup_cutmix", "averaging=ema"]
    logs = []
    for i, launcher in enumerate(["pool", "pool", "basic"]):
        own = f"{name}-{i}"
        more = [f"hydra/launcher={launcher}", *([f"hydra.launcher.workers={i + 1}"] if launcher == "pool" else [])]
        try:
            done = sweep(own, *words, *more)
            assert done.returncode == 0, done.stdout + done.stderr
            logs.append(sorted(written(place) for place in folders(own).values()))
        finally:
            shutil.rmtree(PROJECT / "outputs" / own, ignore_errors=True)
    single = [*command(name, "seed=2", *words[1:], f"hydra.run.dir={tmp_path / 'run'}")]
    single.remove("-m")
    subprocess.run(single, check=True, capture_output=True, timeout=300)
    assert logs[0] == logs[1] == logs[2]
    assert written(tmp_path / "run") in logs[0]


def written(run: Path) -> list[bytes]:
    """The log and the figures of a run, which the pool draws in a process of their own."""
    assert (run / "done.json").exists()
    assert len(list((run / "plots").iterdir())) == 10
    return [path.read_bytes() for path in [run / "metrics.jsonl", *sorted((run / "plots").iterdir())]]


@pytest.mark.slow
def test_a_sweep_that_is_killed_ends_as_one_that_was_left_alone(tmp_path: Path):
    """`python scripts/sweep_campaign.py jobs=24 kills=20` is a longer one."""
    words = ["jobs=2", "kills=2", "epochs=5", "seed=1", f"out={tmp_path / 'runs'}"]
    campaign = [sys.executable, str(ROOT / "scripts/sweep_campaign.py"), *words]
    done = subprocess.run(campaign, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("2 kills ")
    assert "2 configs, each once" in done.stdout
