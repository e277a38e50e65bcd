"""What all tests share. Every run in a test process uses the same threads, as TensorFlow cannot change them."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from descent import Experiment, compose, environment
from descent.trainer import Trainer

QUICK = ("debug=fast", "logger.tensorboard=null", "trainer.threads=2", "trainer.jit=false")


@pytest.fixture(scope="session", autouse=True)
def engine() -> None:
    """Two threads, deterministic kernels and four devices of the CPU, before any test makes the first tensor."""
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)
    environment.prepare(Trainer(threads=2))


@pytest.fixture(scope="session", autouse=True)
def imported(engine: None) -> Iterator[None]:
    """What is there before the first test is never garbage: to look through it takes a fifth of a short run."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def quick() -> Callable[..., Experiment]:
    """Composes a run of a few seconds: made data, twenty steps, no XLA."""
    return lambda *overrides: compose(*QUICK, *overrides)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take longer than these runs; only tests marked `figures` draw them."""
    if "figures" not in request.keywords:
        from descent import report

        monkeypatch.setattr(report, "draw", lambda *_: None)


@pytest.fixture
def poisoned(tmp_path: Path) -> dict[str, str]:
    """An environment in which importing TensorFlow or Keras ends the process with code 77."""
    for name in ("tensorflow", "keras"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("import os\nos._exit(77)\n")
    return {**os.environ, "PYTHONPATH": str(tmp_path)}
