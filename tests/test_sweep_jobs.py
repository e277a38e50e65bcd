"""The folders of a sweep's jobs, and what is known of them before it starts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from descent import compose
from descent.config import sweep_folder
from descent.sweep import job as jobs
from descent.sweep.job import Job, Outcome, Traits


def job(folder: Path, number: int = 1, **more) -> Job:
    values = {
        "number": number,
        "overrides": (f"seed={number}",),
        "config": {},
        "folder": folder,
        "traits": Traits(1, True),
        "steps": 10,
        "per_epoch": 5.0,
        "evaluations": (5, 10),
        "monitor": "val/loss",
    }
    return Job(**values | more)


def test_the_same_config_has_one_folder_whatever_it_is_called(tmp_path: Path):
    first = jobs.folder(tmp_path, ["seed=1", "optimizer=adam"], compose("optimizer=adam", "seed=1"))
    first.mkdir()
    again = jobs.folder(tmp_path, ["optimizer=adam", "seed=1"], compose("seed=1", "optimizer=adam", "name=other"))
    assert again == first


def test_equal_configs_of_a_sweep_are_one_job(tmp_path: Path):
    named = [("rate=0.1", "0a1b"), ("rate=1e-1", "0a1b"), ("rate=0.2", "77cd")]
    made = jobs.merged([job(tmp_path / f"{name}-{key}", number) for number, (name, key) in enumerate(named, start=1)])
    assert [one.folder.name for one in made] == ["rate=0.1-0a1b", "rate=0.1-0a1b", "rate=0.2-77cd"]
    assert [one.number for one in made] == [1, 2, 3]


def test_two_configs_never_share_a_folder(tmp_path: Path):
    overrides = ["optimizer=adam", "optimizer=sgd", "seed=1", "trainer.threads=1", "trainer.batch_size=16"]
    found = {jobs.folder(tmp_path, ["same words"], compose(word)) for word in overrides}
    assert len(found) == len(overrides)


def test_data_in_two_places_is_two_configs(tmp_path: Path):
    places = [tmp_path / name for name in ("one", "two")]
    experiment = compose()
    runs = [dataclasses.replace(experiment, model=dataclasses.replace(experiment.model)) for _ in places]
    prints = {
        jobs.fingerprint(dataclasses.replace(run, data=_At(path=str(place))))
        for run, place in zip(runs, places, strict=True)
    }
    assert len(prints) == 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class _At:
    path: str

    @property
    def spec(self):
        return compose().data.spec

    def open(self):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("words", "same"),
    [
        (["seed=0,1,2", "optimizer=sgd,adam"], True),  # another order
        (["optimizer=sgd", "seed=0,1"], False),  # fixed, no longer varied
        (["optimizer=sgd,adam,adamw", "seed=range(0,9)"], True),  # more values
        (["optimizer=sgd,adam", "seed=0,1", "retry=true"], True),
        (["optimizer=sgd,adam", "seed=0,1", "resume_mismatch=warn", "tags=[again]"], True),
        (["optimizer=sgd,adam", "seed=0,1", "trainer.epochs=3"], False),
    ],
)
def test_the_sweep_folder_is_of_what_is_varied_and_what_is_fixed(words: list[str], same: bool):
    assert (sweep_folder("run", words) == sweep_folder("run", ["optimizer=sgd,adam", "seed=0,1"])) is same


def write(folder: Path, name: str, content: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))


def test_what_is_known_before(tmp_path: Path):
    one = job(tmp_path / "job")
    assert jobs.before(one) == Outcome("waiting")
    write(one.folder, "summary.json", {"status": "interrupted", "stopped": ""})
    assert jobs.before(one) == Outcome("waiting")  # to be continued
    jobs.note_failure(one, "ValueError: no")
    assert jobs.before(one) == Outcome("failed", "ValueError: no")
    jobs.forget_failure(one)
    write(one.folder, "summary.json", {"status": "halted"})
    assert jobs.before(one).state == "halted"
    write(one.folder, "summary.json", {"status": "completed", "stopped": ""})
    write(one.folder, "done.json", {})
    assert jobs.before(one) == Outcome("done")
    write(one.folder, "summary.json", {"status": "completed", "stopped": "pruned at epoch 3"})
    assert jobs.before(one).state == "pruned"


def test_a_job_that_failed_is_tried_again_only_when_asked(tmp_path: Path):
    from descent.sweep.board import Board
    from descent.sweep.running import admit

    one, board = job(tmp_path / "job"), Board(())
    jobs.note_failure(one, "ValueError: no")
    assert not admit(one, board, retry=False)
    assert admit(one, Board(()), retry=True)
    assert jobs.before(one) == Outcome("waiting")
