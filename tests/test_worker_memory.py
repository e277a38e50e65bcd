"""What a run has traced is gone when its job is over, but for its program: a worker's memory stays flat."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import gc, sys
from pathlib import Path
import worker_memory
from descent.session.programs import HERE
from tensorflow.python.framework.func_graph import FuncGraph
def left():
    gc.unfreeze()
    gc.collect()
    # Flushed: what a job finds in the buffer goes where its own words go.
    print(sorted(thing.name for thing in gc.get_objects() if isinstance(thing, FuncGraph)), flush=True)
for number in (1, 2):
    worker_memory._after(number, Path(sys.argv[1]), sys.argv[2:])
    left()
HERE.forget()
left()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("data=synthetic",),
        ("data=synthetic", "model=cnn"),  # with AVX2 its convolutions have gradients of their own
        ("data=docstrings", "data.max_words=200", "data.length=8", "model=lstm"),  # has a gradient of its own
    ],
    ids=lambda words: words[-1],
)
def test_no_graph_but_those_of_its_program_outlives_a_job(tmp_path: Path, words: tuple[str, ...]):
    short = ("trainer.epochs=null", "trainer.steps=2", "trainer.jit=false", "trainer.threads=1")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), *words, *short],
        cwd=Path(__file__).parents[1] / "scripts",
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second, forgotten = (line for line in done.stdout.splitlines() if line.startswith("["))
    assert first == second != forgotten == "[]"
