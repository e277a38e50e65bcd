"""An ablation whose numbers are known: its arms, what each technique adds, and what is written of it."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats

from descent import UserError, compose
from descent.identity import identity
from descent.sweep import ablation, effects, report
from descent.sweep.ablation import BARE, FULL, Plan
from descent.sweep.collected import collect

ROOT = Path(__file__).resolve().parents[1]
TECHNIQUES = {
    "mixing": "augmentation/batch=none",
    "dropout": "regularization.dropout=0 regularization.spatial_dropout=0",
    "EMA": "averaging=none",
}
FACTORS = {"batch size": ["trainer.batch_size=16", "trainer.batch_size=128"]}
ARMS = ablation.arms(TECHNIQUES, FACTORS)
NAMES = [arm.name for arm in ARMS]
SEEDS = 4


def test_each_technique_is_off_in_turn_and_on_alone():
    words = {arm.name: list(arm.words) for arm in ARMS}
    mixing, dropout, average = (value.split() for value in TECHNIQUES.values())
    assert words == {
        FULL: [],
        "without mixing": mixing,
        "without dropout": dropout,
        "without EMA": average,
        BARE: [*mixing, *dropout, *average],
        "mixing alone": [*dropout, *average],
        "dropout alone": [*mixing, *average],
        "EMA alone": [*mixing, *dropout],
        "batch size 16": ["trainer.batch_size=16"],
        "batch size 128": ["trainer.batch_size=128"],
    }


def test_a_level_may_take_something_out():
    assert ablation.arms({}, {"stop": ["~callback.early_stopping"]})[-1].name == "stop ~callback.early_stopping"


def test_an_arm_is_compared_with_what_differs_from_it_in_its_technique_alone():
    words = {arm.name: set(arm.words) for arm in ARMS}
    for arm in ARMS:
        if arm.kind in ("in the recipe", "alone"):
            assert words[arm.name] ^ words[arm.reference] == set(TECHNIQUES[arm.subject].split())


def test_of_overrides_of_one_key_the_last_counts():
    assert ablation.merged([["a=1", "b.c=2"], ["a=3"]]) == ("a=3", "b.c=2")


def test_the_preset_takes_out_of_the_recipe_what_it_says():
    """Each technique's words change the recipe's config, in its own group; a kept warm-up outlives the schedule."""
    preset = yaml.safe_load((ROOT / "conf/sweep/ablation.yaml").read_text())["hydra"]["sweeper"]
    wanted = {"augmentation", "mixing", "label_smoothing", "dropout", "weight_decay", "warmup", "clipping", "EMA"}
    assert set(preset["techniques"]) == {*wanted, "schedule"}
    full = compose("experiment=ablation")
    prints = {identity(full)}
    for words in [
        *preset["techniques"].values(),
        *(level for levels in preset["factors"].values() for level in levels),
    ]:
        own = compose("experiment=ablation", *words.split())
        changed = {f.name for f in dataclasses.fields(own) if getattr(own, f.name) != getattr(full, f.name)}
        assert changed == {word.split("=")[0].replace("/", ".").split(".")[0] for word in words.split()}
        prints.add(identity(own))
    assert len(prints) == 1 + 9 + 4
    assert compose("experiment=ablation", "schedule=constant").schedule.warmup == full.schedule.warmup > 0


# --- runs whose numbers are known ------------------------------------------------------------------------------------

SHIFTS = dict(zip(NAMES, (0.9, 0.86, 0.94, 0.9, 0.7, 0.75, 0.72, 0.7, 0.89, 0.5), strict=True))


def accuracy(name: str, seed: int) -> float:
    """The arm's own level, what all arms have of the seed, and a little of both."""
    return SHIFTS[name] + 0.02 * seed + 0.003 * np.sin(3 * NAMES.index(name) + seed)


def run(folder: Path, words: tuple[str, ...], seed: int, order: int, value: float) -> None:
    folder.mkdir(parents=True)
    config = {"seed": seed, "words": list(words)}
    summary = {
        "status": "completed", "name": "known", "best": {"monitor": "val/loss", "value": 1 - value, "step": 1},
        "test/loss": 1 - value, "test/accuracy": value, "steps": 1, "parameters": 1, "seconds": 1.0,
    }  # fmt: skip
    rows = [{"step": e, "epoch": float(e), "val/loss": 2 - value} for e in (1, 2, 3)]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "environment.json").write_text(json.dumps({"overrides": [*words, f"seed={seed}"], "command": ["t"]}))
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "done.json").write_text("{}")
    os.utime(folder / "environment.json", (order, order))


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    folders: dict[str, list[str]] = {}
    for arm in ARMS:
        for seed in range(SEEDS):
            name = f"{arm.name},seed={seed}-{len(folders):010x}{seed:02x}"
            folders.setdefault(arm.name, []).append(name)
            run(tmp_path / name, arm.words, seed, 10 * len(folders) + seed, accuracy(arm.name, seed))
    Plan(tuple(ARMS), folders).write(tmp_path)
    return tmp_path


def found(sweep: Path) -> dict[tuple[str, str, str], effects.Effect]:
    plan = ablation.plan(sweep)
    assert plan is not None
    return {(e.metric, e.subject, e.kind): e for e in effects.measured(sweep, plan)}


def series(name: str) -> np.ndarray:
    return np.array([accuracy(name, seed) for seed in range(SEEDS)])


def test_an_effect_is_scipys_paired_difference(sweep: Path):
    known = found(sweep)
    pairs = {
        ("mixing", "in the recipe"): (FULL, "without mixing"),
        ("dropout", "in the recipe"): (FULL, "without dropout"),
        ("EMA", "in the recipe"): (FULL, "without EMA"),
        ("EMA", "alone"): ("EMA alone", BARE),
        ("all together", "all together"): (FULL, BARE),
        ("mixing", "alone"): ("mixing alone", BARE),
        ("dropout", "alone"): ("dropout alone", BARE),
        ("batch size 16", "factor"): ("batch size 16", FULL),
        ("batch size 128", "factor"): ("batch size 128", FULL),
    }
    chances = {}
    for key, (better, worse) in pairs.items():
        result = stats.ttest_rel(series(better), series(worse))
        interval = result.confidence_interval(0.95)
        effect = known["test/accuracy", *key]
        mean = (series(better) - series(worse)).mean()
        np.testing.assert_allclose(effect.gain[:3], [mean, interval.low, interval.high], atol=1e-12)
        np.testing.assert_allclose(effect.p, result.pvalue, rtol=1e-6)
        chances[key] = result.pvalue
    assert len(known) == 2 * len(pairs)
    smallest = min(chances, key=lambda key: chances[key])
    assert known["test/accuracy", *smallest].adjusted == pytest.approx(len(pairs) * chances[smallest])


def test_a_gain_is_positive_where_better_also_of_a_loss(sweep: Path):
    known = found(sweep)
    for (metric, subject, kind), effect in known.items():
        if metric == "test/loss":  # made as one less the accuracy
            np.testing.assert_allclose(effect.gain[:3], known["test/accuracy", subject, kind].gain[:3])


def test_a_run_that_is_missing_takes_its_pair_with_it(sweep: Path):
    (folder,) = sweep.glob("without mixing,seed=2-*")
    (folder / "done.json").unlink()
    effect = found(sweep)["test/accuracy", "mixing", "in the recipe"]
    kept = [0, 1, 3]
    assert effect.gain.n == 3
    assert effect.gain.mean == pytest.approx((series(FULL) - series("without mixing"))[kept].mean())


def test_a_run_whose_figures_are_still_to_be_drawn_counts(sweep: Path):
    before = found(sweep)
    (folder,) = sweep.glob("without mixing,seed=2-*")
    (folder / "done.json").rename(folder / "undrawn.npz")
    assert found(sweep) == before


def test_a_technique_that_is_lacking_alone_keeps_its_effect_in_the_recipe(sweep: Path):
    plan = ablation.plan(sweep)
    assert plan is not None
    Plan(plan.arms, {**plan.folders, "mixing alone": plan.folders[BARE]}).write(sweep)
    assert {key[2] for key in found(sweep) if key[1] == "mixing"} == {"in the recipe"}
    assert "Left out" not in report.page(collect(sweep))


def test_a_technique_that_another_hides_in_the_recipe_keeps_its_effect_alone(sweep: Path):
    """As clipping by norm does that comes after clipping by value: out of the recipe it changes nothing."""
    plan = ablation.plan(sweep)
    assert plan is not None
    Plan(plan.arms, {**plan.folders, "without mixing": plan.folders[FULL]}).write(sweep)
    page = report.write(sweep).read_text()
    assert "Which technique helps" in page
    rows = {row[0]: row[1:] for row in effects.table(collect(sweep).effects)[1:]}
    assert list(rows)[-1] == "mixing"
    assert rows["mixing"][0] == ""
    assert rows["mixing"][1].startswith(f"{100 * (series('mixing alone') - series(BARE)).mean():+.2f}")


def test_the_loss_tells_no_effect_where_a_level_is_another_loss(sweep: Path):
    for folder in sweep.glob("batch size 16*"):
        config = yaml.safe_load((folder / "config.yaml").read_text())
        (folder / "config.yaml").write_text(yaml.safe_dump({**config, "loss": {"_target_": "descent.loss.Focal"}}))
    assert {metric for metric, *_ in found(sweep)} == {"test/accuracy"}


@pytest.mark.parametrize(
    ("techniques", "factors", "told"),
    [
        (None, {"x": [1, 2]}, "factors.x=[1,2]: should be a list of levels, each as overrides in one text, as in [a.b"),
        (
            None,
            {"x": "a.b=1"},
            "factors.x=a.b=1: should be a list of levels, each as overrides in one text, as in [a.b=1]",
        ),
        (None, {"x": ["a.b=[1, 2]"]}, "factors.x=[a.b=[1, 2]]: should be a list of levels"),
        (None, {"x": [""]}, "factors.x=[]: should be a list of levels"),
        (
            {"dropout": ["a", "b"]},
            None,
            "techniques.dropout=[a,b]: should be overrides in one text, apart by spaces, as",
        ),
        ({"dropout": 0}, None, "techniques.dropout=0: should be overrides in one text"),
        ({"dropout": "off"}, None, "techniques.dropout=off: should be overrides in one text"),
        (["dropout"], None, "techniques=[dropout]: should be a mapping of names, as in sweep=ablation"),
        ({"dropout": None}, {"x": []}, "techniques: an ablation needs techniques or factors; try sweep=ablation"),
    ],
)
def test_what_an_ablation_cannot_be_asked_is_named_with_what_would_be_right(techniques, factors, told: str):
    with pytest.raises(UserError, match=re.escape(f"hydra.sweeper.{told}")):
        ablation.checked(techniques, factors)


def test_what_is_null_is_not_asked_about():
    given = {"a": "x=1 ~y", "b": None}, {"f": ["z=1", "z=2 w=3"], "g": None}
    assert ablation.checked(*given) == ({"a": "x=1 ~y"}, {"f": ["z=1", "z=2 w=3"]})


def test_what_the_recipe_lacks_has_no_effect_to_tell_of(sweep: Path):
    plan = ablation.plan(sweep)
    assert plan is not None
    same = {**plan.folders, "without mixing": plan.folders[FULL], "mixing alone": plan.folders[BARE]}
    Plan(plan.arms, same).write(sweep)
    assert not [key for key in found(sweep) if key[1] == "mixing"]
    assert "Left out, for it changes nothing in this recipe: mixing." in report.page(collect(sweep))


def test_nothing_is_told_before_a_run_of_the_recipe_is_done(sweep: Path):
    for path in sweep.glob(f"{FULL}*/done.json"):
        path.unlink()
    with pytest.raises(UserError, match="no run of the full recipe"):
        found(sweep)
    assert "Which technique helps" not in report.page(collect(sweep))


def test_the_page_the_table_and_the_figure(sweep: Path):
    page = report.write(sweep).read_text()
    assert "Which technique helps" in page
    assert [rank.variant.label for rank in collect(sweep).ranks][:2] == ["without dropout", FULL]
    rows = list(csv.DictReader((sweep / "ablation.csv").read_text().splitlines()))
    known = found(sweep)
    assert len(rows) == len(known)
    for row in rows:
        effect = known[row["metric"], row["subject"], row["kind"]]
        assert float(row["gain"]) == effect.gain.mean
        assert float(row["p_holm"]) == effect.adjusted
    assert (sweep / "ablation.svg").stat().st_size > 5000
    assert (sweep / "ablation.png").stat().st_size > 5000
    lines = effects.text(list(known.values())).splitlines()
    assert [line.split("  ")[0] for line in lines[1:5]] == ["all together", "mixing", "EMA", "dropout"]
    assert f"{100 * (series(FULL) - series(BARE)).mean():+.2f} ± " in lines[1]
