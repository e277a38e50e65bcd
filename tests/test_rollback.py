"""Rollbacks: what is saved after one, and from where the next goes on."""

from __future__ import annotations

from descent import checkpoint
from descent.folder import Events
from descent.logger import TensorBoard

RUINED = ("optimizer=sgd", "schedule=constant", "regularization=none", "callback.checkpoint.every=1st")
RUINED = (*RUINED, "trainer.nonfinite=rollback", "trainer.steps=12")


def saved(folder) -> list[int]:
    return [row["step"] for row in Events(folder / "events.jsonl").rows() if row["event"] == "saved"]


def test_rollback_goes_past_a_checkpoint_of_ruined_weights(quick, tmp_path):
    """The first update ruins the weights, and they are saved: at step 2 they fail whatever the rate is."""
    run = quick(
        "optimizer=sgd", "optimizer.learning_rate=1e30", "schedule=constant", "trainer.nonfinite=rollback",
        "trainer.rollback_factor=1e-32", "callback.checkpoint.every=1st", "regularization=none",
    ).run(tmp_path / "run")  # fmt: skip
    assert (run.summary["status"], run.summary["rollbacks"]) == ("completed", 1)


def test_steps_that_come_again_are_saved_again(quick, folder):
    """The first update ruins the weights; after the rollback to step 0 step 1 is another one."""
    run = quick(*RUINED, "optimizer.learning_rate=1e30", "trainer.rollback_factor=1e-32").run(folder)
    assert (run.summary["status"], run.summary["rollbacks"]) == ("completed", 1)
    assert saved(folder) == [1, *range(1, 13)]


def test_a_halt_keeps_what_was_rolled_back(quick, folder):
    """However the run ends, its last checkpoint knows the rollbacks and the rate that is left."""
    words = ("optimizer.learning_rate=1e30", "trainer.rollback_factor=0.5", "trainer.nonfinite_limit=2")
    run = quick(*RUINED, *words).run(folder)
    assert (run.summary["status"], run.summary["rollbacks"]) == ("halted", 2)
    newest, problems = checkpoint.newest(folder / "checkpoints")
    assert not problems
    assert (newest.step, newest.host["rollbacks"]) == (run.summary["steps"], 2)
    again = quick(*RUINED, *words).run(folder)
    assert (again.summary["status"], again.summary["rollbacks"]) == ("halted", 2)


def test_one_checkpoint_to_keep_is_no_trap(quick, folder):
    """The newest holds ruined weights; the one before it is still there."""
    words = ("optimizer.learning_rate=1e30", "trainer.rollback_factor=1e-32", "callback.checkpoint.keep=1")
    run = quick(*RUINED, *words).run(folder)
    assert (run.summary["status"], run.summary["rollbacks"]) == ("completed", 1)
    assert len(list((folder / "checkpoints").glob("step-*"))) == 2


def test_tensorboard_takes_back_a_run_that_begins_anew(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for last in (7, 3):
        sink = TensorBoard().open(str(tmp_path), step=0)
        for step in range(1, last + 1):
            sink.write({"step": step, "train/loss": float(last)})
        sink.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 3.0), (2, 3.0), (3, 3.0)]
