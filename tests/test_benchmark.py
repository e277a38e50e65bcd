"""The benchmark: its peers train the same model, its arithmetic, and a short one in full."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from descent import Experiment, UserError, compose, seeds
from descent.command import parted
from descent.data import FashionMnist, Synthetic
from descent.model import Cnn, Mlp, ResNet20, ViT
from descent.regularization import Regularization
from samples import text_file

ROOT = Path(__file__).resolve().parents[1]
MODELS = {"cnn": Cnn(widths=(8, 16), dense=12), "mlp": Mlp(widths=(9,)), "resnet20": ResNet20(width=16, blocks=1)}
MODELS |= {"vit": ViT(width=24, depth=1)}


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))


def passed(model: keras.Model, x: np.ndarray) -> tuple[np.ndarray, dict[tuple[str, str], np.ndarray]]:
    """Outputs in training, and the gradients of a projection of them by layer and name."""
    variables = model.trainable_variables
    with tf.GradientTape() as tape:
        outputs = model(x, training=True)
        objective = tf.reduce_sum(outputs * np.random.default_rng(1).standard_normal(outputs.shape).astype(np.float32))
    gradients = map(tf.convert_to_tensor, tape.gradient(objective, [v.value for v in variables]))
    named = {tuple(v.path.split("/")[-2:]): np.array(g) for v, g in zip(variables, gradients, strict=True)}
    return outputs.numpy(), named


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("spec", [FashionMnist().spec, Synthetic(shape=(12, 9, 3)).spec], ids=["grey", "colour"])
def test_weights_go_into_plain_layers_and_back_with_equal_outputs_and_gradients(scripts, name, spec):
    from benchmark_peers import plain

    keras.backend.clear_session()
    with seeds.initialization(0):
        ours = MODELS[name].build(spec, Regularization())
    theirs = plain.model(MODELS[name], ours, spec, Regularization())
    replaced = ("BatchNormalization", "Conv2D", "Dropout")
    assert not any(type(layer).__name__ in replaced and "descent" in type(layer).__module__ for layer in theirs.layers)
    x = np.random.default_rng(0).random((8, *spec.shape), np.float32)
    (outputs, gradients), (plain_outputs, plain_gradients) = passed(ours, x), passed(theirs, x)
    np.testing.assert_allclose(plain_outputs, outputs, rtol=1e-4, atol=1e-5)
    for key, gradient in gradients.items():
        size = np.abs(gradient).max()
        np.testing.assert_allclose(plain_gradients[key], gradient, rtol=1e-3, atol=2e-4 * size, err_msg=str(key))
    before = [np.array(v) for v in ours.variables]
    for variable in ours.variables:
        variable.assign(np.zeros(variable.shape))
    plain.copy_weights(theirs, ours)
    np.testing.assert_allclose(ours(x, training=False), theirs(x, training=False), rtol=1e-4, atol=1e-5)
    trained = {v.path for v in ours.trainable_variables}
    for variable, value in zip(ours.variables, before, strict=True):
        assert variable.path not in trained or np.array_equal(variable, value)


TEXTS = {"bag_of_embeddings": ("model.embedding=6",), "lstm": ("model.embedding=6", "model.width=5", "model.layers=2")}
TEXTS |= {"gru": ("model.embedding=6", "model.width=5"), "transformer": ("model.width=8", "model.heads=2")}


def on_texts(name: str, tmp_path: Path) -> tuple[Experiment, np.ndarray]:
    """A run on texts, and ids of texts of 9, 4 and 1 words."""
    words = [f"model={name}", *TEXTS[name], "data=csv_text", f"data.path={text_file(tmp_path)}", "data.length=9"]
    run = compose(*words, "regularization=none", "trainer.threads=2")
    ids = np.random.default_rng(0).integers(1, run.data.spec.vocabulary, (3, 9)).astype(np.int32)
    return run, np.where(np.arange(9) < np.array([[9], [4], [1]]), ids, 0)


@pytest.mark.parametrize("name", TEXTS)
def test_models_for_texts_have_plain_counterparts_with_equal_outputs_and_gradients(scripts, name, tmp_path):
    from benchmark_peers import plain

    run, ids = on_texts(name, tmp_path)
    keras.backend.clear_session()
    with seeds.initialization(0):
        ours = run.model.build(run.data.spec, run.regularization)
    theirs = plain.model(run.model, ours, run.data.spec, run.regularization)
    (outputs, gradients), (plain_outputs, plain_gradients) = passed(ours, ids), passed(theirs, ids)
    np.testing.assert_allclose(plain_outputs, outputs, rtol=1e-4, atol=1e-5)
    common = gradients.keys() & plain_gradients.keys()
    assert {("words", "embeddings"), ("head", "kernel")} <= common
    for key in common:
        size = np.abs(gradients[key]).max()
        np.testing.assert_allclose(plain_gradients[key], gradients[key], rtol=1e-3, atol=2e-4 * size, err_msg=str(key))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bag_of_embeddings", "lstm", "transformer"])
def test_pytorch_starts_where_descent_does_on_texts(scripts, name, tmp_path):
    torch = pytest.importorskip("torch")
    from benchmark_peers import torch_texts

    run, ids = on_texts(name, tmp_path)
    ours = run.model.build(run.data.spec, run.regularization)
    theirs = torch_texts.build(run.model, ours, run.data.spec, run.regularization).eval()
    with torch.no_grad():
        outputs = theirs(torch.from_numpy(ids).long()).numpy()
    np.testing.assert_allclose(outputs, ours(ids, training=False), rtol=1e-3, atol=1e-5)


def test_variants_are_named_once_and_known(scripts):
    from benchmark import KNOWN, Benchmark
    from benchmark_peers.worker import VARIANTS

    assert set(KNOWN) == set(VARIANTS) - {"facts", "descent", "follower"}
    assert parted(Benchmark, ["vs=fit,fit_best,fit_xla", "model=cnn"]) == (
        Benchmark(vs=("fit", "fit_graph", "fit_xla")),
        ["model=cnn"],
    )
    assert parted(Benchmark, ["vs="])[0].vs == ()
    with pytest.raises(UserError, match="vs=fot: there is no such variant; choose of fit, "):
        parted(Benchmark, ["vs=fot"])
    with pytest.raises(UserError, match="rounds"):
        parted(Benchmark, ["rounds=0"])


def test_what_a_tutorial_writes_runs_as_tensorflow_comes(scripts, monkeypatch):
    """Its best settings run with the oneDNN that Descent runs with."""
    import benchmark

    given = {}

    def start(words, *, env, **_):
        given[words[3]] = env["TF_ENABLE_ONEDNN_OPTS"]
        return SimpleNamespace(stdout=io.StringIO("{}\n"))

    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    monkeypatch.setattr(benchmark.subprocess, "Popen", start)
    for name in ("descent", "fit", "loop", "fit_graph"):
        benchmark.Worker(name, [])
    assert given == {"descent": "1", "fit": "default", "loop": "default", "fit_graph": "1"}


@pytest.mark.parametrize(
    ("code", "told"),
    [("import os; os.kill(os.getpid(), 11)", "it was ended by signal 11"), ("exit('one\\ntwo')", "two")],
)
def test_how_a_peer_ended_is_told(scripts, monkeypatch, code, told):
    import benchmark

    start = subprocess.Popen
    monkeypatch.setattr(benchmark.subprocess, "Popen", lambda words, **more: start([words[0], "-c", code], **more))
    with pytest.raises(UserError, match=f"^fit: {told}$"):
        benchmark.Worker("fit", [])


def test_losses_are_compared_over_the_steps_that_all_have_done(scripts):
    """A loss of 10 - t falls on steps 5 to 10: its mean there is that of 4.5, 3.5, ... whatever the windows."""
    from benchmark import compared

    each = [(t, 10 - t + 0.5) for t in range(1, 21)]
    pairs = [(t, 10 - t + 1.0) for t in range(2, 11, 2)]
    workers = [SimpleNamespace(name=name) for name in ("descent", "fit", "input")]
    losses = compared([each, pairs, [(5, 0.0)]], workers)
    assert losses[0] == pytest.approx(2.5)
    assert losses[1] == pytest.approx(2.6, abs=0.2)
    assert losses[2] is None


@pytest.mark.parametrize(("override", "key"), [("averaging=ema", "averaging"), ("sharpness=sam", "sharpness"),
                                               ("regularization=l2", "regularization")])  # fmt: skip
def test_what_the_peers_leave_out_is_refused_by_name(scripts, override, key):
    from benchmark_peers import task

    with pytest.raises(UserError, match=key):
        task.check(compose(override))
    task.check(compose())


@pytest.mark.slow
@pytest.mark.parametrize("word", ["model.activation=gelu", "optimizer.centralize=true", "optimizer=amsgrad"])
def test_pytorch_does_not_leave_out_what_it_does_not_know(scripts, word):
    pytest.importorskip("torch")
    from benchmark_peers import torch_peer

    with pytest.raises(UserError, match="the PyTorch peer does not know"):
        torch_peer.check(SimpleNamespace(experiment=compose("augmentation=none", word)))


@pytest.mark.slow
def test_a_short_benchmark_has_a_row_for_each_and_equal_losses(scripts, tmp_path, monkeypatch, capsys):
    import benchmark

    words = ["data=synthetic", "schedule=constant", "vs=fit,fit_graph,loop,input", "rounds=1", "seconds=0.5"]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *words, f"out={tmp_path}"])
    benchmark.main()
    rows = [json.loads(line) for line in next(tmp_path.glob("*.jsonl")).read_text().splitlines()]
    assert [row["variant"] for row in rows] == ["descent", "fit", "fit_graph", "loop", "input"]
    assert all(row["samples_per_second"] > 0 and row["first_step_seconds"] > 1 for row in rows)
    losses = [row["loss"] for row in rows[:4]]
    np.testing.assert_allclose(losses, losses[0], rtol=0.1)
    assert "| `fit` |" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("model", ["mlp", "cnn", "resnet20"])
def test_pytorch_starts_where_descent_does(scripts, model):
    torch = pytest.importorskip("torch")
    from benchmark_peers import task, torch_models

    shapes = {"cnn": ["model.widths=[8,8]", "model.dense=16"], "resnet20": ["model.width=4"], "mlp": []}[model]
    overrides = ["trainer.threads=2", "regularization=none", "trainer.deterministic=true", *shapes]
    run = compose("data=synthetic", "data.shape=[12,10,3]", f"model={model}", *overrides)
    spec = run.data.spec
    ours = run.model.build(spec, run.regularization)
    made = task.Task(experiment=run, arrays={}, ours=ours, rates=np.zeros(1, np.float32))
    theirs = torch_models.build(made).eval()
    x = np.random.default_rng(0).random((4, *spec.shape), np.float32)
    with torch.no_grad():
        outputs = theirs(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(outputs, ours(x, training=False), rtol=1e-3, atol=1e-5)
