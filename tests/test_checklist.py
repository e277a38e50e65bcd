"""The checklist on rows made by hand: each finding fires when it should, and not when it should not."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from rich.text import Text

from descent import checklist, compose, environment, processor
from descent.checklist import Line
from descent.checklist.before import _augmentation

STEPS = np.arange(10, 1010, 10)
FALL = np.linspace(1, 0.001, 100)  # the rate, as a fraction of its peak


@pytest.fixture(scope="module")
def run():
    return compose()


def log(**columns: object) -> list[dict[str, float]]:
    """A hundred rows of a healthy run, every tenth evaluated, with some columns replaced (None: left out)."""
    loss = 0.3 + 2.0 * np.exp(-STEPS / 150)
    made: dict[str, object] = {
        "train_loss": loss,
        "train_accuracy": np.linspace(0.2, 0.95, 100),
        "train_penalty": 0.0,
        "train_grad_norm": 1 + 2 * FALL,
        "train_learning_rate": 0.003 * FALL,
        "train_param_norm": 20.0,
        "train_update_norm": 20 * 2e-3 * FALL,
        "train_finite": 1.0,
        "val_loss": 0.35 + 2.0 * np.exp(-STEPS / 150),
        "val_accuracy": np.linspace(0.2, 0.93, 100),
    } | columns
    filled = {
        name.replace("_", "/", 1): np.broadcast_to(np.asarray(values, float), 100)
        for name, values in made.items()
        if values is not None
    }
    return [
        {"step": float(step)}
        | {name: float(v[i]) for name, v in filled.items() if name.startswith("train/") or i % 10 == 9}
        for i, step in enumerate(STEPS)
    ]


SUMMARY = {
    "status": "completed",
    "best": {"monitor": "val/loss", "value": 0.35, "step": 1000},
    "test/loss": 0.36,
    "test/accuracy": 0.93,
}


def found(lines: list[Line], subject: str) -> Line:
    return next(line for line in lines if line.subject == subject)


def status(lines: list[Line], subject: str) -> str | None:
    return next((line.status for line in lines if line.subject == subject), None)


def evaluations(values: list[float]) -> np.ndarray:
    return np.repeat(np.asarray(values, float), 10)


# --- before ---


def test_a_sound_config_passes_every_point(run):
    lines = checklist.before(run)
    assert [line.subject for line in lines] == [
        "splits", "held-out data", "augmentation", "schedule", "regularization", "early stopping", "checkpoints",
        "logging", "batch size",
    ]  # fmt: skip
    assert {line.subject for line in lines if line.status != "pass"} == {"augmentation"}
    assert found(lines, "splits").finding.startswith("1,168 / 270 / 359")
    assert all(bool(line.advice) == (line.status != "pass") for line in lines)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [(["model=cnn"], "note"), (["model=cnn", "trainer.precision=mixed_bfloat16"], "pass"), (["model=mlp"], None)],
)
def test_bfloat16_is_for_convolutions_on_processors_that_have_it(monkeypatch, overrides, expected):
    monkeypatch.setattr(processor, "multiplies_bfloat16", lambda: True)
    assert status(checklist.before(compose(*overrides)), "precision") == expected
    monkeypatch.setattr(processor, "multiplies_bfloat16", lambda: False)
    assert status(checklist.before(compose(*overrides)), "precision") == ("warning" if expected == "pass" else None)


@pytest.mark.parametrize(
    ("line", "expected"),
    [("flags: sse avx2", False), ("flags: avx512f avx512_bf16", True), ("flags: amx_bf16", True),
     ("Features: fp asimd bf16", True), ("Features: fp asimd", False), ("model: unknown", False)],
)  # fmt: skip
def test_processors_tell_whether_they_multiply_bfloat16(monkeypatch, line: str, expected: bool):
    key, words = line.split(": ")
    monkeypatch.setattr(processor, "_line", lambda wanted: words if wanted == key else "")
    monkeypatch.setattr(processor, "instructions", processor.instructions.__wrapped__)
    assert processor.multiplies_bfloat16() == expected


def test_bfloat16_is_no_matter_of_the_processor_beside_a_gpu(monkeypatch):
    monkeypatch.setattr(processor, "multiplies_bfloat16", lambda: False)
    monkeypatch.setattr(environment, "device", lambda: "NVIDIA H100")
    lines = checklist.before(compose("model=cnn", "trainer.precision=mixed_bfloat16"))
    assert status(lines, "precision") is None


def test_the_recipe_passes_every_point(monkeypatch):
    monkeypatch.setattr(processor, "multiplies_bfloat16", lambda: False)
    recipe = compose("experiment=recipe")
    assert {line.status for line in checklist.before(recipe)} == {"pass"}
    assert recipe.callback.keys() == {"checkpoint", "early_stopping", "plateau"}
    assert recipe.callback["early_stopping"].monitor != recipe.callback["checkpoint"].monitor


@pytest.mark.parametrize(
    ("subject", "expected", "overrides"),
    [
        ("augmentation", "pass", ["augmentation/sample=standard"]),
        ("augmentation", "pass", ["augmentation/batch=mixup"]),
        ("augmentation", "note", ["augmentation=none"]),
        ("schedule", "note", ["schedule=constant"]),
        ("schedule", "pass", ["schedule=constant", "schedule.cooldown=0.2"]),
        ("schedule", "pass", ["schedule=constant", "callback=[checkpoint,plateau]"]),
        ("regularization", "note", ["regularization=none", "optimizer=sgd"]),
        ("regularization", "pass", ["regularization=none", "optimizer=adamw"]),
        ("regularization", "pass", ["regularization.dropout=[0.0,0.1]", "optimizer=sgd"]),
        ("regularization", "pass", ["regularization=gradient_noise", "optimizer=sgd"]),
        ("early stopping", "note", ["callback.early_stopping=null"]),
        ("early stopping", "note", ["trainer.epochs=20"]),
        ("early stopping", "pass", ["trainer.epochs=21"]),
        ("early stopping", "pass", ["trainer.epochs=1"]),
        ("checkpoints", "warning", ["callback.checkpoint=null"]),
        ("logging", "note", ["trainer.log_every=100"]),
        ("logging", "note", ["trainer.eval_every=0.5"]),
        ("batch size", "note", ["trainer.batch_size=4"]),
        ("batch size", "note", ["trainer.batch_size=512"]),
        ("batch size", "pass", ["trainer.batch_size=64"]),
        ("held-out data", "note", ["data.validation=0.1"]),
    ],
)
def test_each_point_before_training(subject: str, expected: str, overrides: list[str]):
    assert status(checklist.before(compose(*overrides)), subject) == expected


@pytest.mark.parametrize(("twins", "expected"), [(0, "pass"), (2, "note"), (50, "warning")])
def test_equal_samples_in_two_splits_are_counted(run, twins: int, expected: str):
    values = np.random.default_rng(0).integers(0, 17, (1300, 8, 8, 1)).astype(np.uint8)
    splits = {"train": values[:700], "validation": values[700:1000], "test": values[1000:].copy()}
    splits["test"][:twins] = splits["train"][:twins]
    line = checklist.before(run, splits)[0]
    assert (line.subject, line.status) == ("splits", expected)
    assert not twins or f"{twins} in both train and test" in line.finding


def test_tables_need_no_augmentation(run):
    table = SimpleNamespace(spec=dataclasses.replace(run.data.spec, kind="tabular"))
    assert _augmentation(SimpleNamespace(data=table, augmentation=run.augmentation)).status == "pass"


# --- during ---


def test_a_healthy_run_passes_every_point(run):
    lines = checklist.after(run, log(), SUMMARY)
    assert {line.status for line in lines} == {"pass"}
    assert [line.subject for line in lines] == [
        "finite", "loss", "chance level", "rate", "gradients", "overfitting", "best weights", "test", "record",
    ]  # fmt: skip


def test_too_few_rows_are_not_read(run):
    assert {line.subject for line in checklist.during(run, log()[:3])} == {"finite"}
    assert checklist.during(run, []) == []


def test_a_diverging_loss(run):
    up = np.concatenate([np.linspace(2.3, 0.5, 50), np.linspace(0.5, 4, 50)])
    line = found(checklist.during(run, log(train_loss=up)), "loss")
    assert line.status == "warning"
    assert line.finding.startswith("diverging: train/loss 2.1")
    assert status(checklist.during(run, log(train_loss=np.linspace(2, 9, 100))), "loss") == "warning"


def test_the_noise_of_a_converged_run_is_no_divergence(run):
    noise = np.random.default_rng(0).normal(0, 0.1, 100)
    assert status(checklist.during(run, log(train_loss=0.3 + noise)), "loss") != "warning"
    quick = 0.3 + 2 * np.exp(-STEPS / 20) + noise
    assert status(checklist.during(run, log(train_loss=quick)), "loss") == "pass"


def test_a_flat_loss_at_chance(run):
    lines = checklist.during(run, log(train_loss=math.log(10), val_loss=math.log(10)))
    assert found(lines, "loss").finding.startswith("flat: ")
    assert found(lines, "chance level").status == "warning"
    assert "2.303" in found(lines, "chance level").finding


def test_chance_is_judged_without_the_penalty_and_only_for_cross_entropy(run):
    heavy = log(train_loss=5 + np.exp(-STEPS / 150), train_penalty=5.0)
    assert status(checklist.during(run, heavy), "chance level") == "pass"
    high = log(train_loss=4.0, val_loss=4.0)
    assert status(checklist.during(run, high), "chance level") == "warning"
    assert status(checklist.during(compose("loss=focal"), high), "chance level") is None


@pytest.mark.parametrize(
    ("update", "expected"), [(20 * 1e-5, "note"), (20 * 1e-3, "pass"), (20 * 1e-2, "pass"), (20 * 0.1, "note")]
)
def test_updates_are_compared_with_weights(run, update: float, expected: str):
    assert status(checklist.during(run, log(train_update_norm=update)), "rate") == expected


def test_only_the_steps_near_the_peak_tell_the_rate(run):
    """The end of a schedule has tiny updates, as it should; so has a step that was skipped."""
    tiny = np.where(FALL > 0.5, 20e-3, 1e-12)
    assert status(checklist.during(run, log(train_update_norm=tiny)), "rate") == "pass"
    skipped = np.where(np.arange(100) % 2, 20e-3, 0)
    assert status(checklist.during(run, log(train_update_norm=skipped)), "rate") == "pass"


def test_two_signs_of_a_wrong_rate_are_a_warning(run):
    swinging = evaluations([1.0, 0.5] * 5)
    line = found(checklist.during(run, log(train_update_norm=2.0, val_loss=swinging)), "rate")
    assert (line.status, line.finding[:9]) == ("warning", "too high?")
    assert status(checklist.during(run, log(val_loss=swinging)), "rate") == "note"
    low = found(checklist.during(run, log(train_update_norm=2e-5, train_loss=2.3)), "rate")
    assert (low.status, low.finding[:8]) == ("warning", "too low?")


def test_weights_that_grow_hide_large_updates(run):
    weights = np.linspace(20, 70, 100)
    line = found(checklist.during(run, log(train_param_norm=weights)), "rate")
    assert (line.status, "weights grew 3.50 times" in line.finding) == ("note", True)
    early = np.where(STEPS < 200, 20 * 0.1, 20 * 1e-3)
    line = found(checklist.during(run, log(train_param_norm=weights, train_update_norm=early)), "rate")
    assert (line.status, line.finding[:9]) == ("warning", "too high?")


def test_a_smooth_fall_is_no_oscillation(run):
    steep = evaluations([2.0 * 0.7**i for i in range(10)])
    assert status(checklist.during(run, log(val_loss=steep)), "rate") == "pass"


def test_gradients_that_explode_or_vanish(run):
    spike = np.where(np.arange(100) == 40, 500.0, 1.0)
    line = found(checklist.during(run, log(train_grad_norm=spike)), "gradients")
    assert (line.status, line.advice) == ("note", "clipping=global_norm clipping.max_norm=2")
    assert status(checklist.during(run, log(train_grad_norm=np.geomspace(10, 1e-6, 100))), "gradients") == "pass"
    assert status(checklist.during(run, log(train_grad_norm=1e-7)), "gradients") == "warning"


def test_the_share_of_clipped_steps():
    clipped = compose("clipping=global_norm", "clipping.max_norm=1.0")
    half = np.where(np.arange(100) < 30, 2.0, 0.5)
    line = found(checklist.during(clipped, log(train_grad_norm=half)), "clipping")
    assert line.status == "pass"
    assert line.finding.startswith("30% of the logged steps over max_norm 1")
    assert status(checklist.during(clipped, log(train_grad_norm=3.0)), "clipping") == "note"
    each = found(checklist.during(compose("clipping=norm"), log(train_grad_norm=half)), "clipping")
    assert each.finding.startswith("at most 30%")


@pytest.mark.parametrize(("scale", "said"), [(100.0, ""), (5000.0, "too small?"), (2.0, "too large?")])
def test_the_batch_is_compared_with_the_noise_scale(run, scale: float, said: str):
    late = np.where(STEPS > 500, scale, 32.0)  # only the second half counts
    line = found(checklist.during(run, log(train_noise_scale=late)), "gradient noise scale")
    assert (line.status, line.advice.startswith(said)) == ("note" if said else "pass", True)
    assert line.finding == f"{scale:.3g} samples; batches of 32"


@pytest.mark.parametrize(("share", "expected"), [(0.05, "pass"), (0.2, "note"), (0.7, "warning"), (None, None)])
def test_dead_units_are_told(run, share: float | None, expected: str | None):
    summary = SUMMARY if share is None else SUMMARY | {"dead_units": share}
    assert status(checklist.after(run, log(), summary), "dead units") == expected


def test_steps_that_were_not_finite(run):
    rows = log(train_finite=np.where(STEPS == 500, 0, 1), train_loss=np.where(STEPS == 500, np.nan, 1.0))
    assert found(checklist.during(run, rows), "finite").finding.startswith("1 of 100")
    assert status(checklist.during(run, rows), "finite") == "warning"


def test_overfitting_is_a_rise_after_the_best_or_a_gap(run):
    rising = evaluations([2, 1, 0.5, 0.4, 0.42, 0.45, 0.5, 0.55, 0.6, 0.65])
    assert status(checklist.during(run, log(val_loss=rising)), "overfitting") == "warning"
    slight = evaluations([2, 1, 0.5, 0.4, 0.41, 0.42, 0.41, 0.42, 0.42, 0.42])
    assert status(checklist.during(run, log(val_loss=slight)), "overfitting") == "pass"
    apart = log(train_accuracy=0.99, val_accuracy=0.8)
    assert status(checklist.during(run, apart), "overfitting") == "note"
    errors = log(train_accuracy=None, val_accuracy=None, train_mae=1.0, val_mae=2.0)
    assert status(checklist.during(run, errors), "overfitting") == "note"


def test_divergence_is_not_called_overfitting(run):
    both = np.concatenate([np.linspace(2.3, 0.5, 50), np.linspace(0.5, 4, 50)])
    assert status(checklist.during(run, log(train_loss=both, val_loss=both)), "overfitting") != "warning"


# --- after ---


@pytest.mark.parametrize(
    ("step", "rate", "expected"),
    [(100, 0.003 * FALL, "note"), (600, 0.003, "pass"), (1000, 0.003, "note"), (1000, 0.003 * FALL, "pass")],
)
def test_when_the_best_weights_were(run, step: int, rate: object, expected: str):
    summary = SUMMARY | {"best": {"monitor": "val/loss", "value": 0.3, "step": step}}
    assert status(checklist.after(run, log(train_learning_rate=rate), summary), "best weights") == expected


def test_nothing_monitored_has_no_best(run):
    summary = SUMMARY | {"best": {"monitor": None, "value": None, "step": 1000}}
    assert status(checklist.after(run, log(), summary), "best weights") is None


def test_the_test_split_is_used_once(run):
    assert status(checklist.after(run, log(), SUMMARY), "test") == "pass"
    assert status(checklist.after(run, log(test_accuracy=0.9), SUMMARY), "test") == "warning"
    halted = {"status": "halted", "best": SUMMARY["best"]}
    assert found(checklist.after(run, log(), halted), "test").finding == "not evaluated: the run is halted"
    poor = SUMMARY | {"test/r2": -0.1}
    assert status(checklist.after(run, log(), poor), "test") == "warning"


def test_what_makes_the_run_repeatable_is_there(run):
    files = ["config.yaml", "environment.json", "metrics.jsonl"]
    assert status(checklist.after(run, log(), SUMMARY, files), "record") == "pass"
    line = found(checklist.after(run, log(), SUMMARY, files[:1]), "record")
    assert (line.status, line.finding) == ("warning", "missing environment.json, metrics.jsonl")


# --- shown ---


def test_text_is_a_line_each_and_survives_markup():
    lines = [Line("pass", "a", "dropout [0.2]"), Line("warning", "b", "bad", "mend [it]")]
    shown = [Text.from_markup(line).plain for line in checklist.text(lines).splitlines()]
    assert shown == ["pass    a: dropout [0.2]", "warning b: bad (mend [it])"]
    assert checklist.text(lines, only=("warning", "note")).count("\n") == 0


def test_lines_go_through_json(run):
    rows = [line._asdict() for line in checklist.after(run, log(), SUMMARY)]
    assert json.loads(json.dumps(rows)) == rows


def test_it_needs_no_tensorflow():
    code = "import sys, descent; from descent import checklist as c; c.before(descent.compose()); "
    done = subprocess.run([sys.executable, "-c", code + "sys.exit('tensorflow' in sys.modules)"], timeout=60)
    assert done.returncode == 0


def test_the_report_has_a_table_of_it(run, folder):
    from descent import report
    from descent.folder import RunFolder

    folder.mkdir()
    (folder / "config.yaml").write_text("seed: 0\n")
    (folder / "environment.json").write_text('{"command": ["python", "train.py"]}')
    numbers = {"name": "a", "steps": 1, "epochs": 1.0, "parameters": 1, "seconds": 1.0, "samples_per_second": 1.0}
    lines = [Line("warning", "loss", "1 < 2", "lower it")._asdict()]
    report.write(RunFolder(folder), SUMMARY | numbers | {"checklist": lines})
    page = (folder / "report.html").read_text()
    assert '<td class="warning">warning</td><td>loss</td>' in page
    assert "1 &lt; 2" in page
    assert "lower it" in page
    report.write(RunFolder(folder), SUMMARY | numbers)
    assert "Checklist" not in (folder / "report.html").read_text()
