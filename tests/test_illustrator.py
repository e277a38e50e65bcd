"""Figures that a run leaves to another process: none is lost, whoever is killed, and their bytes are the same."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from conftest import QUICK
from descent import UserError, compose, logger, report
from descent.folder import RunFolder
from descent.sweep import illustrator, worker
from descent.sweep import job as jobs
from descent.sweep import report as report_of_sweep
from descent.sweep.illustrator import Illustrator
from test_sweep_jobs import job

pytestmark = [pytest.mark.slow, pytest.mark.figures]


@pytest.fixture(scope="module")
def left(tmp_path_factory) -> Path:
    """A run that has left its figures undrawn."""
    folder = tmp_path_factory.mktemp("sweep") / "left"
    with report.drawn_apart():
        assert compose(*QUICK).run(folder).summary["status"] == "completed"
    return folder


@pytest.fixture
def undrawn_run(left: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(left, tmp_path / "sweep/left"))


def figures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in [*folder.glob("plots/*"), *folder.glob("class_report.csv")]}


def waited(artist: Illustrator, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while artist.drawings and time.monotonic() < until:
        artist.look()
        time.sleep(0.05)
    assert not artist.drawings


def test_a_run_that_is_not_drawn_is_not_complete_and_a_sweep_takes_it_for_done(undrawn_run: Path):
    assert not RunFolder(undrawn_run).complete
    assert not figures(undrawn_run)
    assert jobs.before(job(undrawn_run)).state == "done"


def test_another_process_draws_the_bytes_that_the_run_itself_draws(undrawn_run: Path, tmp_path: Path):
    artist = Illustrator()
    try:
        artist.draw(undrawn_run)
        waited(artist)
    finally:
        artist.close()
    compose(*QUICK).run(tmp_path / "whole")
    assert figures(undrawn_run) == figures(tmp_path / "whole")
    assert len(figures(undrawn_run)) == 11
    assert RunFolder(undrawn_run).complete
    assert not RunFolder(undrawn_run).undrawn.exists()
    assert (undrawn_run / "report.html").read_text().count("data:image/png") == 5


def test_real_targets_are_drawn_apart_too(tmp_path: Path):
    words = (*QUICK, "data=linear", "loss=mse", "regularization=none")
    with report.drawn_apart():
        compose(*words).run(tmp_path / "apart")
    report.complete(tmp_path / "apart")
    compose(*words).run(tmp_path / "whole")
    assert figures(tmp_path / "apart") == figures(tmp_path / "whole")
    assert "predictions.svg" in figures(tmp_path / "apart")


def test_where_the_process_is_killed_another_draws_the_rest_and_the_launcher_what_was_hit(left: Path, tmp_path: Path):
    folders = [Path(shutil.copytree(left, tmp_path / f"sweep/{name}")) for name in ("hit", "waits")]
    artist, before = Illustrator(), set(multiprocessing.active_children())
    try:
        artist.draw(folders[0])
        (process,) = set(multiprocessing.active_children()) - before
        os.kill(process.pid, signal.SIGKILL)
        artist.draw(folders[1])
        waited(artist)
    finally:
        artist.close()
    illustrator.draw_left(tmp_path / "sweep")
    assert all(RunFolder(folder).complete for folder in folders)
    assert figures(folders[0]) == figures(folders[1])


def test_what_cannot_be_drawn_is_told_and_stays_for_the_next_time(undrawn_run: Path, monkeypatch, capsys):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_json", full)
        illustrator.draw_left(undrawn_run.parent)
    assert "its figures could not be drawn: [Errno 28]" in capsys.readouterr().err
    assert not RunFolder(undrawn_run).complete
    illustrator.draw_left(undrawn_run.parent)
    assert RunFolder(undrawn_run).complete


def test_the_page_of_a_sweep_links_to_the_page_a_run_is_about_to_get(undrawn_run: Path):
    page = report_of_sweep.write(undrawn_run.parent).read_text()
    assert 'href="left/report.html"' in page
    illustrator.draw_left(undrawn_run.parent)
    assert report_of_sweep.write(undrawn_run.parent).read_text() == page


def test_nobody_draws_in_a_folder_that_another_process_has(undrawn_run: Path):
    with RunFolder(undrawn_run).held(), pytest.raises(UserError, match="another process"):
        report.complete(undrawn_run)
    worker.draw(undrawn_run)
    worker.draw(undrawn_run)  # once more is nothing
    assert RunFolder(undrawn_run).complete


def test_the_run_itself_draws_what_it_has_left_when_it_is_continued(undrawn_run: Path):
    assert compose(*QUICK).run(undrawn_run).summary["status"] == "completed"
    assert len(figures(undrawn_run)) == 11
    assert RunFolder(undrawn_run).complete
    assert not RunFolder(undrawn_run).undrawn.exists()


def large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "LARGEST", 100)


def awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logger.Loggers, "concluding", True)


@pytest.mark.parametrize("reason", [large, awaited])
def test_a_run_draws_itself_where_it_is_much_or_a_logger_awaits_it(
    reason: Callable[[pytest.MonkeyPatch], None], folder: Path, monkeypatch
):
    reason(monkeypatch)
    with report.drawn_apart():
        compose(*QUICK).run(folder)
    assert len(figures(folder)) == 11
    assert RunFolder(folder).complete
    assert not RunFolder(folder).undrawn.exists()


def test_what_is_left_is_what_was_to_be_shown(left: Path):
    shown = report.Material.load(RunFolder(left).undrawn)
    assert shown.outputs.shape == (256, 10)
    assert shown.targets.shape == (256,)
    assert shown.classes.tolist() == list("0123456789")
    assert len(shown.pictures) == len(shown.captions) == report.PREVIEW
    summary = RunFolder(left).read_json("summary.json")
    assert np.mean(shown.outputs.argmax(axis=1) == shown.targets) == pytest.approx(summary["test/accuracy"])


def test_who_waits_for_drawings_draws_too_from_the_other_end_whatever_fails(monkeypatch):
    drawn, illustrator = [], Illustrator()

    def draw(folder: Path) -> None:
        drawn.append(folder.name)
        if folder.name == "b":
            raise ValueError

    monkeypatch.setattr(worker, "draw", draw)
    for name in "abc":
        illustrator.drawings[Path(name)] = Future()
        illustrator.drawings[Path(name)].set_result(None)
    illustrator.settle()
    assert drawn == ["c", "b", "a"]
    assert not illustrator.drawings
