"""A job of a sweep, the folder that is its identity, and what is known of it before and after."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from descent.experiment import Experiment
from descent.folder import RunFolder
from descent.identity import OUTSIDE, as_config, identity, program

# done: in this sweep or before; halted: at a number that was not finite; stopped: by Ctrl-C, and to be continued.
State = Literal["waiting", "running", "done", "pruned", "halted", "failed", "stopped"]
FAILURE = "failure.json"
LOG = "job.log"
PRUNED = "pruned"  # how the reason of a run that was ended early begins


Environment = tuple[tuple[str, str], ...]  # variables and their values


class Traits(NamedTuple):
    """What cannot change within a process: a worker serves only jobs that share it."""

    threads: int
    deterministic: bool
    environment: Environment = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One run of a sweep.

    Attributes:
        number: from 1, in the order of the command.
        overrides: of the command line, its own and those that all share.
        config: plain and resolved, without Hydra's own part.
        folder: the run folder, which no other config uses.
        steps: length of the run.
        per_epoch: steps of an epoch.
        evaluations: the steps at which it is evaluated.
        monitor: name of the metric whose best value ranks it.
        label: what it is called; "": by its overrides.
        program: equal for jobs that compile the same.
        pruning: where the study is that may end it early, and as what trial; None: it may not be.
    """

    number: int
    overrides: tuple[str, ...]
    config: dict[str, Any]
    folder: Path
    traits: Traits
    steps: int
    per_epoch: float
    evaluations: tuple[int, ...]
    monitor: str
    label: str = ""
    program: str = ""
    pruning: Any = None


class Outcome(NamedTuple):
    """How a job ended, in one line, and the memory its worker then held."""

    state: State
    message: str = ""
    memory_mb: int = 0


def make(
    number: int,
    overrides: Sequence[str],
    config: Mapping[str, Any],
    experiment: Experiment,
    folder: Path,
    environment: Environment,
) -> Job:
    """The job of a composed and checked config."""
    trainer, keeper, clock = experiment.trainer, experiment.callback.get("checkpoint"), experiment.clock
    return Job(
        number=number,
        overrides=tuple(overrides),
        config=dict(config),
        folder=folder,
        traits=Traits(trainer.cores(), trainer.deterministic, environment),
        steps=clock.steps,
        per_epoch=clock.steps_per_epoch,
        evaluations=tuple(trainer.evaluations(clock)),
        monitor=getattr(keeper, "monitor", "val/loss"),
        program=program(experiment),
    )


def folder(sweep: Path, named: Sequence[str], experiment: Experiment) -> Path:
    """The folder of a config in a sweep: the one that ends in its hash, else a new one named from these overrides."""
    key = fingerprint(experiment)
    there = sorted(sweep.glob(f"*-{key}"))
    return there[0] if there else sweep / f"{_words(named)}-{key}"


def merged(jobs: Sequence[Job]) -> list[Job]:
    """The jobs; those with the same config have one folder, that of the first."""
    first: dict[tuple[Path, str], Path] = {}
    keys = [(job.folder.parent, job.folder.name.rpartition("-")[2]) for job in jobs]
    return [
        dataclasses.replace(job, folder=first.setdefault(key, job.folder)) for job, key in zip(jobs, keys, strict=True)
    ]


def fingerprint(experiment: Experiment) -> str:
    """The identity of a run, which leaves absolute paths out; two jobs of a sweep may differ in nothing else."""
    config = as_config(experiment)
    paths = sorted(_absolute({key: value for key, value in config.items() if key not in OUTSIDE}))
    plain = identity(experiment)
    return hashlib.sha256("\n".join([plain, *paths]).encode()).hexdigest()[:12] if paths else plain


def _absolute(node: Any, key: str = "") -> Iterator[str]:
    if isinstance(node, Mapping):
        for name, inner in node.items():
            yield from _absolute(inner, f"{key}.{name}")
    elif isinstance(node, str) and Path(node).is_absolute():
        yield f"{key}={node}"


def distinct(words: Sequence[Sequence[str]]) -> list[list[str]]:
    """What tells each list of overrides from the others: the words that not all have."""
    shared = set.intersection(*map(set, words)) if len(words) > 1 else set()
    return [[word for word in own if word not in shared] for own in words]


def _words(overrides: Sequence[str]) -> str:
    """The overrides as a file name: `optimizer=adam,seed=1`, at most 120 characters."""
    words = ",".join(word.lstrip("+~") for word in overrides) or "default"
    return "".join(c if c.isalnum() or c in "=,.+-_" else "_" for c in words)[:120]


# --- what is on disk -------------------------------------------------------------------------------------------------


def before(job: Job) -> Outcome:
    """What earlier sweeps left of a job: done, halted, failed, or waiting (to be started, or continued)."""
    place = RunFolder(job.folder)
    if completed(job.folder):
        return finished(job)
    if (job.folder / FAILURE).exists():
        return Outcome("failed", place.read_json(FAILURE)["message"])
    if summary(job).get("status") == "halted":
        return Outcome("halted", "at a number that was not finite")
    return Outcome("waiting")


def completed(folder: Path) -> bool:
    """Whether a run came to its end, if its figures are still to be drawn, too."""
    place = RunFolder(folder)
    return place.complete or place.undrawn.exists()


def finished(job: Job) -> Outcome:
    """A completed job: done, or ended early."""
    why = str(summary(job).get("stopped", ""))
    return Outcome("pruned" if why.startswith(PRUNED) else "done", why)


def summary(job: Job) -> dict[str, Any]:
    """The content of `summary.json`; nothing where there is none."""
    path = job.folder / "summary.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def note_failure(job: Job, message: str) -> None:
    """Remembers that a job failed: it is not tried again unless asked for."""
    job.folder.mkdir(parents=True, exist_ok=True)
    log = {"log": LOG} if (job.folder / LOG).exists() else {}  # what runs in the launcher's process writes none
    RunFolder(job.folder).write_json(FAILURE, {"message": message, **log})


def forget_failure(job: Job) -> None:
    (job.folder / FAILURE).unlink(missing_ok=True)
