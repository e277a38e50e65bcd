"""A rate for each variant: as many runs for each, chosen by validation, compared with other seeds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from descent import UserError
from descent.runs import find
from descent.sweep import report, tuning
from descent.sweep.job import Job, Traits
from descent.sweep.tuning import Tuning, variant

ROOT = Path(__file__).resolve().parents[1]
PLAN = Tuning(values=(0.01, 0.1, 1.0), seeds=(100, 101))
LOSSES = {  # mean 0.35 0.3 0.5 of sgd, though its lowest run has the rate 0.01; adam's best is the first
    "sgd": [(0.1, 0.6), (0.3, 0.3), (0.4, 0.6)],
    "adam": [(0.2, 0.3), (0.3, 0.4), (0.4, 0.5)],
}
VARIANTS = [("optimizer=sgd",), ("optimizer=adam",)]


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    """The jobs of `PLAN.trials`, done, with these losses."""
    values = [loss for name in LOSSES for pair in LOSSES[name] for loss in pair]
    made = []
    for number, (words, loss) in enumerate(zip(PLAN.trials(VARIANTS), values, strict=True)):
        folder = tmp_path / str(number)
        folder.mkdir()
        best = {"monitor": "val/loss", "value": loss, "step": 1}
        (folder / "config.yaml").write_text("seed: 0\n")
        (folder / "environment.json").write_text("{}")
        (folder / "summary.json").write_text(json.dumps({"status": "completed", "best": best}))
        (folder / "done.json").write_text("{}")
        made.append(
            Job(number=number, overrides=tuple(words), config={}, folder=folder, traits=Traits(1, True), steps=1,
                per_epoch=1.0, evaluations=(1,), monitor="val/loss")
        )  # fmt: skip
    return made


def test_every_variant_has_the_same_number_of_runs():
    words = PLAN.trials(VARIANTS)
    assert len(words) == len({tuple(own) for own in words}) == 2 * 3 * 2
    for one in VARIANTS:
        own = [word for word in words if word[0] == one[0]]
        assert sorted(word[1:] for word in own) == sorted(
            [f"optimizer.learning_rate={value}", f"seed={seed}"]
            for value in ("0.01", "0.1", "1.0")
            for seed in (100, 101)
        )


def test_the_best_mean_of_validation_is_chosen(jobs: list[Job]):
    sgd, adam = (PLAN.chosen(VARIANTS, jobs)[one] for one in VARIANTS)
    assert (sgd.value, sgd.mean, sgd.edge) == ("0.1", pytest.approx(0.3), False)
    assert sgd.means == pytest.approx((0.35, 0.3, 0.5))
    assert (adam.value, adam.edge) == ("0.01", True)


def test_a_value_at_which_a_run_did_not_end_is_out(jobs: list[Job]):
    (jobs[3].folder / "done.json").unlink()
    assert PLAN.chosen(VARIANTS, jobs)[VARIANTS[0]].value == "0.01"
    for job in jobs[:6]:
        (job.folder / "done.json").unlink(missing_ok=True)
    left = PLAN.chosen(VARIANTS, jobs)
    assert list(left) == [VARIANTS[1]]
    lines = tuning.told(PLAN, {one[0]: left.get(one) for one in VARIANTS}, 6).splitlines()
    assert lines[0].endswith("by val/loss, 6 runs a variant:")
    assert "left out" in lines[1]
    assert lines[2].strip() == "optimizer=adam: 0.01  val/loss 0.25  (at the end of the values: give more)"


def remember(job: Job, config: str, **summary) -> None:
    """Gives a run of a job another config and more in its summary."""
    content = json.loads((job.folder / "summary.json").read_text())
    (job.folder / "config.yaml").write_text(config)
    (job.folder / "summary.json").write_text(json.dumps(content | summary))


def test_each_variant_is_tuned_by_its_own_metric(jobs: list[Job]):
    """Sgd is monitored by its loss, adam by an accuracy, whose numbers stay: adam's best is the last."""
    for job, loss in zip(jobs[6:], (loss for pair in LOSSES["adam"] for loss in pair), strict=True):
        remember(job, "seed: 0\n", best={"monitor": "val/accuracy", "value": loss, "step": 1})
    found = PLAN.chosen(VARIANTS, jobs)
    assert [(found[one].value, found[one].metric) for one in VARIANTS] == [("0.1", "val/loss"), ("1.0", "val/accuracy")]
    assert tuning.told(PLAN, {one[0]: found[one] for one in VARIANTS}, 6).startswith(
        "tuned   optimizer.learning_rate by val/loss, val/accuracy, 6 runs a variant:"
    )


def test_a_key_of_the_loss_is_not_tuned_by_the_loss_it_changes(jobs: list[Job]):
    """A larger gamma makes the focal loss itself smaller."""
    plan = Tuning(key="loss.gamma", values=(0, 1, 2), seeds=(100, 101))
    for number, job in enumerate(jobs[:6]):
        gamma, accuracy = number // 2, (0.9, 0.9, 0.8, 0.8, 0.7, 0.7)[number]
        remember(job, f"loss: {{gamma: {gamma}}}\n", **{"val/accuracy": accuracy, "val/loss": 0.5 / 2**gamma})
        (job.folder / "metrics.jsonl").write_text("")
    choice = plan.chosen(VARIANTS[:1], jobs[:6])[VARIANTS[0]]
    assert (choice.value, choice.metric) == ("0", "val/accuracy")


def test_another_key_is_not_tuned_in_the_folder_of_the_first(tmp_path: Path):
    sweep = tmp_path / "sweep"
    tuning.check_key(sweep, PLAN)
    tuning.begin(sweep, PLAN)
    tuning.check_key(sweep, PLAN)
    other = Tuning(key="optimizer.weight_decay", values=(0.1, 0.2), seeds=(100,))
    told = "hydra.sweeper.tune.key=optimizer.weight_decay: the sweep in .* was begun with optimizer.learning_rate; give"
    with pytest.raises(UserError, match=told):
        tuning.check_key(sweep, other)


def test_what_was_chosen_is_kept_until_it_is_chosen_anew(tmp_path: Path, jobs: list[Job]):
    found = PLAN.chosen(VARIANTS, jobs)
    tuning.write(tmp_path, PLAN, {one[0]: found[one] for one in VARIANTS})
    before = tuning.read(tmp_path)
    tuning.begin(tmp_path, PLAN)
    assert tuning.read(tmp_path) == before


def test_runs_in_a_folder_that_is_only_named_tuning_are_found(jobs: list[Job], tmp_path: Path):
    for place in ("mine/tuning/a", "swept/tuning/b", "swept/c"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        jobs.pop().folder.rename(tmp_path / place)
    tuning.begin(tmp_path / "swept", PLAN)
    assert [run.path.name for run in find([tmp_path / "mine", tmp_path / "swept"])] == ["a", "c"]
    assert [run.path.name for run in find([tmp_path / "swept/tuning"])] == ["b"]


def test_a_seed_may_not_tune_and_compare():
    with pytest.raises(UserError, match=r"hydra\.sweeper\.tune\.seeds: 101 is a seed of the comparison"):
        PLAN.check([["optimizer=sgd", "seed=101"], ["optimizer=sgd", "seed=0"]])
    with pytest.raises(UserError, match="0 is a seed of the comparison"):  # the seed that a run has if none is given
        Tuning(values=("1", "2"), seeds=(0,)).check([["optimizer=sgd"]])
    with pytest.raises(UserError, match=r"optimizer\.learning_rate: it is tuned"):
        PLAN.check([["optimizer.learning_rate=0.1", "seed=0"]])
    PLAN.check([["optimizer=sgd", "seed=0"]])


def test_a_variant_is_all_but_seed_and_fold():
    assert variant(["optimizer=sgd", "seed=3", "data.fold=1"]) == ("optimizer=sgd",)


def test_a_variant_is_tuned_on_all_folds_together():
    folds = tuning.folds([["optimizer=sgd", f"data.fold={fold}", f"seed={seed}"] for fold in (0, 2) for seed in (0, 1)])
    words = Tuning(values=("1", "2"), seeds=(100,)).trials([("optimizer=sgd",)], folds)
    shared = "optimizer=sgd", "optimizer.learning_rate"
    assert words == [
        [shared[0], f"data.fold={fold}", f"{shared[1]}={value}", "seed=100"] for value in (1, 2) for fold in (0, 2)
    ]


def sweep(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    fixed = ["debug=fast", "sweep=tuned", "trainer.threads=1", "trainer.jit=false", "logger.tensorboard=null"]
    tune = ["hydra.sweeper.tune.values=[0.001,0.1]", "hydra.sweeper.tune.seeds=[100]", f"hydra.sweep.dir={folder}"]
    command = [sys.executable, str(ROOT / "train.py"), "-m", *fixed, *tune, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=500)


def test_mistakes_end_the_sweep_before_it_begins(tmp_path: Path):
    for words, told in (
        (["seed=0,100"], "hydra.sweeper.tune.seeds: 100 is a seed of the comparison"),
        (["seed=0,-1"], "seed=-1"),
        (["hydra.sweeper.tune.values=[0.1]"], "hydra.sweeper.tune.values=[0.1]: should have at least 2 items"),
        (["hydra.sweeper.tune.key=optimizer.lr"], "optimizer.lr"),
    ):
        done = sweep(tmp_path / "sweep", *words)
        assert (done.returncode, told in done.stderr) == (2, True), done.stderr
        assert not (tmp_path / "sweep").exists()


@pytest.mark.slow
def test_each_variant_runs_with_its_own_value_and_other_seeds(tmp_path: Path):
    folder = tmp_path / "sweep"
    done = sweep(folder, "optimizer=sgd,adam", "seed=0,1")
    assert done.returncode == 0, done.stdout + done.stderr
    tuned = tuning.read(folder)
    best = {one["variant"]: one["value"] for one in tuned["chosen"]}
    tried = find([folder / "tuning"])
    assert sorted(run.config["seed"] for run in tried) == [100] * 4
    for name, value in best.items():  # by the runs themselves
        own = [run for run in tried if name in run.overrides]
        lowest = min(own, key=lambda run: run.summary["best"]["value"])
        assert f"optimizer.learning_rate={value}" in lowest.overrides
    compared = find([folder])
    assert sorted(run.config["seed"] for run in compared) == [0, 0, 1, 1]
    for run in compared:
        (name,) = [word for word in run.overrides if word in best]
        assert f"optimizer.learning_rate={best[name]}" in run.overrides
    assert (folder / "comparison/pairs.csv").exists()
    assert "How optimizer.learning_rate was chosen" in report.write(folder).read_text()
    again = sweep(folder, "optimizer=sgd,adam", "seed=0,1")
    assert again.stdout.count("4 jobs, 4 done before") == 2
    # Tuned once more, a variant has another value: its first runs are no part of the comparison any more.
    content = json.loads((folder / tuning.FILE).read_text())
    content["chosen"][0]["overrides"].append("retry=true")  # says nothing of the variant
    content["chosen"][0]["value"] = "0.5"
    (folder / tuning.FILE).write_text(json.dumps(content))
    kept = {word for run in find([folder]) for word in run.overrides if word in best}
    assert kept == {content["chosen"][1]["variant"]}
