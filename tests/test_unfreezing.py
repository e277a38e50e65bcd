"""Weights that do not train before a step: `optimizer.frozen`, `optimizer.unfreeze`, `experiment=finetune`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from descent import UserError, checkpoint
from descent.optimizer import SGD, Adam, Optimizer
from descent.session import running
from test_optimizer import OPTIONS, STEPS, Problem
from test_resume import Killed, killing, same

HELD = "^(?!.*head/)"
SHORT = ("model.widths=[8]", "callback=[checkpoint]", "callback.checkpoint.every=1st", "callback.checkpoint.keep=100")


def part_of(option: str, **settings) -> Optimizer:
    part, own, *_ = OPTIONS[option]
    return part(**own, weight_decay=0.5, **settings)


def bits(arrays: list[np.ndarray]) -> list[bytes]:
    return [a.tobytes() for a in arrays]


def after(problem: Problem, part: Optimizer, steps: int, *, jit: bool = False) -> list[bytes]:
    variables = problem.variables()
    return bits(problem.run(part.build(variables, STEPS), variables, end=steps, jit=jit))


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("option", ["sgd", "adamw", "nadam", "lars", "muon"])
def test_frozen_weights_are_equal_bit_for_bit_up_to_the_step_and_move_at_it(option, jit):
    problem = Problem(seed=0)
    part = part_of(option, frozen="kernel$", unfreeze=0.5)
    before, held, moved = bits(problem.weights), after(problem, part, 50, jit=jit), after(problem, part, 51, jit=jit)
    free = after(problem, part_of(option), 50, jit=jit)
    for name, *values in zip(problem.shapes, before, held, moved, free, strict=True):
        then, at, past, trained = values
        assert (at == then) == name.endswith("kernel"), name
        assert past != at, name
        assert at == trained or name.endswith("kernel"), name


@pytest.mark.parametrize("option", OPTIONS)
def test_what_is_never_unfrozen_is_as_with_a_factor_of_zero(option):
    problem = Problem(seed=1)
    never = after(problem, part_of(option, frozen="gamma|depth/"), 5)
    assert never == after(problem, part_of(option, multipliers={"gamma|depth/": 0}), 5)


@pytest.mark.parametrize("option", ["momentum", "adamw"])
@pytest.mark.parametrize("settings", [{"frozen": None, "unfreeze": 0.5}, {"frozen": ".", "unfreeze": 0.0}])
def test_off_is_absent_bit_for_bit(option, settings):
    problem = Problem(seed=2)
    part = part_of(option, **settings)
    assert type(part.build(problem.variables(), STEPS)) is type(part_of(option).build(problem.variables(), STEPS))
    assert after(problem, part, 20) == after(problem, part_of(option), 20)


def test_the_first_step_is_of_the_size_of_any_other():
    """Under a constant gradient each step of Adam is the rate; moments that began at zero so late would make it 3."""
    problem = Problem(seed=3, shapes={"kernel": (4, 3)})
    problem.grads = [np.ones_like(g) for g in problem.grads]
    problem.rates = np.full_like(problem.rates, 0.01)
    variables = problem.variables()
    optimizer = Adam(frozen="kernel", unfreeze=0.5).build(variables, STEPS)
    now = problem.run(optimizer, variables, end=51)[0]
    np.testing.assert_allclose(problem.weights[0] - now, 0.01, rtol=1e-3)


def test_a_gradient_that_is_not_finite_moves_nothing_that_is_frozen():
    problem = Problem(seed=4, shapes={"kernel": (4, 3)})
    problem.grads[0][:] = np.inf
    assert after(problem, SGD(frozen="kernel", unfreeze=0.5), 3) == bits(problem.weights)


def test_a_pattern_that_matches_nothing_is_an_error():
    with pytest.raises(UserError, match=r"optimizer\.frozen: haed matches none of .*kernel, .*bias"):
        SGD(frozen="haed").build(Problem(seed=5).variables(), STEPS)


def test_what_is_no_regular_expression_is_refused():
    with pytest.raises(ValidationError, match="regular expression"):
        SGD(frozen="(")


def weights(folder: Path, step: int) -> dict[str, bytes]:
    saved = checkpoint.read(folder / f"checkpoints/step-{step:06d}")
    about = saved.about["variables"]["model"]
    return {v["path"]: a.tobytes() for v, a in zip(about, saved.arrays["model"], strict=True)}


def test_fine_tuning_trains_the_head_alone_and_then_all(quick, tmp_path):
    quick(*SHORT, "trainer.steps=10").run(tmp_path / "earlier")
    quick("experiment=finetune", *SHORT, f"init_from={tmp_path / 'earlier'}").run(tmp_path / "tuned")
    first, held, free = (weights(tmp_path / "tuned", step) for step in (0, 4, 5))
    paths, given = checkpoint.named_weights(tmp_path / "earlier/checkpoints/best")
    assert first == dict(zip(paths, bits(given), strict=True))
    assert {path.split("/")[-2] for path in first if held[path] != first[path]} == {"head"}
    assert all(free[path] != held[path] for path in first if path.endswith(("kernel", "bias")))


@pytest.mark.parametrize("at", [4, 9])
def test_a_run_killed_on_either_side_of_the_unfreezing_continues_bit_for_bit(quick, tmp_path, monkeypatch, at):
    words = (
        "model.widths=[8]",
        f"optimizer.frozen='{HELD}'",
        "optimizer.unfreeze=7st",
        "callback.checkpoint.every=2st",
    )
    words = (*words, "trainer.steps_per_call=2")
    quick(*words).run(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(running, "train", killing(running.train, at=at))
        with pytest.raises(Killed):
            quick(*words).run(tmp_path / "cut")
    quick(*words).run(tmp_path / "cut")
    same(tmp_path / "whole", tmp_path / "cut")
