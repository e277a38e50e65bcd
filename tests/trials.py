"""Studies for tests, whose jobs are never run."""

from __future__ import annotations

import json
from pathlib import Path

from optuna.distributions import CategoricalDistribution, FloatDistribution

from descent.sweep.job import Job, Traits
from descent.sweep.settings import Settings
from descent.sweep.study import Study

SPACE = {"x": FloatDistribution(0.0, 1.0), "y": CategoricalDistribution(["a", "b"])}


def made(folder: Path, **more) -> Study:
    """A study of four random trials, or of what is given: keys of its settings, `space`, `objectives`."""
    own = {key: more.pop(key) for key in ("space", "objectives") if key in more}
    settings = Settings(**{"trials": 4, "sampler": "random", **more})
    return Study(folder=folder, settings=settings, **{"space": SPACE, "objectives": ["val/loss"], **own})


def job(folder: Path, **summary) -> Job:
    """A job that is done, with this summary."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps({"best": {"monitor": "val/loss", "value": 0.5}, **summary}))
    return Job(
        number=1,
        overrides=(),
        config={},
        folder=folder,
        traits=Traits(1, True),
        steps=10,
        per_epoch=5.0,
        evaluations=(5, 10),
        monitor="val/loss",
    )
