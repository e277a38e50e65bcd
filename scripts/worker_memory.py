"""Memory of a sweep's worker over many jobs, without recycling: python scripts/worker_memory.py jobs=50 [overrides].

Runs jobs one after the other in this process, as a worker of the pool does, and shows its memory after each; at the end
the spread after the third job, and the slope (least squares). The overrides are of all jobs; each has its own seed.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from descent import UserError, compose, part
from descent.command import parted, script_words
from descent.config import to_experiment
from descent.entry import run_main
from descent.identity import as_config
from descent.sweep import job as jobs_of
from descent.sweep import worker
from descent.types import Count

WARM = 3  # jobs after which memory should be flat


@part
class WorkerMemory:
    """See the module.

    Attributes:
        jobs: how many.
    """

    jobs: Count = 50

    def __call__(self, overrides: Sequence[str]) -> None:
        folder, used = Path(tempfile.mkdtemp(prefix="worker-")), []
        for number in range(1, self.jobs + 1):
            used.append(_after(number, folder, overrides))
            print(f"job {number}  {used[-1]} MB", flush=True)
        if flat := used[WARM:]:
            slope = np.polyfit(np.arange(len(flat)), flat, 1)[0] if len(flat) > 1 else 0.0
            spread = (max(flat) - min(flat)) / used[WARM - 1]
            share = f"{spread:.1%} of what job {WARM} left"
            print(f"after job {WARM}: from {min(flat)} to {max(flat)} MB, {share}; {slope:+.2f} MB a job")
        shutil.rmtree(folder)


def _after(number: int, folder: Path, overrides: Sequence[str]) -> int:
    """MB in RAM after one more job."""
    config = as_config(compose(*overrides, f"seed={number}")) | {"_convert_": "all", "resume_mismatch": "refuse"}
    place = folder / str(number)
    job = jobs_of.make(number, [f"seed={number}"], config, to_experiment(config), place, ())
    outcome = worker.run(job, folder / "progress.json")
    if outcome.state != "done":
        raise UserError(f"job {number}: {outcome.state}: {outcome.message}; see {place / jobs_of.LOG}")
    return outcome.memory_mb


def main() -> None:
    asked, overrides = parted(WorkerMemory, script_words(__doc__))
    asked(overrides)


if __name__ == "__main__":
    run_main(main)
