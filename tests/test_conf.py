"""The config groups: every option is listed here, composes, validates alone and in every pair."""

from __future__ import annotations

import atexit
import dataclasses
import itertools
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.utils import get_class
from PIL import Image

import samples
from descent import Experiment, compose
from descent.experiment import Augmentation

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"

# An option is added here, or these tests fail.
OPTIONS = {
    "data": [
        "breast_cancer",
        "california_housing",
        "cifar10",
        "cifar100",
        "csv_table",
        "csv_text",
        "diabetes",
        "digits",
        "docstrings",
        "fashion_mnist",
        "image_folder",
        "imdb",
        "linear",
        "mnist",
        "synthetic",
        "tfds",
        "wine",
        "wordnet",
    ],
    "augmentation": [
        "cutmix",
        "cutout",
        "flip_crop",
        "mixup",
        "mixup_cutmix",
        "none",
        "randaugment",
        "random_erasing",
        "random_resized_crop",
        "standard",
        "strong",
        "text_eda",
        "trivial_augment",
    ],
    "augmentation/sample": [
        "cutout",
        "flip_crop",
        "none",
        "randaugment",
        "random_erasing",
        "random_resized_crop",
        "standard",
        "strong",
        "text_eda",
        "trivial_augment",
    ],
    "augmentation/batch": ["cutmix", "mixup", "mixup_cutmix", "none"],
    "model": [
        "bag_of_embeddings",
        "cnn",
        "convnext_tiny",
        "gru",
        "keras_application",
        "lstm",
        "mlp",
        "resnet18",
        "resnet20",
        "resnet50",
        "text_cnn",
        "transformer",
        "vit_tiny",
        "wide_resnet",
    ],
    "loss": ["binary_cross_entropy", "cross_entropy", "focal", "huber", "mae", "mse", "poly1"],
    "regularization": [
        "dropout",
        "elastic_net",
        "gradient_noise",
        "l1",
        "l2",
        "label_smoothing",
        "max_norm",
        "none",
        "spatial_dropout",
        "standard",
        "stochastic_depth",
    ],
    "sharpness": ["none", "sam"],
    "clipping": ["adaptive", "global_norm", "none", "norm", "value"],
    "optimizer": [
        "adadelta",
        "adafactor",
        "adagrad",
        "adam",
        "adamax",
        "adamw",
        "amsgrad",
        "lamb",
        "lars",
        "lion",
        "momentum",
        "muon",
        "nadam",
        "nesterov",
        "rmsprop",
        "sgd",
    ],
    "schedule": [
        "constant",
        "cosine",
        "cosine_restarts",
        "custom",
        "exponential",
        "inverse_sqrt",
        "linear",
        "multistep",
        "one_cycle",
        "polynomial",
        "step",
        "warmup_cosine",
        "wsd",
    ],
    "averaging": ["ema", "lookahead", "none", "swa"],
    "trainer": ["default"],
    "strategy": ["mirrored", "multi_worker", "single"],
    "callback": ["batch_preview", "checkpoint", "early_stopping", "histograms", "noise_scale", "plateau", "spike"],
    "logger": ["profile", "tensorboard", "wandb"],
}
# Overlays over the whole config: not parts of a run.
OVERLAYS = {
    "experiment": ["ablation", "docstrings", "fashion_cnn", "finetune", "optimizer_comparison", "recipe"],
    "debug": ["fast", "overfit", "profile"],
    "sweep": ["ablation", "course", "lr_grid", "seeds", "tuned"],
    **{"hydra/help": ["descent"], "hydra/launcher": ["pool", "ray", "submitit"]},
    "hydra/sweeper": ["ablation", "grid", "optuna"],
}
ALL = [(group, option) for group, options in OPTIONS.items() for option in options]
# What a real target needs.
REAL = ("loss=mse", "regularization=none")
NEEDED = {"linear": REAL, "diabetes": REAL, "california_housing": REAL}
TABLES = {*NEEDED, "breast_cancer", "csv_table", "wine"}
TEXTS = {"csv_text", "docstrings", "imdb", "wordnet"}
# What only texts, or only images, can be given to, by design; each refusal names the reason.
FOR_TEXTS = {
    "model": {"bag_of_embeddings", "gru", "lstm", "text_cnn", "transformer"},
    "augmentation": {"text_eda"},
    "augmentation/sample": {"text_eda"},
}
FOR_IMAGES = {
    "model": set(OPTIONS["model"]) - FOR_TEXTS["model"] - {"mlp"},
    "augmentation/sample": set(OPTIONS["augmentation/sample"]) - {"none", "text_eda"},
    "augmentation/batch": {"cutmix", "mixup_cutmix"},
}
FOR_CLASSES = {
    "loss": {"binary_cross_entropy", "cross_entropy", "focal", "poly1"},
    "regularization": {"label_smoothing", "standard"},
}


def words(group: str, option: str) -> str:
    if group in ("callback", "logger"):
        others = {"callback": "checkpoint", "logger": "tensorboard"}
        return f"{group}=[{','.join(dict.fromkeys([others[group], option]))}]"
    return f"{group}={option}"


@cache
def composed(group: str, option: str) -> Experiment:
    return compose(words(group, option), *NEEDED.get(option, ()), *_places(option), *for_texts(group, option))


def for_texts(group: str, option: str) -> list[str]:
    """What options for texts need beside them: texts, a model for them, a WordNet."""
    found = []
    if option in FOR_TEXTS.get(group, ()):
        found += ["data=csv_text", f"data.path={reviews()}"]
    if (group == "data" and option in TEXTS) or option == "text_eda":
        found += ["model=bag_of_embeddings"]
    return [*found, f"augmentation.sample.wordnet={dictionary()}"] if option == "text_eda" else found


def _places(option: str) -> list[str]:
    if option == "docstrings":
        return ["data.files=8", "data.largest=60"]
    if option == "csv_text":
        return [f"data.path={reviews()}"]
    if option == "wordnet":
        return [f"data.path={dictionary()}"]
    if option == "csv_table":
        return [f"data.path={spreadsheet()}", "data.target=label"]
    if option == "tfds":
        return ["data.name=prepared", f"data.path={prepared()}"]
    return [f"data.path={photographs()}"] if option == "image_folder" else []


@cache
def spreadsheet() -> Path:
    path = photographs() / "table.csv"
    path.write_text("x,label\n" + "".join(f"{i},{'ab'[i % 2]}\n" for i in range(400)))
    return path


@cache
def photographs() -> Path:
    """Two classes of images, more than a batch of each; gone when the tests end."""
    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    for name in ("cat", "dog"):
        (root / name).mkdir()
        for i in range(200):
            Image.new("RGB", (2, 2)).save(root / name / f"{i}.png")
    return root


@cache
def prepared() -> Path:
    """What lies beside the files of a set of tensorflow-datasets, and is all that composing reads."""
    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    place = root / "prepared/1.0.0"
    place.mkdir(parents=True)
    splits = [{"name": name, "shardLengths": ["300"]} for name in ("train", "test")]
    image = {"image": {"shape": {"dimensions": ["8", "8", "3"]}}}
    features = {"features": {"image": image, "label": {"classLabel": {"numClasses": "2"}}}}
    (place / "dataset_info.json").write_text(json.dumps({"splits": splits}))
    (place / "features.json").write_text(json.dumps({"featuresDict": features}))
    return root


def _folder() -> Path:
    """One that is gone when the tests end."""
    root = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root


@cache
def reviews() -> str:
    return samples.text_file(_folder())


@cache
def dictionary() -> str:
    return samples.small_wordnet(_folder())


def field(group: str) -> str:
    return group.split("/")[0]


def test_every_option_file_has_a_row_here():
    found = {
        str(folder.relative_to(CONF)): sorted(p.stem for p in folder.glob("*.yaml"))
        for folder in CONF.rglob("*")
        if folder.is_dir() and list(folder.glob("*.yaml"))
    }
    assert found == OPTIONS | OVERLAYS


@pytest.mark.parametrize(("group", "option"), ALL)
def test_every_option_composes(group: str, option: str):
    assert isinstance(composed(group, option), Experiment)


@pytest.mark.parametrize(("group", "option"), [pair for pair in ALL if pair[0] != "augmentation"])
def test_an_option_file_shows_every_key_with_a_comment(group: str, option: str):
    text = (CONF / group / f"{option}.yaml").read_text()
    content = yaml.safe_load(text)
    node = content if "_target_" in content else next(iter(content.values()))
    fields = {f.name for f in dataclasses.fields(get_class(node["_target_"]))}
    assert set(node) - {"_target_"} == fields
    assert text.startswith("#")
    for line in text.splitlines():
        assert line.strip().split(":")[0] not in fields or "#" in line, line


def kind_of(pair: tuple[tuple[str, str], ...]) -> str:
    """Of the data that a pair is tried on: its own, or what its other options are for."""
    for group, option in pair:
        if group == "data":
            return "text" if option in TEXTS else "tabular" if option in TABLES else "image"
    return "text" if any(option in FOR_TEXTS.get(group, ()) for group, option in pair) else "image"


def base_of(pair: tuple[tuple[str, str], ...]) -> Experiment:
    """A run that each option of the pair is put into."""
    given = [option for group, option in pair if group == "data" and option in {*TABLES, *TEXTS}]
    return composed("data", given[0] if given else "csv_text" if kind_of(pair) == "text" else "digits")


def refused(first: tuple[str, str], second: tuple[str, str]) -> str:
    """What a refusal of this pair says, or "" where it must validate."""
    (group, data), (h, b) = sorted((first, second), key=lambda pair: pair[0] != "data")
    pair = (first, second)
    kind = kind_of(pair)
    if kind != "image" and any(b in FOR_IMAGES.get(h, ()) or (h, b, kind) == ("model", "mlp", "text") for h, b in pair):
        return f"this is {kind}|this data is {kind}"
    if kind != "text" and any(b in FOR_TEXTS.get(h, ()) for h, b in pair):
        return f"is for text data, and this is {kind}"
    if group != "data":
        return ""
    if data in NEEDED and b in FOR_CLASSES.get(h, ()):
        return "real targets"
    return ""


def test_every_pair_of_options_of_different_groups_validates():
    checked = 0
    for (g, a), (h, b) in itertools.combinations([pair for pair in ALL if pair[0] != "augmentation"], 2):
        if g == h:
            continue
        base = base_of(((g, a), (h, b)))
        if reason := refused((g, a), (h, b)):
            with pytest.raises(ValueError, match=reason):
                paired(base, (g, a), (h, b))
        else:
            assert isinstance(paired(base, (g, a), (h, b)), Experiment)
        checked += 1
    assert checked > 600


def paired(base: Experiment, *choices: tuple[str, str]) -> Experiment:
    changes: dict[str, Any] = {}
    for group, option in choices:
        part = composed(group, option)
        if group.startswith("augmentation/"):
            side = group.split("/")[1]
            before = changes.get("augmentation", base.augmentation)
            sides = {"sample": before.sample, "batch": before.batch} | {side: getattr(part.augmentation, side)}
            changes["augmentation"] = Augmentation(**sides)
        else:
            changes[field(group)] = getattr(part, field(group))
    return dataclasses.replace(base, **changes)


def test_a_group_is_a_folder_a_module_a_field_and_a_test():
    names = {field(group) for group in OPTIONS}
    modules = {p.stem for p in (ROOT / "src/descent").iterdir()}
    fields = {f.name for f in dataclasses.fields(Experiment)}
    tested = " ".join(p.name for p in (ROOT / "tests").glob("test_*.py"))
    assert names <= modules
    assert fields - names == {"seed", "init_from", "name", "tags"}
    elsewhere = {"augmentation", "trainer", "strategy"}  # test_mixing, test_image_augmentation; test_session
    assert [name for name in sorted(names - elsewhere) if f"test_{name}.py" not in tested] == []


def test_fields_stand_in_the_order_data_flows():
    order = [f.name for f in dataclasses.fields(Experiment)]
    flow = [
        "data",
        "augmentation",
        "model",
        "loss",
        "regularization",
        "sharpness",
        "clipping",
        "optimizer",
        "schedule",
        "averaging",
    ]
    assert order[: len(flow)] == flow
    defaults = [next(iter(d)) for d in yaml.safe_load((CONF / "train.yaml").read_text())["defaults"] if d != "_self_"]
    assert [name for name in defaults if name in fields_of_a_run()] == [n for n in order if n in fields_of_a_run()]


def fields_of_a_run() -> set[str]:
    return {field(group) for group in OPTIONS}


NUMERIC = ("optimizer.learning_rate", "trainer.batch_size", "seed", "regularization.l2", "schedule.floor")


@pytest.mark.parametrize("key", NUMERIC)
@pytest.mark.parametrize("value", ["true", "'3'"])
def test_a_number_is_neither_a_boolean_nor_a_string(key: str, value: str):
    from descent import UserError

    with pytest.raises(UserError, match=key):
        compose(f"{key}={value}")
