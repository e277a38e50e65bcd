"""The words that say how to run, and what a mistake leaves of a sweep: nothing that was not there before."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from descent.config import CONF
from descent.entry import Guard, run_main
from hydra_plugins.descent_launcher.launcher import BasicLauncher

ROOT = Path(__file__).resolve().parents[1]


def composed(*words: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", list(words), return_hydra_config=True)
    OmegaConf.update(config, "hydra.runtime.output_dir", "", force_add=True)
    return config


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("resume=true", "a folder, or auto"),
        ("resume=false", "a folder, or auto"),
        ("resume=5", "a folder, or auto"),
        ("resume=[a]", "a folder, or auto"),
        ("resume=", "a folder, or auto"),
        ("retry=flase", "true or false"),
        ("retry=no", "true or false"),
        ("retry=1", "true or false"),
        ("retry=null", "true or false"),
        ("resume_mismatch=wran", "refuse or warn"),
        ("resume_mismatch=[warn]", "refuse or warn"),
    ],
)
def test_a_word_that_means_nothing_ends_a_run_before_it_has_a_folder(word: str, wanted: str, capsys):
    with pytest.raises(SystemExit) as ended:
        Guard().on_run_start(composed(word))
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {word}: should be {wanted}\n"


def test_the_folder_of_a_run_is_not_made_of_what_is_no_folder():
    assert Path(composed("resume=true", "name=x").hydra.run.dir).parent.name == "x"
    assert Path(composed("resume=here").hydra.run.dir) == Path.cwd() / "here"


def launcher(sweep: Path) -> BasicLauncher:
    made = BasicLauncher()
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(sweep)}}})
    made.setup(hydra_context=None, task_function=None, config=config)
    return made


def begun(sweep: Path) -> None:
    """As Hydra's sweeper does before it calls the launcher."""
    sweep.mkdir(parents=True, exist_ok=True)
    (sweep / "multirun.yaml").write_text("")


def test_a_mistake_takes_back_what_its_start_has_made_and_no_folder_that_was_there(tmp_path: Path):
    (tmp_path / "mine").mkdir()
    one = launcher(tmp_path / "mine/deep/sweep")
    begun(tmp_path / "mine/deep/sweep")
    one._leave_nothing()
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


def test_a_mistake_leaves_an_older_sweep_as_it_was(tmp_path: Path):
    begun(tmp_path / "sweep")
    one = launcher(tmp_path / "sweep")
    begun(tmp_path / "sweep")
    one._leave_nothing()
    assert (tmp_path / "sweep/multirun.yaml").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data=digits"], "data=digits: should be texts, as in data=docstrings"),
        (["seed=1"], "data=digits: should be texts"),
        (["data=docstrigns"], "data=docstrigns: there is no such option; did you mean docstrings?"),
    ],
)
def test_the_baseline_of_texts_names_the_data_and_no_model(words: list[str], told: str, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import text_baseline

    monkeypatch.setattr(sys, "argv", ["text_baseline.py", *words])
    with pytest.raises(SystemExit) as ended:
        run_main(text_baseline.main)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
