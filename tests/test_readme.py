"""The README tells the truth."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from descent import compose

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
sys.path.append(str(ROOT / "scripts"))


def test_the_option_table_is_the_one_made_from_conf():
    import options

    assert options.with_table(README) == README


COMMANDS = [
    line.split("#")[0].split()[2:] for line in re.findall(r"^    (python train\.py [^\n]+)", README, re.MULTILINE)
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_printed_command_composes(words: list[str]):
    # Folders of runs that were: not on this machine.
    words = [word.strip("'") for word in words if word != "-m" and not word.startswith(("resume=", "init_from="))]
    single = [re.sub(r"^([\w/.]+=)([^,\[]+),.*$", r"\1\2", word) for word in words]
    if not any("my_package" in word for word in single):
        assert compose(*single).clock.steps > 0


def test_there_are_commands_to_check():
    assert len(COMMANDS) >= 5


def test_the_python_examples_run(folder, monkeypatch):
    """As printed, but for fewer epochs, fixed threads and a folder of the test's own."""
    from descent import Experiment, config

    monkeypatch.setattr(config, "new_folder", lambda name: folder / name)
    first, second, _ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    first = first.replace('"trainer.epochs=2"', '"trainer.epochs=1", "trainer.threads=2", "trainer.jit=false"')
    second = second.replace("epochs=5", "epochs=1, threads=2, jit=False").replace("    data=", '    name="b", data=')
    scope: dict[str, object] = {}
    exec(first.split("run.metrics")[0], scope)
    assert scope["run"].metrics["val/loss"].notna().any()
    exec(second, scope)
    assert scope["Experiment"] is Experiment
    assert (folder / "b" / "done.json").exists()


def test_paths_in_the_file_tree_exist():
    tree = README.split("## Files")[1]
    for line in re.findall(r"^ {4}(\S.*?) {2,}", tree, re.MULTILINE):
        assert all((ROOT / name).exists() for name in line.split())
    for line in re.findall(r"^ {6}(\S.*?) {2,}", tree, re.MULTILINE):
        assert all((ROOT / "src/descent" / name).exists() for name in line.split())
