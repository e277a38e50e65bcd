"""Golden loss curves guard refactors: twenty steps of small runs, every digit that a CPU can promise another.

`python tests/test_golden.py` writes them anew. Do that only where a change of the numbers is meant, and say so in
CHANGELOG.md. The bits differ between kinds of CPU, hence the tolerance; on one machine they are equal.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from descent import compose
from descent.folder import read_rows

GOLDENS = Path(__file__).parent / "goldens"
COMMON = (
    "trainer.steps=20",
    "trainer.log_every=1",
    "trainer.threads=2",
    "trainer.jit=false",
    "logger.tensorboard=null",
)
RUNS = {
    "mlp": ["regularization=dropout", "averaging=ema"],
    "cnn": ["model=cnn", "model.widths=[8,16]", "model.dense=16", "augmentation=mixup_cutmix", "clipping=global_norm"],
    "resnet20": [
        "model=resnet20",
        "model.width=4",
        "optimizer=nesterov",
        "optimizer.learning_rate=0.003",
        "regularization=elastic_net",
    ],  # a calm rate: at the default the curve is chaotic, and CPUs part after ten steps
    "adam": ["optimizer=adam", "schedule=step", "schedule.every=7st", "clipping=norm"],
    "rmsprop": ["optimizer=rmsprop", "schedule=exponential", "clipping=value", "loss=mse", "regularization=none"],
}


def losses(name: str, folder: Path) -> np.ndarray:
    compose(*COMMON, *RUNS[name]).run(folder)
    return np.array([row["train/loss"] for row in read_rows(folder / "metrics.jsonl")])


@pytest.mark.parametrize("name", RUNS)
def test_the_curve_is_the_golden_one(name: str, folder):
    golden = np.loadtxt(GOLDENS / f"{name}.csv")
    np.testing.assert_allclose(losses(name, folder), golden, rtol=2e-4)


def test_every_golden_belongs_to_a_run():
    assert {p.stem for p in GOLDENS.glob("*.csv")} == set(RUNS)


if __name__ == "__main__":
    import tempfile

    from descent import report

    report.draw = lambda *_: None  # type: ignore[assignment]
    GOLDENS.mkdir(exist_ok=True)
    for run in RUNS:
        with tempfile.TemporaryDirectory() as place:
            np.savetxt(GOLDENS / f"{run}.csv", losses(run, Path(place) / "run"), fmt="%.17g")
