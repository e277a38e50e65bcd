"""The report of a sweep whose numbers are known: the ranking, the table, and the page in a browser."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from optuna.distributions import CategoricalDistribution
from rich.console import Console
from scipy import stats

from descent import UserError, page, plot
from descent import report as run_report
from descent.folder import RunFolder, read_rows
from descent.sweep import figures, report
from descent.sweep.board import Board
from descent.sweep.collected import collect
from descent.sweep.job import Outcome, note_failure
from descent.sweep.ranking import estimate
from trials import job, made

RATES = ("0.001", "0.01", "0.1")
OPTIMIZERS = ("adam", "sgd")
BEST = {pair: 0.1 * i + 0.05 for i, pair in enumerate((o, r) for r in RATES for o in OPTIMIZERS)}


def value(optimizer: str, rate: str, seed: int) -> float:
    return BEST[optimizer, rate] + (0.01, -0.02, 0.005)[seed]


def run(folder: Path, optimizer: str, rate: str, seed: int, order: int, **summary: Any) -> None:
    folder.mkdir(parents=True)
    best = value(optimizer, rate, seed)
    config = {"seed": seed, "optimizer": {"_target_": optimizer, "learning_rate": float(rate)}}
    words = [f"optimizer={optimizer}", f"optimizer.learning_rate={rate}", f"seed={seed}"]
    content = {
        "status": "completed",
        "name": "known",
        "best": {"monitor": "val/loss", "value": best, "step": 20},
        "val/loss": best,
        "test/loss": best + 0.01,
        "test/accuracy": 1 - best,
        "steps": 30,
        "parameters": 12345,
        "seconds": 2.0,
        "checklist": [{"status": "warning", "subject": "overfitting", "finding": "<seen>", "advice": "less"}],
        **summary,
    }
    rows = [{"step": 10 * e, "epoch": float(e), "val/loss": best * (4 - e), "val/accuracy": 0.5} for e in (1, 2, 3)]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "environment.json").write_text(json.dumps({"overrides": words, "command": ["train.py", "-m"]}))
    (folder / "summary.json").write_text(json.dumps(content))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    os.utime(folder / "environment.json", (order, order))


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    places = [(o, r, s) for r in RATES for o in OPTIMIZERS for s in range(3)]
    for order, (optimizer, rate, seed) in enumerate(places):
        run(tmp_path / f"{optimizer},{rate},{seed}-{order:012x}", optimizer, rate, seed, order)
    broken = tmp_path / "sgd,9-00000000000f"
    broken.mkdir()
    (broken / "failure.json").write_text(json.dumps({"message": "ValueError: <no>", "log": "job.log"}))
    return tmp_path


def test_the_ranking_is_by_the_mean_of_the_best_values_with_students_interval(sweep: Path):
    ranks = collect(sweep).ranks
    assert [one.variant.runs[0].config["optimizer"]["_target_"] for one in ranks] == ["adam", "sgd"] * 3
    for one, mean in zip(ranks, sorted(BEST.values()), strict=True):
        values = np.array([mean + shift for shift in (0.01, -0.02, 0.005)])
        low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
        np.testing.assert_allclose([*one.value[:3], one.value.n], [values.mean(), low, high, 3])


def test_a_mean_is_written_with_half_its_interval(sweep: Path):
    one = collect(sweep).ranks[0]
    half = one.value.high - one.value.mean
    assert estimate(one.value, "val/loss") == f"{one.value.mean:.4g} ± {half:.2g}"
    assert estimate(one.test[1], "test/accuracy").endswith(f"% ± {100 * half:.2f}")


def test_what_was_varied_is_found(sweep: Path):
    found = collect(sweep)
    assert found.varied == ["optimizer", "optimizer.learning_rate", "seed"]
    assert found.axes == ["optimizer", "optimizer.learning_rate"]
    assert found.values("optimizer.learning_rate") == list(RATES)


def test_runs_that_were_pruned_or_halted_are_listed_and_not_ranked(sweep: Path):
    run(sweep / "p-00000000000d", "adam", "0.001", 0, 99, stopped="pruned at step 10", best={"value": None})
    run(sweep / "h-00000000000e", "adam", "0.1", 1, 98, status="halted")
    found = collect(sweep)
    assert sum(one.value.n for one in found.ranks) == 18
    assert [row["status"] for row in found.rows()][-2:] == ["halted", "pruned"]
    assert [one.message for one in found.failures] == ["ValueError: <no>", "halted at a number that was not finite"]


def test_a_job_that_was_completed_after_it_had_failed_has_a_result(sweep: Path):
    run(sweep / "later-00000000000c", "adam", "0.01", 0, 97)
    (sweep / "later-00000000000c/failure.json").write_text(json.dumps({"message": "OSError: full", "log": "job.log"}))
    assert [one.message for one in collect(sweep).failures] == ["OSError: full", "ValueError: <no>"]
    (sweep / "later-00000000000c/done.json").write_text("{}")
    assert [one.message for one in collect(sweep).failures] == ["ValueError: <no>"]


def test_a_log_is_linked_where_there_is_one(sweep: Path):
    assert "job.log" not in report.write(sweep).read_text()
    (sweep / "sgd,9-00000000000f/job.log").write_text("no")
    assert '<a href="sgd%2C9-00000000000f/job.log">' in report.write(sweep).read_text()


def test_a_failure_is_noted_and_told_with_its_log_where_it_has_one(tmp_path: Path):
    for name, there in (("terminal", False), ("logged", True)):
        one, out = job(tmp_path / name), io.StringIO()
        if there:
            (one.folder / "job.log").write_text("no")
        note_failure(one, "ValueError: no")
        assert ("log" in json.loads((one.folder / "failure.json").read_text())) is there
        board = Board((), Console(width=300, file=out))
        board.add(one, Outcome("failed", "ValueError: no"))
        board.close()
        assert ("job.log" in out.getvalue()) is there


def test_what_says_nothing_of_a_variant_is_no_axis(sweep: Path):
    for i, folder in enumerate(sorted(sweep.glob("*/environment.json"))):
        about, times = json.loads(folder.read_text()), folder.stat().st_mtime
        words = [*about["overrides"], f"tags=[{i}]", f"name=n{i}", f"logger=l{i}", f"+logger.wandb.mode=m{i}"]
        folder.write_text(json.dumps({**about, "overrides": words}))
        os.utime(folder, (times, times))
    found = collect(sweep)
    assert "tags" in found.varied
    assert found.axes == ["optimizer", "optimizer.learning_rate"]


def test_a_folder_of_folders_tells_where_each_run_and_failure_is(tmp_path: Path):
    for order, place in enumerate(("one/2026a", "two/2026a")):
        run(tmp_path / place, "adam", "0.01", order, order)
        (tmp_path / place / "report.html").write_text("")
    (tmp_path / "two/broken").mkdir()
    (tmp_path / "two/broken/failure.json").write_text(json.dumps({"message": "no"}))
    (tmp_path / "two/broken/job.log").write_text("no")
    text = report.write(tmp_path).read_text()
    for link in ("one/2026a/report.html", "two/2026a/report.html", "two/broken/job.log"):
        assert f'href="{link}"' in text
    rows = list(csv.DictReader((tmp_path / "sweep.csv").read_text().splitlines()))
    assert [row["folder"] for row in rows] == ["one/2026a", "two/2026a"]


def test_what_tuning_left_without_a_result_is_told_in_its_own_report(sweep: Path):
    (sweep / "tuning/broken").mkdir(parents=True)
    (sweep / "tuning.json").write_text(json.dumps({"key": "k", "chosen": []}))
    (sweep / "tuning/broken/failure.json").write_text(json.dumps({"message": "no"}))
    assert [one.message for one in collect(sweep).failures] == ["ValueError: <no>"]


FROZEN = ("^(conv_\\w+/kernel$|norm_\\w+/gamma$)", "^a$|^b_$", "none")


def test_values_of_a_user_begin_no_formula(tmp_path: Path):
    """Two dollars with a formula between them that Matplotlib cannot read, in every figure of a sweep."""
    for order, (frozen, rate, model) in enumerate((f, r, m) for f in FROZEN for r in RATES for m in ("$m_{$", "n")):
        folder = tmp_path / f"{order:012x}"
        run(folder, "sgd", rate, 0, order)
        (folder / "config.yaml").write_text(yaml.safe_dump({"seed": 0, "a": [frozen, rate, model]}))
        words = [f"optimizer.frozen={frozen}", f"optimizer.learning_rate={rate}", f"model={model}"]
        (folder / "environment.json").write_text(json.dumps({"overrides": words}))
        os.utime(folder / "environment.json", (order, order))
    found = collect(tmp_path)
    drawn = [*figures.drawn(found).values()]
    assert len(drawn) == 4
    found.axes.pop()
    drawn.append(figures.heat_map(found))
    x, y = np.arange(3), np.ones(3)
    drawn.append(plot.bands({FROZEN[0]: (x, y, y, y)}, "val/loss", log=False))
    for one in drawn:
        plot.svg(one)  # which reads the texts
    assert any(r"gamma\$" in label.get_text() for label in drawn[0].axes[0].get_yticklabels())


def test_the_csv_has_a_row_for_each_run(sweep: Path):
    report.write(sweep)
    rows = list(csv.DictReader((sweep / "sweep.csv").read_text().splitlines()))
    assert len(rows) == 18
    for row in rows:
        wanted = value(row["optimizer"], row["optimizer.learning_rate"], int(row["seed"]))
        assert float(row["best"]) == wanted
        assert float(row["test/accuracy"]) == 1 - wanted


def test_a_folder_without_runs_is_a_mistake(tmp_path: Path):
    with pytest.raises(UserError, match="no finished run"):
        report.write(tmp_path)


# --- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture
def browser() -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for word in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    yield driver
    driver.quit()


def column(browser: Any, table: str, place: int) -> list[str]:
    """The cells of a column that are shown, in order."""
    return browser.execute_script(
        "return [...document.querySelectorAll(`#${arguments[0]} tbody tr`)].filter(r => r.offsetParent)"
        ".map(r => r.cells[arguments[1]].textContent)",
        table,
        place,
    )


def requests(browser: Any) -> list[str]:
    messages = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [url for url in sent if not url.startswith("data:")]


in_browser = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")), reason="chromium is not installed"
)


@in_browser
def test_the_page_sorts_and_searches_and_asks_for_nothing(sweep: Path, browser: Any):
    page = report.write(sweep).as_uri()
    browser.get(page)
    assert requests(browser) == [page]
    assert browser.execute_script("return [...document.images].every(i => i.complete && i.naturalWidth > 100)")
    titles = [e.text for e in browser.find_elements("css selector", "figcaption")]
    assert titles == [
        "Every variant, with its 95 % interval",
        "Learning curves of the best, with 95 % bands",
        "optimizer.learning_rate against optimizer",
        "Each axis by itself, over the values of the others",
    ]
    assert column(browser, "ranking", 0) == list("123456")
    value_head = browser.find_elements("css selector", "#ranking th")[4]
    value_head.click()
    assert value_head.get_attribute("aria-sort") == "ascending"
    assert column(browser, "ranking", 0) == list("123456")
    value_head.click()
    assert column(browser, "ranking", 0) == list("654321")
    search = browser.find_element("css selector", "input[data-for=ranking]")
    search.send_keys("SGD 0.01")
    assert column(browser, "ranking", 1) == ["sgd"]
    assert column(browser, "ranking", 2) == ["0.01"]
    assert len(column(browser, "runs", 0)) == 18
    body = browser.find_element("css selector", "body").text
    for told in ("ValueError: <no>", "18 of 18 runs", "<seen>"):
        assert told in body
    assert browser.get_log("browser") == []


@in_browser
def test_the_page_of_a_run_is_of_the_same_kind(tmp_path: Path, browser: Any):
    run(tmp_path / "one", "adam", "0.01", 0, 1, epochs=3.0, samples_per_second=1e4, **{"train/loss": 0.2})
    place = RunFolder(tmp_path / "one")
    plot.save(plot.learning_curves(read_rows(place.metrics), 20), place.plots, "learning_curves")
    run_report.write(place, place.read_json("summary.json"))
    page = (place.path / "report.html").as_uri()
    browser.get(page)
    assert requests(browser) == [page]
    assert browser.get_log("browser") == []
    assert browser.execute_script("return [...document.images].every(i => i.complete && i.naturalWidth > 100)")
    assert column(browser, "metrics", 0) == ["loss", "accuracy"]
    browser.find_element("css selector", "#metrics th").click()
    assert column(browser, "metrics", 0) == ["accuracy", "loss"]
    body = browser.find_element("css selector", "body").text
    for told in ("Learning curves", "python train.py optimizer=adam optimizer.learning_rate=0.01 seed=0", "<seen>"):
        assert told in body
    assert "learning_rate: 0.01" in body  # the config


@in_browser
def test_the_page_of_a_study_shows_what_mattered(sweep: Path, browser: Any):
    space = {key: CategoricalDistribution(list(known)) for key, known in
             {"optimizer": OPTIMIZERS, "optimizer.learning_rate": RATES}.items()}  # fmt: skip
    begun = made(sweep, space=space, trials=18, objectives=["val/loss", "seconds"])
    while trial := begun.ask():
        best = {"monitor": "val/loss", "value": value(*trial.params.values(), trial.number % 3)}
        begun.tell(trial, job(sweep.parent / "job", best=best, seconds=trial.number % 4 + 1.0), Outcome("done"))
    page = report.write(sweep).as_uri()
    browser.get(page)
    assert requests(browser) == [page]
    assert browser.get_log("browser") == []
    titles = [e.text.split(":")[0] for e in browser.find_elements("css selector", "figcaption")]
    assert titles == [
        "The trials in their order", "Pareto front", "What mattered", "Slices", "Slices",
        "Learning curves of the best, with 95 % bands",
    ]  # fmt: skip
    seconds = [float(cell) for cell in column(browser, "front", 4)]
    assert seconds == sorted(seconds, reverse=True)  # by the loss, the lowest first


def test_how_to_run_a_job_again():
    typed = ["train.py", "experiment=ablation", "hydra.searchpath=[file://own]"]
    environment = {"command": typed, "overrides": ["experiment=ablation", "seed=0", "augmentation/batch=none"]}
    command, _ = page.reproduction(environment, alone=True)
    wanted = [*environment["overrides"], "hydra.searchpath=[file://own]", "hydra.mode=RUN"]
    assert shlex.split(command) == ["python", "train.py", *wanted]
    preset = {"command": ["train.py", "sweep=seeds"], "overrides": ["sweep=seeds", "seed=3"]}
    assert page.reproduction(preset, alone=True)[0] == "python train.py sweep=seeds seed=3 hydra.mode=RUN"
    single = {"command": ["train.py", "experiment=recipe"], "overrides": ["experiment=recipe"]}
    assert page.reproduction(single, alone=True)[0] == "python train.py experiment=recipe"


def test_what_a_run_depends_on_is_told_in_words():
    environment = {
        "command": [],
        "git": {"commit": "abc", "modified": False},
        "xla_flags": "",
        "threads": 1,
        "gpus": [],
    }
    _, rest = page.reproduction(environment, alone=True)
    assert rest == {"git": "commit abc, modified no", "xla_flags": "none", "threads": "1", "gpus": "none"}
