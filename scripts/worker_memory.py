"""Memory of a sweep's worker over many jobs, without recycling: python scripts/worker_memory.py jobs=50 [run="..."].

Runs jobs one after the other in this process, as a worker of the pool does, and shows its memory after each; at the end
the spread after the third job, and the slope (least squares). `run` holds overrides of all jobs; each has its own seed.
"""

from __future__ import annotations

import shlex
import shutil
import tempfile
from pathlib import Path

import numpy as np

from descent import compose, part
from descent.config import run_script
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
        run: overrides of every job.
    """

    jobs: Count = 50
    run: str = "trainer.epochs=1"

    def __call__(self) -> None:
        folder, used = Path(tempfile.mkdtemp(prefix="worker-")), []
        for number in range(1, self.jobs + 1):
            used.append(self._after(number, folder))
            print(f"job {number}  {used[-1]} MB", flush=True)
        if flat := used[WARM:]:
            slope = np.polyfit(np.arange(len(flat)), flat, 1)[0] if len(flat) > 1 else 0.0
            spread = (max(flat) - min(flat)) / used[WARM - 1]
            share = f"{spread:.1%} of what job {WARM} left"
            print(f"after job {WARM}: from {min(flat)} to {max(flat)} MB, {share}; {slope:+.2f} MB a job")
        shutil.rmtree(folder)

    def _after(self, number: int, folder: Path) -> int:
        """MB in RAM after one more job."""
        experiment = compose(*shlex.split(self.run), f"seed={number}")
        config = as_config(experiment) | {"_convert_": "all", "resume_mismatch": "refuse"}
        place = folder / str(number)
        job = jobs_of.make(number, [f"seed={number}"], config, experiment, place, {})
        outcome = worker.run(job, folder / "progress.json")
        if outcome.state != "done":
            raise RuntimeError(f"{outcome}: see {place / jobs_of.LOG}")
        return outcome.memory_mb


if __name__ == "__main__":
    run_script(WorkerMemory)
