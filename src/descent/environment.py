"""What the bits of a result depend on beside the config: set before the first tensor, and written down."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from etils import epy

from descent import identity, processor
from descent.data import Remembered
from descent.trainer import Trainer
from descent.types import UserError

with epy.lazy_imports():
    import keras
    import tensorflow as tf

OPTIONAL = ("matplotlib", "pandas", "sklearn")  # what Keras imports wherever it is, for what no run uses
PACKAGES = ("descent", "tensorflow", "keras", "numpy", "hydra-core", "omegaconf")


def load() -> None:
    """Imports TensorFlow, once, into a process that is the run's own, or its worker's.

    Of the 4.3 s that took, a second went into packages that Keras can do without, and another into looking for garbage
    among what stays; in each run that ends, a quarter of a second.
    """
    if "tensorflow" in sys.modules:
        return
    gc.disable()
    try:
        with silenced(), hidden(OPTIONAL):
            import keras  # noqa: F401
            import tensorflow  # noqa: F401
    finally:
        gc.enable()
    gc.freeze()


def prepare(trainer: Trainer) -> None:
    """Threads, determinism and Keras' globals.

    Raises:
        UserError: TensorFlow already runs in this process with another number of threads.
    """
    with silenced():
        keras.config.set_floatx("float32")
    tf.get_logger().addFilter(_worth_saying)
    keras.config.set_image_data_format("channels_last")
    keras.backend.clear_session()  # which also forgets the policy
    keras.config.set_dtype_policy(trainer.precision)
    cores = trainer.cores()
    try:
        tf.config.threading.set_intra_op_parallelism_threads(cores)
        tf.config.threading.set_inter_op_parallelism_threads(cores)
    except RuntimeError as error:  # its context exists already
        running = tf.config.threading.get_intra_op_parallelism_threads() or len(os.sched_getaffinity(0))
        if running != cores:
            raise UserError(
                f"trainer.threads={cores}: TensorFlow already runs in this process with {running} threads, "
                "and cannot change; use a process of its own"
            ) from error
    _choose_kernels(trainer.deterministic)
    if not tf.config.list_physical_devices("GPU"):
        # On a CPU what Grappler rewrites runs no faster, nor slower; a run waits 0.1 to 4 s for it at its first step.
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


def _worth_saying(said: logging.LogRecord) -> bool:
    """TensorFlow counts traces by the name of a function: several runs in a process are none of its business."""
    return "retracing" not in str(said.msg)


def _choose_kernels(deterministic: bool) -> None:
    from tensorflow.python.framework.config import is_op_determinism_enabled

    if deterministic:
        tf.config.experimental.enable_op_determinism()
    elif is_op_determinism_enabled():
        raise UserError(
            "trainer.deterministic=false: this process already computes deterministically; use a process of its own"
        )


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Holds back what TensorFlow's libraries write to stderr while they are imported, unless that fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            said.seek(0)
            os.write(kept, said.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextlib.contextmanager
def hidden(packages: Sequence[str]) -> Iterator[None]:
    """Those of the packages that are not imported yet cannot be, inside."""
    absent = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None: documented, and no module
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


def describe(seed: int, trainer: Trainer, overrides: list[str], replicas: int) -> dict[str, Any]:
    """What `environment.json` holds."""
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "overrides": overrides,
        "seed": seed,
        "git": revision(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "threads": trainer.cores(),
        "deterministic": trainer.deterministic,
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "device": device(),
        "replicas": replicas,
    }


def provenance(experiment: Any, jit: bool, replicas: int) -> dict[str, str]:
    """All that the bits of a result depend on, each in a word: equal words, equal bytes. Part of every checkpoint."""
    trainer: Trainer = experiment.trainer
    versions = {name: metadata.version(name) for name in ("descent", "tensorflow", "keras", "numpy")}
    data = {"data": experiment.data.digest()} if isinstance(experiment.data, Remembered) else {}
    return {
        "config": identity.identity(experiment),
        **data,
        **versions,
        "threads": str(trainer.cores()),
        "deterministic": str(trainer.deterministic).lower(),
        "jit": str(jit).lower(),
        "TF_ENABLE_ONEDNN_OPTS": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        "device": device(),
        "replicas": str(replicas),
        "processor": processor.name(),
    }


def device() -> str:
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        return str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU"))
    return f"CPU {platform.machine()}"


def revision() -> dict[str, Any] | None:
    """The commit of the checkout the code runs from, and whether files differ from it; None without git."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "modified": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.CalledProcessError):
        return None
