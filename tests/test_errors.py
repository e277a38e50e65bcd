"""Bad configs: one line that names the key, the value and what would be right."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from descent import UserError, compose

ROOT = Path(__file__).resolve().parents[1]

BAD = {
    "optimzer=adam": "optimzer: there is no such group or key; did you mean optimizer?",
    "optimizer=adamm": "optimizer=adamm: there is no such option; did you mean adam?",
    "optimizer=zzz": "optimizer=zzz: there is no such option; "
    "choose one of adadelta, adafactor, adagrad, adam, adamax, adamw, amsgrad, lamb, lars, lion, momentum, muon, "
    "nadam, nesterov, rmsprop, sgd",
    "optimizer.lr=0.1": "optimizer.lr: there is no such key; did you mean optimizer.learning_rate?",
    "lr=0.1": "lr: there is no such group or key; did you mean optimizer.learning_rate?",
    "batch_size=3": "batch_size: there is no such group or key; did you mean trainer.batch_size?",
    "optimizer=sgd optimizer.beta_1=0.9": "optimizer.beta_1: there is no such key; "
    "choose one of centralize, decay_all, fold_rate, frozen, layer_decay, learning_rate, momentum, multipliers, "
    "nesterov, unfreeze, weight_decay",
    "traner.epochs=3": "traner.epochs: there is no such key; did you mean trainer.epochs?",
    "+model.depth=3": "model.depth: there is no such key; choose one of activation, initializer, "
    "norm, residual, widths",
    "+optimizer.learning_rate=3": "+optimizer.learning_rate: the key is there already; leave out the +",
    "optimizer.learning_rate=-1": "optimizer.learning_rate=-1: should be above 0",
    "optimizer.learning_rate=fast": "optimizer.learning_rate=fast: should be a number",
    "optimizer.learning_rate=true": "optimizer.learning_rate=true: should be a number",
    "optimizer.learning_rate=.nan": "optimizer.learning_rate=.nan: should be a number",
    "regularization.dropout=1": "regularization.dropout=1: should be a rate from 0 to below 1, "
    "or a list of them, one for each layer",
    "trainer.batch_size=0": "trainer.batch_size=0: should be at least 1",
    "trainer.batch_size=5000": "trainer.batch_size=5000 is more than the 1168 training samples; at most 1168",
    "trainer.jit=maybe": "trainer.jit=maybe: should be true, false or auto",
    "trainer.epochs=3 trainer.steps=4": "trainer: epochs=3 and steps=4 are both given: "
    "set one of them and the other to null",
    "seed=1.5": "seed=1.5: should be a whole number",
    "name=a/b": "name=a/b: should be letters, digits and . + = , @ - _ only: it names a folder",
    "model.widths=3": "model.widths=3: should be a list, as in [64,32]",
    "model.widths=[64,-1]": "model.widths[1]=-1: should be at least 1",
    "model.activation=rleu": "model.activation=rleu: should be 'relu', 'gelu', 'silu' or 'tanh'",
    "optimizer=muon optimizer.spared=['(']": "optimizer.spared[0]=(: should be a regular "
    "expression (missing ), unterminated subpattern at position 0)",
    "augmentation/sample=random_erasing augmentation.sample.value=[0.1,0.2,0.3]": "augmentation.sample.value="
    "[0.1, 0.2, 0.3]: should be one number, or one a channel (1)",
    "data.fold=1500 data.folds=2000": "data: no samples are left for the validation split",
    "model._target_=no.Such": "model._target_=no.Such: no such class can be imported",
    "averaging._target_=descent.loss.CrossEntropy": "averaging=CrossEntropy: should be a part of the kind Averaging",
    "schedule.warmup=5epochs": "schedule.warmup=5epochs: should be a fraction of the run from 0 to 1, "
    'or like "500st" (steps) or "5ep" (epochs)',
    "schedule.warmup=0.7 schedule.cooldown=0.6": "schedule.warmup + schedule.cooldown = 1.3 of the run; "
    "together at most 1",
    "schedule.warmup=30ep schedule.cooldown=20ep": "schedule.warmup + schedule.cooldown = 1.25 of the run; "
    "together at most 1",
    "callback.early_stopping.monitor=val/acc": "callback.early_stopping.monitor=val/acc is not evaluated; "
    "choose one of val/loss, val/accuracy",
    "data=synthetic data.num_classes=null augmentation=mixup loss=mse regularization=none": (
        "augmentation/batch: made for class labels, and this data has real targets; use augmentation/batch=none"
    ),
    "data=synthetic data.num_classes=null loss=mse": "regularization.label_smoothing: made for class labels, "
    "and this data has real targets; use regularization.label_smoothing=0",
    "data=synthetic data.num_classes=null regularization=none": "loss: made for class labels, "
    "and this data has real targets; use loss=mse",
    "data=synthetic data.num_classes=null": "loss and regularization.label_smoothing: made for class labels, "
    "and this data has real targets; use loss=mse regularization.label_smoothing=0",
    "data.validation=0.6 data.test=0.5": "data: validation + test = 1.1 should leave samples to train on",
    "callback=[checkpoint,earlystopping]": "callback: there is no option earlystopping; did you mean early_stopping?",
    "logger=[x]": "logger: there is no option x; choose one of profile, tensorboard, wandb",
    "seed=0,1": "seed=0,1: to sweep over these values add -m; as a list, write seed=[0,1]",
    "schedule=": "schedule=: there is no such option; choose one of "
    + ", ".join(sorted(path.stem for path in (ROOT / "conf/schedule").glob("*.yaml"))),
    "optimizer=null": "a group cannot be null; choose an option (`none` where it can be off)",
    "optimizer.learning_rate": "optimizer.learning_rate: not an override; "
    "write key=value, and quote what has spaces or brackets",
    "augmentation=mixup augmentation.batch.mixup_alpha=0.0": "augmentation.batch: mixup_alpha or cutmix_alpha "
    "should be above 0 (or choose augmentation/batch=none)",
    "clipping=global_norm clipping.max_norm=0": "clipping.max_norm=0: should be above 0",
    "averaging=ema averaging.decay=1": "averaging.decay=1: should be below 1",
    "optimizer=adam optimizer.beta_1=1.2": "optimizer.beta_1=1.2: should be below 1",
    "+callback.other={_target_:descent.callback.Checkpoint}": "callback.other: callback.checkpoint is a Checkpoint "
    "already",
    "callback.checkpoint.keep=0": "callback.checkpoint.keep=0: should be at least 1",
    "callback.early_stopping.mode=up": "callback.early_stopping.mode=up: should be 'auto', 'min' or 'max'",
    "augmentation/sample=standard augmentation.sample.rotation=-3": "augmentation.sample.rotation=-3: "
    "should be at least 0",
    "model=vit_tiny model.width=10": "model: width=10 is no multiple of heads=3",
    "model=lstm": "model: Lstm is for text data, and this is image; use model=cnn",
    "trainer.precision=float16": "trainer.precision=float16: should be 'float32', 'mixed_bfloat16' or 'mixed_float16'",
    "trainer.accumulate=3": "trainer: batch_size=32 should be a multiple of accumulate=3",
    "loss=focal loss.class_weights=[1,2]": "loss.class_weights has 2 factors, and the data has 10 classes",
    "sharpness=sam sharpness.rho=0": "sharpness.rho=0: should be above 0",
}


@pytest.mark.parametrize("overrides", BAD)
def test_a_bad_config_is_one_line(overrides: str):
    with pytest.raises(UserError) as caught:
        compose(*overrides.split())
    assert str(caught.value) == BAD[overrides]


def train(*words: str, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "train.py"), *words]
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "words",
    [
        ["optimizer.learning_rate=-1"],
        ["optimizer=adamm"],
        ["-m", "optimizer=sgd,adam", "seed=0,x"],
        ["resume=nowhere"],
        ["init_from=nowhere"],
        ["trainer.epochs=1", "trainer.steps=1"],
    ],
)
def test_a_mistake_costs_no_tensorflow_and_leaves_nothing(words: list[str], poisoned, tmp_path: Path):
    name = f"mistake{time.time_ns()}"
    done = train(*words, f"name={name}", env=poisoned, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not (ROOT / "outputs" / name).exists()
    assert {p.name for p in tmp_path.iterdir()} == {"tensorflow", "keras"}


@pytest.mark.parametrize("words", [["--cfg", "job"], ["--help"], ["--cfg", "job", "--resolve"]])
def test_help_and_config_cost_no_tensorflow(words: list[str], poisoned, tmp_path: Path):
    done = train(*words, env=poisoned, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "learning_rate" in done.stdout


def test_a_sweep_names_the_job_that_is_wrong(poisoned, tmp_path: Path):
    done = train("-m", "optimizer=sgd,adam", "seed=0,x", "name=never", env=poisoned, cwd=tmp_path)
    assert done.stderr == "error: job 2 (optimizer=sgd seed=x name=never): seed=x: should be a whole number\n"


def test_a_mistake_that_only_the_model_shows_is_one_line_too(tmp_path: Path):
    folder = tmp_path / "run"
    done = train("optimizer.frozen=nothing", f"hydra.run.dir={folder}", env=dict(os.environ), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: optimizer.frozen: nothing matches none of dense_0/kernel,")
    assert done.stderr.count("\n") == 1
    assert not folder.exists()
