"""Every option of every group trains two steps."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import QUICK
from descent import compose
from descent.folder import read_rows
from test_conf import ALL, for_texts, words

SMALL = {
    "cnn": ["model.widths=[4,8]", "model.dense=8"],
    "convnext_tiny": ["model.widths=[4,8]", "model.blocks=[1,1]"],
    "keras_application": ["model.application=MobileNet", "model.weights=null", "model.size=32"],
    "resnet18": ["model.width=4", "model.blocks=[1,1]"],
    "resnet20": ["model.width=4", "model.blocks=1"],
    "resnet50": ["model.width=4", "model.blocks=[1,1]"],
    "vit_tiny": ["model.width=8", "model.depth=1", "model.heads=2"],
    "wide_resnet": ["model.width=4", "model.widen=2", "model.blocks=1"],
}
ELSEWHERE = ("strategy", "multi_worker")  # of several processes: test_workers.py


@pytest.mark.slow
@pytest.mark.parametrize(("group", "option"), [pair for pair in ALL if pair[0] != "data" and pair != ELSEWHERE])
def test_an_option_trains_two_steps(group: str, option: str, folder):
    needed = ["data.num_classes=null", "regularization=none"] if option in ("mse", "mae", "huber") else []
    needed += for_texts(group, option)
    small = SMALL.get(option, []) if group == "model" else []
    run = compose(*QUICK, "trainer.steps=2", "trainer.batch_size=8", *needed, words(group, option), *small)
    rows = read_rows(run.run(folder).folder / "metrics.jsonl")
    assert rows[-1]["step"] == 2
    assert all(np.isfinite(value) for row in rows for value in row.values())


@pytest.mark.parametrize("name", ["digits", "fashion_mnist"])
def test_real_data_trains_two_steps(name: str, folder):
    run = compose(
        f"data={name}", "trainer.steps=2", "trainer.threads=2", "trainer.jit=false", "logger.tensorboard=null"
    )
    assert run.run(folder).summary["steps"] == 2
