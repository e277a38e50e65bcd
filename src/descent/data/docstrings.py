"""Docstrings of installed libraries: which library is it from? Read from source files, without importing any."""

from __future__ import annotations

import ast
import hashlib
import re
import warnings
import zlib
from collections.abc import Iterable, Iterator
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import numpy as np

from descent import vocabulary
from descent.data.text import Corpus, Text
from descent.types import Count, Share, part

# Packages that a default installation has, by the name they are imported under, with the names of their distributions.
LIBRARIES = {
    "PIL": "pillow",
    "keras": "keras",
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "pandas": "pandas",
    "pydantic": "pydantic",
    "rich": "rich",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "tensorboard": "tensorboard",
    "tensorflow": "tensorflow",
    "wandb": "wandb",
}
# Names that would give the library away, whole words in any case, also with what is joined by dots or underscores.
NAMES = (
    "pil", "pillow", "keras", "matplotlib", "mpl", "pyplot", "plt", "numpy", "np", "ndarray", "pandas", "pd",
    "pydantic", "rich", "scipy", "sp", "sklearn", "scikit", "scikit-learn", "skl", "tensorboard", "tb", "tensorflow",
    "tf", "wandb", "w&b", "weights & biases",
)  # fmt: skip
_NAME = re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(map(re.escape, NAMES))})(?![A-Za-z0-9])", re.IGNORECASE)
SKIPPED = ("tests", "_api", "test", "testing", "_vendor", "vendor", "externals", "proto", "api")

LARGEST = 70_000  # bytes of a source file: parsing takes a second for each 4 MB
SHINGLE, HASHES, BAND = 3, 16, 4  # words of a shingle; hashes of a text, in bands of so many
ALIKE = 0.7  # share of common shingles (Jaccard) from which two texts are near-duplicates


@part
class Docstrings(Text):
    """Which of twelve libraries a docstring is from, with the names of the libraries masked.

    The source files of installed core dependencies are parsed, not imported; of each library at most `files`, chosen
    by a hash of their paths. Texts of fewer than `shortest` words are left out, and so are near-duplicates: of two
    texts whose sets of three-word runs have 70 % in common (MinHash, Broder 1997), the later one. The versions of the
    libraries decide what is read, so a run keeps the digest of its texts, and says where they have changed.

    Attributes:
        files: of a library at most, before parsing.
        largest: docstrings of a library at most.
        shortest: words of a docstring at least.
    """

    length: Count = 128
    validation: Share = 0.1
    test: Share = 0.1
    files: Count = 300
    largest: Count = 6_000
    shortest: Count = 8

    def encode(self, texts: list[str]) -> np.ndarray:
        return super().encode([masked(text) for text in texts])

    def source(self) -> Any:
        versions = {name: _version(distribution) for name, distribution in LIBRARIES.items()}
        return [versions, self.files, self.largest, self.shortest]

    def read(self) -> Corpus:
        print("data: the docstrings of installed libraries are read, once", flush=True)
        texts: list[str] = []
        labels: list[int] = []
        for label, files in enumerate(_files(name, self.files) for name in LIBRARIES):
            own = [text for file in files for text in docstrings(file) if self._long_enough(text)]
            texts += own
            labels += [label] * len(own)
        return self._chosen(texts, labels)

    def _long_enough(self, text: str) -> bool:
        return len(vocabulary.words(text)) >= self.shortest

    def _chosen(self, texts: list[str], labels: list[int]) -> Corpus:
        """Without near-duplicates, and of each library the first `largest` in the order of a hash."""
        kept = distinct([vocabulary.words(text)[: self.length] for text in texts])
        order = sorted(kept, key=lambda i: (labels[i], hashlib.sha256(texts[i].encode()).digest()))
        counts: dict[int, int] = {}
        chosen = []
        for i in order:
            counts[labels[i]] = counts.get(labels[i], 0) + 1
            if counts[labels[i]] <= self.largest:
                chosen.append(i)
        remark = f"{len(texts) - len(kept):,} of {len(texts):,} docstrings are near-duplicates and left out"
        pair = [texts[i] for i in chosen], [labels[i] for i in chosen]
        return Corpus(tuple(LIBRARIES), {"train": pair}, (remark,))


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "none"


def _files(name: str, most: int) -> list[str]:
    """At most so many source files of a package, by a hash of their paths inside it, so that all parts are met."""
    spec = PathFinder.find_spec(name)  # not util.find_spec: an imported package may have changed its own path
    roots = [Path(place) for place in (spec.submodule_search_locations or [] if spec else [])]
    found = [(path.relative_to(root).as_posix(), path) for root in roots for path in root.rglob("*.py")]
    good = [
        (inner, path)
        for inner, path in found
        if not set(inner.split("/")[:-1]) & set(SKIPPED) and path.stat().st_size <= LARGEST
    ]
    good.sort(key=lambda pair: hashlib.sha256(pair[0].encode()).digest())
    return [str(path) for _, path in good[:most]]


def docstrings(path: str) -> list[str]:
    """The docstrings of a source file, masked; none of a file that cannot be parsed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in other people's strings
            tree = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    return [masked(text) for text in (ast.get_docstring(node) for node in _documented(tree)) if text]


def _documented(node: Any) -> Iterator[Any]:
    """A module, its classes and functions, and those inside them; expressions are passed over, to save time."""
    yield node
    for inner in node.body:
        if isinstance(inner, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _documented(inner)


def masked(text: str) -> str:
    """The text without the names of libraries. Dots and underscores part words, so that `np.sum` keeps its `sum`."""
    return _NAME.sub(f" {vocabulary.MASKED} ", re.sub(r"[._/]", " ", text))


# --- near-duplicates ---


def distinct(texts: list[list[str]]) -> list[int]:
    """Which texts are no near-duplicate of an earlier one: candidates by MinHash in bands, then the Jaccard index."""
    shingles = [_shingles(text) for text in texts]
    bands: list[dict[bytes, int]] = [{} for _ in range(HASHES // BAND)]
    kept = []
    for i, signature in enumerate(_signatures(shingles)):
        keys = list(signature)
        earlier = {table[key] for table, key in zip(bands, keys, strict=True) if key in table}
        if any(_jaccard(shingles[i], shingles[j]) >= ALIKE for j in earlier):
            continue
        kept.append(i)
        for table, key in zip(bands, keys, strict=True):
            table.setdefault(key, i)
    return kept


def _shingles(text: list[str]) -> frozenset[int]:
    runs = zip(*(text[i:] for i in range(SHINGLE)), strict=False)
    return frozenset(zlib.crc32(" ".join(run).encode()) for run in runs) or frozenset([0])


def _signatures(shingles: Iterable[frozenset[int]]) -> Iterator[list[bytes]]:
    """MinHash signatures in bands: the least of each of a few hash functions over a text's shingles."""
    rng = np.random.Generator(np.random.Philox(key=0))
    factors = rng.integers(1, 2**31, HASHES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    offsets = rng.integers(0, 2**31, HASHES, dtype=np.uint64)
    for own in shingles:
        values = np.fromiter(own, np.uint64, len(own))[:, None] * factors + offsets
        least = (values >> np.uint64(32)).min(axis=0)
        yield [least[i : i + BAND].tobytes() for i in range(0, HASHES, BAND)]


def _jaccard(a: frozenset[int], b: frozenset[int]) -> float:
    common = len(a & b)
    return common / (len(a) + len(b) - common)
