"""Weights that a new run starts from (`init_from`): those of another run, or of a Keras file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from etils import epy

from descent import checkpoint
from descent.types import UserError

with epy.lazy_imports():
    import keras

if TYPE_CHECKING:
    from descent.experiment import Experiment
    from descent.state import State

Weights = Mapping[str, np.ndarray]
SHOWN = 6  # variables named in a line of the report


def place(source: str) -> Path:
    """Where the weights of `init_from` are: what a run folder tested, else its newest checkpoint.

    Raises:
        UserError: there are none.
    """
    path = Path(source).expanduser()
    if path.suffix == ".keras" and path.is_file():
        return path
    folder = path / "checkpoints"
    if (folder / "best").is_dir():
        return folder / "best"
    if steps := checkpoint.steps(folder):
        return folder / f"step-{steps[0]:06d}"
    if (path / checkpoint.MANIFEST).is_file():
        return path
    raise UserError(f"init_from={source}: neither a run folder, nor one of its checkpoints, nor a .keras file")


def checked(run: Experiment) -> Experiment:
    """The run, once it is seen that the weights it is to start from are there, and of its own vocabulary.

    Raises:
        UserError: they are not.
    """
    if run.init_from is not None:
        _check_words(run.init_from, place(run.init_from), run.data.spec.words)
    return run


def _check_words(source: str, weights: Path, words: Sequence[str]) -> None:
    """An embedding has a row for each word: of another vocabulary it would fit in shape alone."""
    kept = weights.parents[1] / "vocabulary.json"
    if words and kept.is_file() and tuple(json.loads(kept.read_text(encoding="utf-8"))["words"]) != tuple(words):
        raise UserError(f"init_from={source}: its embeddings are of other words; add data.vocabulary={kept}")


def read(source: str) -> Weights:
    """The weights by the path of their variable. Of a checkpoint, those that were best so far if there are any.

    Raises:
        UserError: there are none, or they are damaged.
    """
    path = place(source)
    if path.suffix == ".keras":
        return _of_file(path)
    if not path.name.startswith("step-"):
        return dict(zip(*checkpoint.named_weights(path), strict=True))
    try:
        saved = checkpoint.read(path)
    except checkpoint.Damaged as error:
        raise UserError(f"init_from={source}: {path.name}: {error}") from error
    kind = "best" if saved.arrays["best"] else "model"
    return {about["path"]: a for about, a in zip(saved.about["variables"][kind], saved.arrays[kind], strict=True)}


def _of_file(path: Path) -> Weights:
    from descent.model import layers  # noqa: F401  (its layers register themselves)

    try:
        model = keras.saving.load_model(path, compile=False)
    except (ValueError, OSError, TypeError) as error:
        raise UserError(f"init_from={path}: no model can be read from it: {' '.join(str(error).split())}") from error
    return {v.path: np.asarray(v.value) for v in model.variables}


def put(state: State, given: Weights, source: str) -> list[str]:
    """Gives every variable of the model the weights of its path and shape; returns what matched and what did not.

    Raises:
        UserError: nothing matches.
    """
    variables = [v for v in state.model.variables if not v.path.endswith("seed_generator_state")]  # of the seed
    matched = [v for v in variables if v.path in given and tuple(v.shape) == given[v.path].shape]
    if not any(v.trainable for v in matched):
        raise UserError(f"init_from={source}: none of its variables has the path and shape of one of this model")
    for variable in matched:
        variable.assign(given[variable.path])
    state.averager.reset()
    return _report(variables, {v.path for v in matched}, given, source)


def _report(variables: Sequence[keras.Variable], matched: set[str], given: Weights, source: str) -> list[str]:
    sizes = {v.path: int(np.prod(v.shape)) for v in variables}
    share = sum(sizes[path] for path in matched) / sum(sizes.values())
    fresh = [
        f"{v.path} {tuple(v.shape)}" + (f", there {given[v.path].shape}" if v.path in given else "")
        for v in variables
        if v.path not in matched
    ]
    lines = [f"init_from: {len(matched)} of {len(sizes)} variables, {share:.1%} of the weights, are those of {source}"]
    lines += [f"init_from: as initialised: {_named(fresh)}"] if fresh else []
    unused = [path for path in given if path not in sizes]
    return lines + ([f"init_from: not used: {_named(unused)}"] if unused else [])


def _named(names: Iterable[str]) -> str:
    shown = list(names)
    return "; ".join(shown[:SHOWN]) + (f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else "")
