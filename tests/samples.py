"""Small made sets of texts and a small WordNet, for tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

CATEGORY = {"adj": 0, "adv": 2, "noun": 5, "verb": 38}


def wordnet_folder(place: Path, synsets: Mapping[str, Sequence[tuple[str, str]]]) -> str:
    """Database files with these meanings: for each kind, words with blanks between them, and a definition."""
    for kind, category in CATEGORY.items():
        lines = ["  1 The licence of WordNet."]
        for i, (words, definition) in enumerate(synsets.get(kind, [])):
            every = words.split()
            fields = " ".join(f"{word} {n:x}" for n, word in enumerate(every))
            lines.append(
                f'{i:08d} {category:02d} {kind[0]} {len(every):02x} {fields} 000 | {definition}; "an example"  '
            )
        (place / f"data.{kind}").write_text("\n".join(lines) + "\n")
    return str(place)


def small_wordnet(place: Path, each: int = 60) -> str:
    """Four categories of `each` definitions that tell them apart."""
    made = {
        kind: [(f"word{i}", f"{kind} meaning number {kind}{i % 7} of {i}") for i in range(each)] for kind in CATEGORY
    }
    return wordnet_folder(place, made)


def text_file(place: Path, rows: int = 120) -> str:
    """A CSV of reviews, good and bad."""
    place.mkdir(parents=True, exist_ok=True)
    words = {"good": "a fine and lovely film", "bad": "a dull and boring mess"}
    lines = [f'"{words[label]}, number {i}",{label}' for i in range(rows) for label in [("good", "bad")[i % 2]]]
    (place / "reviews.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    return str(place / "reviews.csv")


def json_lines(rows: Sequence[object]) -> str:
    return "\n".join(json.dumps(row) for row in rows) + "\n"
