"""Texts with a class each: cut into splits, their vocabulary learned on the training split, cached, kept with a run."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, Self

import numpy as np
from pydantic import Field

from descent import seeds, vocabulary
from descent.data.arrays import Arrays, Pair, Splitting, cut, share_of
from descent.folder import write_atomic
from descent.types import SPLITS, Count, Share, Spec, Split, UserError, part

FILE = "vocabulary.json"
VERSION = 2  # of what is cached: raised when the same settings should give something else


class Corpus(NamedTuple):
    """Texts and their class numbers, in the splits that are given; what was left out, in words.

    Attributes:
        digest: of all texts and labels.
    """

    class_names: tuple[str, ...]
    splits: dict[Split, tuple[list[str], list[int]]]
    remarks: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps([self.class_names, self.splits]).encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Fit:
    """What is known of a source once it is read: sizes, classes, the word of each id; and the encoded splits."""

    sizes: dict[Split, int]
    class_names: tuple[str, ...]
    words: tuple[str, ...]
    digest: str
    remarks: tuple[str, ...]
    arrays: Path | dict[Split, Pair]


@part
class Text(Splitting):
    """What all sources of texts have in common. Validation (and test, if there is none) are cut out, stratified.

    Attributes:
        length: words of a text that are kept; shorter ones are padded.
        max_words: size of the vocabulary at most, with the ids of padding (0) and the unknown word (1).
        vocabulary: a vocabulary.json of an earlier run to use; None: learned on the training split.
        validation: share of all texts cut out for validation, stratified; unused with `fold`.
        test: share of all texts cut out for the test, stratified; unused where there is a test split.

    Raises:
        UserError: the texts are not there, or a vocabulary cannot be read.
    """

    length: Count = 64
    max_words: Annotated[Count, Field(ge=3)] = 10_000
    vocabulary: str | None = None
    test: Share = 0.1

    own_test: ClassVar[bool] = False  # whether the set comes with a test split

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vocabulary is not None:  # a run names its own copy later, and where a file is makes no other run
            object.__setattr__(self, "vocabulary", str(Path(self.vocabulary).expanduser().absolute()))
        if self.fold is None and not self.own_test and self.validation + self.test >= 1:
            raise ValueError(f"validation + test = {self.validation + self.test:g} should leave texts to train on")

    def source(self) -> Any:
        """Plain data that says which texts these are, found without reading them: the key of the cache."""
        raise NotImplementedError

    def read(self) -> Corpus:
        """The texts, in the splits that the set has."""
        raise NotImplementedError

    # --- what a source is ---

    @property
    def spec(self) -> Spec:
        fit = self.fitted
        return Spec(
            kind="text",
            shape=(self.length,),
            sizes=fit.sizes,
            num_classes=len(fit.class_names),
            class_names=fit.class_names,
            mirrors=False,
            vocabulary=len(fit.words),
            words=fit.words,
        )

    def open(self) -> Arrays:
        fit = self.fitted
        for remark in (*fit.remarks, *self._changed()):
            print(f"data: {remark}", flush=True)
        return Arrays(self.spec, _load(fit.arrays) if isinstance(fit.arrays, Path) else fit.arrays)

    def _changed(self) -> tuple[str, ...]:
        """What there is to say where the vocabulary is a run's whose texts were others."""
        if self.vocabulary is None or _kept(self.vocabulary).get("data", self.fitted.digest) == self.fitted.digest:
            return ()
        return (f"{self.vocabulary} is of other texts than these are now: that run's splits were others, too",)

    def encode(self, texts: list[str]) -> np.ndarray:
        """Ids int32 [m, length] of any texts, with the vocabulary of this source."""
        ids = {word: i for i, word in enumerate(self.known)}
        return vocabulary.encode([vocabulary.words(text) for text in texts], ids, self.length)

    @cached_property
    def known(self) -> tuple[str, ...]:
        """The word of each id; of a vocabulary that is given, without reading the texts."""
        return _given(self.vocabulary) or self.fitted.words

    # --- what is fitted, and kept with a run ---

    def prepare(self) -> None:
        _ = self.fitted

    def digest(self) -> str:
        return self.fitted.digest

    def keep(self, folder: Path) -> None:
        fit = self.fitted
        content = {"data": fit.digest, "length": self.length, "words": fit.words}
        write_atomic(folder / FILE, json.dumps(content, ensure_ascii=False, indent=0) + "\n")

    def kept(self, folder: Path) -> Self:
        return dataclasses.replace(self, vocabulary=str(folder / FILE)) if (folder / FILE).is_file() else self

    @cached_property
    def fitted(self) -> Fit:
        """Read once and cached under the user's caches, by what the texts are and how they are cut."""
        given = _given(self.vocabulary)
        settings = [VERSION, type(self).__name__, self.source(), self._cutting(), given]
        name = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:20]
        return _cached(name) or _stored(name, self._fit(given))

    def _cutting(self) -> list[Any]:
        own = ("length", "max_words", "validation", "test", "split_seed", "fold", "folds")
        return [getattr(self, name) for name in own]

    def _fit(self, given: tuple[str, ...] | None) -> Fit:
        corpus = self.read()
        splits = self._cut(corpus)
        tokens = {split: [vocabulary.words(text) for text in texts] for split, (texts, _) in splits.items()}
        learned = given or vocabulary.learn(tokens["train"], self.max_words)
        ids = {word: i for i, word in enumerate(learned)}
        arrays: dict[Split, Pair] = {
            split: (vocabulary.encode(tokens[split], ids, self.length), np.array(splits[split][1], np.int32))
            for split in SPLITS
        }
        sizes: dict[Split, int] = {split: len(labels) for split, (_, labels) in arrays.items()}
        return Fit(sizes, corpus.class_names, learned, corpus.digest, corpus.remarks, arrays)

    def texts(self) -> dict[Split, tuple[list[str], list[int]]]:
        """The raw texts and class numbers of each split, as they are cut: for a baseline on the same split."""
        return self._cut(self.read())

    def _cut(self, corpus: Corpus) -> dict[Split, tuple[list[str], list[int]]]:
        """All three splits: the given ones, and the others cut out of the training texts."""
        splits, rng = dict(corpus.splits), seeds.host(self.split_seed, "split")
        total = len(splits["train"][1])
        if "test" not in splits:
            labels = np.array(splits["train"][1])
            taken = cut(labels, share_of(total - 1, self.test, total), rng)
            splits["train"], splits["test"] = _divided(splits["train"], taken)
        if "validation" not in splits:
            taken = self.hold(np.array(splits["train"][1]), rng, total)
            splits["train"], splits["validation"] = _divided(splits["train"], taken)
        return splits


Texts = tuple[list[str], list[int]]


def _divided(pair: Texts, taken: np.ndarray) -> tuple[Texts, Texts]:
    def part(wanted: bool) -> Texts:
        which = np.flatnonzero(taken == wanted)
        return [pair[0][i] for i in which], [pair[1][i] for i in which]

    return part(False), part(True)


def _given(path: str | None) -> tuple[str, ...] | None:
    """The words of a vocabulary that a run kept."""
    if path is None:
        return None
    found = tuple(_kept(path)["words"])
    if found[:2] != (vocabulary.PADDING, vocabulary.UNKNOWN):
        raise UserError(f"data.vocabulary={path}: should begin with padding and [UNK]")
    return found


def _kept(path: str) -> dict[str, Any]:
    try:
        content = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
        return {**content, "words": list(content["words"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"data.vocabulary={path}: not a readable vocabulary of a run ({error})") from error


# --- the cache ---


def _place() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "descent"


def _cached(name: str) -> Fit | None:
    """What is remembered; None when it is missing or damaged."""
    try:
        facts = json.loads((_place() / f"text-{name}.json").read_text(encoding="utf-8"))
        arrays = _place() / f"text-{name}.npz"
        if not zipfile.is_zipfile(arrays) or arrays.stat().st_size != facts.pop("bytes"):
            return None
        names = {name: tuple(facts[name]) for name in ("class_names", "words", "remarks")}
        return Fit(sizes=facts["sizes"], digest=facts["digest"], arrays=arrays, **names)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _stored(name: str, fit: Fit) -> Fit:
    """Writes it down; a cache that cannot be written costs time, nothing else."""
    assert isinstance(fit.arrays, dict)
    with contextlib.suppress(OSError):
        _place().mkdir(parents=True, exist_ok=True)
        arrays = _place() / f"text-{name}.npz"
        columns = {
            f"{split}_{kind}": x for split, pair in fit.arrays.items() for kind, x in zip("xy", pair, strict=True)
        }
        with tempfile.NamedTemporaryFile(dir=_place(), suffix=".tmp", delete=False) as file:
            np.savez_compressed(file, **columns)  # type: ignore[arg-type]
        os.replace(file.name, arrays)
        facts = {f.name: getattr(fit, f.name) for f in dataclasses.fields(fit) if f.name != "arrays"}
        write_atomic(_place() / f"text-{name}.json", json.dumps({**facts, "bytes": arrays.stat().st_size}))
    return fit


def _load(path: Path) -> Mapping[Split, Pair]:
    with np.load(path, allow_pickle=False) as file:
        return {split: (file[f"{split}_x"], file[f"{split}_y"]) for split in SPLITS}
