"""Sources whose samples a run remembers: it does not go on, or get evaluated, on others without a word."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from descent import UserError, compose
from descent.config import load_experiment
from descent.session import running
from test_faults import Killed, at_step

RUN = ("optimizer=sgd", "schedule=constant", "augmentation=none", "regularization=none", "trainer.threads=2")
RUN = (
    *RUN,
    "trainer.jit=false",
    "trainer.steps=6",
    "trainer.batch_size=8",
    "trainer.steps_per_call=2",
    "callback.checkpoint.every=2st",
)


def images(root: Path, more: bool) -> list[str]:
    for i in range(12):
        for name in ("cat", "dog") if i < 11 or more else ("cat",):
            (root / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4), (i, len(name), 10 * i)).save(root / name / f"{i}.png")
    return ["data=image_folder", f"data.path={root}", "data.size=[8,8]", "model=mlp", "model.widths=[4]"]


def texts(root: Path, more: bool) -> list[str]:
    root.mkdir(exist_ok=True)
    lines = [f"a text of number {i},{'odd' if i % 2 else 'even'}" for i in range(40 + more)]
    (root / "texts.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    return ["data=csv_text", f"data.path={root / 'texts.csv'}", "model=bag_of_embeddings", "model.embedding=4"]


@pytest.fixture(params=[images, texts])
def source(request, tmp_path, monkeypatch) -> Iterator[tuple[list[str], Path]]:
    """Overrides of a run on the data, and where to put what makes them others."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    root = tmp_path / "data"
    return request.param(root, False), lambda: request.param(root, True)


def test_a_run_does_not_go_on_with_other_samples(source, folder, monkeypatch):
    words, change = source
    with monkeypatch.context() as patch:
        patch.setattr(running, "train", at_step(4, lambda: (_ for _ in ()).throw(Killed)))
        with pytest.raises(Killed):
            compose(*RUN, *words).run(folder)
    shutil.copytree(folder, folder.with_name("same"))
    assert compose(*RUN, *words).run(folder.with_name("same")).summary["steps"] == 6
    change()
    with pytest.raises(
        UserError, match=r"the bits of the result would change: .*data was \w+, is \w+; resume_mismatch"
    ):
        compose(*RUN, *words).run(folder)


def test_a_run_on_samples_that_are_others_now_says_so(source, folder, capsys):
    words, change = source
    compose(*RUN, *words).run(folder)
    load_experiment(folder).data.open()
    assert "were others" not in capsys.readouterr().out
    change()
    load_experiment(folder).data.open()
    assert "splits were others" in capsys.readouterr().out


def test_a_run_with_a_vocabulary_that_is_given_is_found_again_from_anywhere(tmp_path, folder, monkeypatch, capsys):
    words = texts(tmp_path / "data", False)
    first = compose(*RUN, *words).run(folder)
    shutil.copy(folder / "vocabulary.json", tmp_path / "words.json")
    monkeypatch.chdir(tmp_path)
    own = folder.with_name("own")
    compose(*RUN, *words, "data.vocabulary=words.json").run(own)
    again = compose(*RUN, *words, "data.vocabulary=words.json").run(own)
    assert "complete already" in capsys.readouterr().out
    assert again.record == pytest.approx(first.record)
    monkeypatch.chdir("/")
    assert load_experiment(own).data.spec.words == load_experiment(folder).data.spec.words


def test_embeddings_of_other_words_are_no_start(tmp_path, folder):
    words = texts(tmp_path / "data", False)
    compose(*RUN, *words, "data.max_words=20").run(folder)
    new = (*RUN, *words, "data.max_words=20", "data.split_seed=5", f"init_from={folder}")
    with pytest.raises(UserError, match=r"its embeddings are of other words; add data\.vocabulary=.*vocabulary\.json"):
        compose(*new)
    assert compose(*new, f"data.vocabulary={folder}/vocabulary.json").init_from == str(folder)
