"""Film reviews as Keras keeps them: numbers of words by frequency, and a list of the words."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from descent.data.files import ArraysOnly
from descent.data.text import Corpus, Text
from descent.types import Count, Spec, UserError, part

FILES = ("imdb.npz", "imdb_word_index.json")
CLASSES = ("negative", "positive")


@part
class Imdb(Text):
    """IMDB (Maas et al. 2011): 25,000 + 25,000 film reviews, negative or positive.

    Attributes:
        path: folder with Keras' imdb.npz and imdb_word_index.json; None: where Keras keeps them, or its download.
    """

    own_test: ClassVar[bool] = True

    length: Count = 256
    path: str | None = None

    @property
    def spec(self) -> Spec:
        """As declared, until the files are here."""
        if self.path is not None or _there(_home()):
            return super().spec
        validation = self.held(25_000)
        return Spec(
            kind="text",
            shape=(self.length,),
            sizes={"train": 25_000 - validation, "validation": validation, "test": 25_000},
            num_classes=2,
            class_names=CLASSES,
            mirrors=False,
            vocabulary=self.max_words,
        )

    def source(self) -> Any:
        files = [self._folder() / name for name in FILES]
        return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]

    def _folder(self) -> Path:
        if self.path is not None:
            folder = Path(self.path).expanduser()
            if not _there(folder):
                raise UserError(f"data.path={self.path}: no folder with {' and '.join(FILES)}")
            return folder
        if not _there(_home()):
            _download()
        return _home()

    def read(self) -> Corpus:
        folder = self._folder()
        try:
            index = json.loads((folder / FILES[1]).read_text(encoding="utf-8"))
            words = {number: word for word, number in index.items()}
            with zipfile.ZipFile(folder / FILES[0]) as file:
                columns = [_column(file, name) for name in ("x_train", "y_train", "x_test", "y_test")]
        except (OSError, ValueError, KeyError, AttributeError, zipfile.BadZipFile) as error:
            raise UserError(f"data: {folder} holds no readable {' and '.join(FILES)} ({error})") from error
        texts = [[" ".join(words.get(number, "") for number in review) for review in x] for x in columns[::2]]
        labels = [[int(y) for y in column] for column in columns[1::2]]
        return Corpus(CLASSES, {"train": (texts[0], labels[0]), "test": (texts[1], labels[1])})


def _column(file: zipfile.ZipFile, name: str) -> Any:
    """An array of the file; one of lists is pickled, and read without running what a pickle could hold."""
    with file.open(f"{name}.npy") as raw:
        np.lib.format.read_magic(raw)
        _, _, dtype = np.lib.format.read_array_header_1_0(raw)
        return ArraysOnly(raw).load() if dtype.hasobject else np.frombuffer(raw.read(), dtype)


def _home() -> Path:
    return Path(os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras")) / "datasets"


def _there(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)


def _download() -> None:
    import keras

    try:
        keras.datasets.imdb.load_data()
        keras.datasets.imdb.get_word_index()
    except Exception as error:  # whatever the network raises, the way out is the same
        raise UserError(
            f"data=imdb is not on this machine; two ways to get it: data.path=FOLDER with {' and '.join(FILES)}, "
            "or a network from which Keras can download it"
        ) from error
