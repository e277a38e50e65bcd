"""How a process starts: what it imports, what it leaves to the collector, and the worker that starts with a sweep."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from descent import environment
from descent.data import Arrays
from descent.sweep.job import Traits
from descent.sweep.pool import Pool, Slot
from test_sweep_jobs import job

ROOT = Path(__file__).resolve().parents[1]


def ended(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_tensorflow_comes_without_what_no_run_uses_and_all_can_still_be_imported():
    code = """
import gc, sys
from descent import environment
environment.load()
assert {"keras", "tensorflow"} <= set(sys.modules)
assert not {"matplotlib", "pandas", "sklearn", "scipy.stats"} & set(sys.modules)
assert gc.isenabled() and gc.get_freeze_count() > 100_000
import matplotlib.figure, pandas, sklearn.datasets
"""
    done = ended(code)
    assert done.returncode == 0, done.stderr
    assert not done.stderr


def test_hidden_packages_come_back_also_after_an_error_and_those_in_use_are_not_hidden(monkeypatch):
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with pytest.raises(ImportError, match="colorsys"), environment.hidden(["colorsys", "json"]):
        list(map(importlib.import_module, ("json", "colorsys")))
    assert importlib.import_module("colorsys").rgb_to_hsv(1, 1, 1) == (0, 0, 1)


def test_importing_descent_leaves_the_collector_as_it_was():
    on, off = (f"import gc; {words}import descent; print(gc.isenabled())" for words in ("", "gc.disable(); "))
    assert [ended(code).stdout for code in (on, off)] == ["True\n", "False\n"]


@pytest.mark.parametrize(
    ("before", "value", "expected"),
    [
        ("import os", None, "1"),
        ("import os", "0", "0"),
        ("import os, sys, types; sys.modules['tensorflow'] = types.ModuleType('tensorflow')", None, "None"),
    ],
)
def test_onednn_is_on_unless_the_user_or_a_tensorflow_already_there_chose(monkeypatch, before, value, expected):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    if value:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", value)
    assert ended(f"{before}; import descent; print(os.environ.get('TF_ENABLE_ONEDNN_OPTS'))").stdout == f"{expected}\n"


def test_a_run_collects_seldom_and_only_while_it_goes_on(quick, folder, monkeypatch):
    before, seen = gc.get_threshold(), []
    gather = Arrays.gather
    monkeypatch.setattr(Arrays, "gather", lambda *given: (seen.append(gc.get_threshold()), gather(*given))[1])
    quick().run(folder)
    assert max(seen)[2] > before[2]
    assert gc.get_threshold() == before


@pytest.mark.slow
def test_a_worker_that_was_started_early_takes_a_job_of_its_environment_only(tmp_path):
    slot = Slot()
    pids = []
    try:
        slot.warm(())
        while not slot.said():
            time.sleep(0.05)
        pids.append(slot.said()["pid"])
        for variables in [(), (), (("A", "1"),)]:
            traits = Traits(1, deterministic=True, environment=variables)
            slot.start(job(tmp_path / "run", traits=traits), None)
            assert slot.future.result().state == "failed"  # its config is empty
            pids.append(slot.said()["pid"])
    finally:
        slot.leave()
    assert pids[0] == pids[1] == pids[2] != pids[3]
    assert not slot.progress.parent.exists()


def test_of_the_jobs_that_wait_a_worker_gets_one_whose_program_it_has(tmp_path, monkeypatch):
    monkeypatch.setattr(Slot, "start", lambda slot, chosen, _: vars(slot).update(job=chosen))
    pool = Pool(1, jobs_per_worker=9, memory_mb=1e9, limit=None)
    slot, traits = pool.slots[0], Traits(1, deterministic=True)
    slot.traits, slot.program = traits, "b"
    given = [("a", traits), ("b", Traits(2, deterministic=True)), ("b", traits), ("b", traits)]
    jobs = [job(tmp_path / str(i), traits=who, program=name) for i, (name, who) in enumerate(given)]
    pool.queue.extend(jobs)
    order = []
    while pool.queue:
        pool._fill()
        order.append(slot.job)
        slot.job = None
    assert order == [jobs[i] for i in (2, 3, 0, 1)]
    slot.leave()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_while_tensorflow_is_imported_ends_the_process_as_interrupted(tmp_path, number):
    (tmp_path / "keras.py").write_text(f"import os, time; os.kill(os.getpid(), {number:d}); time.sleep(60)")
    heeding = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    )
    words = [sys.executable, str(ROOT / "train.py"), f"hydra.run.dir={tmp_path / 'run'}"]
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}  # these tests may run where SIGINT is ignored, as under nohup
    done = subprocess.run([sys.executable, "-c", heeding, *words], env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (130, "")


def with_variable(name: str) -> list[int]:
    """Processes that have this variable."""
    found = []
    for place in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has ended
            if f"{name}=".encode() in place.read_bytes():
                found.append(int(place.parent.name))
    return found


@pytest.mark.slow
def test_a_mistake_in_a_sweep_leaves_no_worker_and_no_folder(poisoned, tmp_path):
    mark = f"DESCENT_TEST_{os.getpid()}"
    env = {**poisoned, "TMPDIR": str(tmp_path), mark: "1"}
    words = [sys.executable, str(ROOT / "train.py"), "-m", "seed=0,x", f"name=mistake{time.time_ns()}"]
    done = subprocess.run(words, env=env, capture_output=True, timeout=60)
    assert done.returncode == 2
    assert not with_variable(mark)
    assert not list(tmp_path.glob("descent-*"))
