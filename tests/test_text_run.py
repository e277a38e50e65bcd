"""A run on texts from end to end: killed and continued bit for bit, the same bytes each time, its vocabulary kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from descent import UserError, compose
from descent.config import restore
from descent.session import running
from samples import small_wordnet, text_file
from test_resume import Killed, killing, same

SMALL = {
    "lstm": ("model.embedding=8", "model.width=8", "model.bidirectional=true"),
    "transformer": ("model.width=8", "model.heads=2", "model.depth=1"),
    "bag_of_embeddings": ("model.embedding=8",),
}


def words(tmp_path: Path, model: str) -> list[str]:
    """All that a run on texts can have switched on."""
    data = [
        "data=csv_text",
        f"data.path={text_file(tmp_path / 'files')}",
        "data.length=9",
        f"model={model}",
        *SMALL[model],
    ]
    mixed = ["augmentation=text_eda", "augmentation/batch=mixup", "augmentation.sample.single=false"]
    place = tmp_path / "wordnet"
    place.mkdir(exist_ok=True)
    return [
        *data, *mixed, f"augmentation.sample.wordnet={small_wordnet(place)}", "regularization=dropout",
        "regularization.recurrent_dropout=0.2", "regularization.stochastic_depth=0.1", "averaging=ema",
        "trainer.eval_every=3st", "trainer.log_every=1", "callback.checkpoint.every=4st",
    ]  # fmt: skip


@pytest.mark.parametrize("model", ["lstm"])
def test_a_killed_run_on_texts_continues_bit_for_bit(quick, tmp_path, monkeypatch, model):
    given = [*words(tmp_path, model), "trainer.steps_per_call=4"]
    quick(*given).run(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(running, "train", killing(running.train, at=13))
        with pytest.raises(Killed):
            quick(*given).run(tmp_path / "cut")
    quick(*given).run(tmp_path / "cut")
    same(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("model", ["transformer"])
def test_equal_seeds_equal_bytes_whatever_the_steps_in_a_call(quick, tmp_path, model):
    for k in ("1", "7"):
        quick(*words(tmp_path, model), f"trainer.steps_per_call={k}").run(tmp_path / k)
    logs = [(tmp_path / k / "metrics.jsonl").read_bytes() for k in ("1", "7")]
    assert logs[0] == logs[1]


def test_a_run_is_evaluated_with_the_vocabulary_it_was_trained_with(quick, tmp_path):
    """The file of texts is changed after training: what the run reads then has the ids that its model knows."""
    given = words(tmp_path, "bag_of_embeddings")
    quick(*given).run(tmp_path / "run")
    kept = json.loads((tmp_path / "run/vocabulary.json").read_text())["words"]
    file = tmp_path / "files/reviews.csv"
    file.write_text(file.read_text().replace("film", "movie").replace("dull", "tedious"))
    experiment, built, _ = restore(tmp_path / "run")
    assert list(experiment.data.spec.words) == kept
    assert built.state.model.get_layer("words").get_weights()[0].shape[0] == len(kept)
    assert "movie" not in kept
    assert compose(*given).data.spec.words != experiment.data.spec.words


def test_a_run_learns_to_tell_texts_apart(quick, tmp_path):
    plain = [word for word in words(tmp_path, "bag_of_embeddings") if "augmentation" not in word]
    run = quick(*plain, "trainer.steps=60", "optimizer.learning_rate=0.05", "regularization=none")
    assert run.run(tmp_path / "run").record["test/accuracy"] == 1.0


def test_what_is_for_images_or_texts_alone_is_refused_with_the_reason(tmp_path):
    data = ["data=csv_text", f"data.path={text_file(tmp_path)}"]
    for given, said in {
        ("model=cnn",): "model: Cnn is for image data, and this is text; use model=lstm",
        ("model=lstm", "augmentation=cutmix"): "is for image data, and this is text; use augmentation/sample=none",
        ("model=lstm", "augmentation/batch=cutmix"): "CutMix pastes boxes of images, and this data is text",
    }.items():
        with pytest.raises(UserError, match=said):
            compose(*data, *given)
    with pytest.raises(UserError, match="model: Lstm is for text data, and this is image"):
        compose("model=lstm")


@pytest.mark.slow
def test_docstrings_are_learned_nearly_as_well_as_by_a_linear_model(tmp_path, monkeypatch):
    """As the command trains it: 3 points below a linear machine on TF-IDF of words at most."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.svm import LinearSVC

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    run = compose("data=docstrings", "model=bag_of_embeddings", "trainer.threads=2", "logger.tensorboard=null")
    (train, labels), (test, answers) = (run.data.texts()[split] for split in ("train", "test"))
    terms = TfidfVectorizer(min_df=2, sublinear_tf=True)
    linear = LinearSVC().fit(terms.fit_transform(train), labels).score(terms.transform(test), answers)
    assert linear > 0.7
    assert run.run(tmp_path / "run").record["test/accuracy"] > linear - 0.03
