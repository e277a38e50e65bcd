"""Descent itself: the whole session, with evaluation, log and TensorBoard, in a folder that is thrown away."""

from __future__ import annotations

import dataclasses
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmark_peers.turns import Turns
from descent import Experiment, trainer
from descent.callback import Checkpoint
from descent.cluster import free_ports, held_to, shares_of_cores, tf_config
from descent.folder import RunFolder
from descent.strategy import MultiWorker
from descent.trainer import Segment


def paced(turns: Turns) -> Callable[..., Iterator[Segment]]:
    """The trainer's loop, held between two calls of the compiled program whenever a turn is over."""

    def train(*arguments: Any) -> Iterator[Segment]:
        for segment in trainer.train(*arguments):
            yield segment
            turns(segment.step, float(np.mean(segment.column("loss"))))

    return train


def session(experiment: Experiment, turns: Turns, **changes: Any) -> None:
    """A run of `train.py`, with some fields of the trainer changed."""
    from descent.session import Session

    changed = dataclasses.replace(experiment, trainer=dataclasses.replace(experiment.trainer, **changes))
    with tempfile.TemporaryDirectory() as folder, mock.patch("descent.session.running.train", paced(turns)):
        Session(changed, RunFolder(Path(folder) / "run"), []).run()


def chief(experiment: Experiment, turns: Turns, **changes: Any) -> None:
    """The same as the first of two processes that share each batch; the other one is started, and goes along."""
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(2))
    other = {**os.environ, "TF_CONFIG": tf_config(addresses, 1)}
    command = [sys.executable, "-m", "benchmark_peers.worker", "follower", *sys.argv[2:]]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    own, others = shares_of_cores(2)
    with held_to(others):
        subprocess.Popen(command, env=other, **quiet)  # type: ignore[call-overload]  # it ends when this process does
    with held_to(own):
        session(dataclasses.replace(experiment, strategy=MultiWorker(addresses=addresses)), turns, **changes)


def follower(experiment: Experiment, turns: Turns, **changes: Any) -> None:
    """The second of the two processes: never held, as its loop waits for the first at every step."""
    changed = dataclasses.replace(experiment.trainer, **changes)
    dataclasses.replace(experiment, strategy=MultiWorker(), trainer=changed, logger={}).run()


def silent(experiment: Experiment, turns: Turns) -> None:
    """The same without logger, with one row of the log an evaluation: what logging costs."""
    session(dataclasses.replace(experiment, logger={}), turns, log_every=10**9)


def unsaved(experiment: Experiment, turns: Turns) -> None:
    """The same without checkpoints: what saving costs."""
    others = {name: one for name, one in experiment.callback.items() if not isinstance(one, Checkpoint)}
    session(dataclasses.replace(experiment, callback=others), turns)


def pipeline(experiment: Experiment, turns: Turns) -> None:
    """The input alone, again and again: every chunk is made and thrown away."""
    from descent.session import build

    made = build(experiment.resolved()).pipeline
    runs = itertools.chain.from_iterable(made.training(0) for _ in itertools.count())
    for count, _ in enumerate(runs, 1):
        turns(count * made.chunk, 0.0)
