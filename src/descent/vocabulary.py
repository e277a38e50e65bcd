"""From texts to ids of words, as `keras.layers.TextVectorization` does it, in plain Python."""

from __future__ import annotations

import collections
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

PADDING, UNKNOWN = "", "[UNK]"  # ids 0 and 1, as Keras calls them
MASKED = "xxmasked"  # stands for a word that would give the label away; never augmented

# Keras lowers ASCII letters alone, drops ASCII punctuation, and splits at ASCII white space.
_PLAIN = str.maketrans(
    {
        **{letter: letter.lower() for letter in string.ascii_uppercase},
        **dict.fromkeys(string.punctuation),
        **dict.fromkeys("\t\n\v\f\r", " "),
    }
)


def words(text: str) -> list[str]:
    """The words of a text: lower case, without punctuation."""
    return [word for word in text.translate(_PLAIN).split(" ") if word]


def flaw(text: Any) -> str:
    """What is wrong with a text, or "". Half a character can be escaped in JSON, but not written down."""
    if not isinstance(text, str) or not words(text):
        return "no words"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "half a character"
    return ""


def learn(texts: Iterable[Sequence[str]], size: int) -> tuple[str, ...]:
    """The word of each id: padding, unknown, then the most frequent words; among equals the last by bytes is first.

    Args:
        texts: each as its words.
        size: number of ids at most, padding and unknown among them.
    """
    counts = collections.Counter(word for text in texts for word in text)
    for special in (PADDING, UNKNOWN):
        counts.pop(special, None)
    ordered = sorted(counts, key=lambda word: (counts[word], word.encode()), reverse=True)
    return (PADDING, UNKNOWN, *ordered[: size - 2])


def encode(texts: Sequence[Sequence[str]], ids: Mapping[str, int], length: int) -> np.ndarray:
    """Ids int32 [m, length] of texts given as words: cut off or padded with 0 at the end."""
    table = np.zeros((len(texts), length), np.int32)
    for row, text in zip(table, texts, strict=True):
        found = [ids.get(word, 1) for word in text[:length]]
        row[: len(found)] = found
    return table
