"""WordNet's database files (Fellbaum 1998; format: `man 5 wndb`), read without its index, names and senses.

Debian's `wordnet-base` has the `data.*` files alone, which hold all that is needed: a line for each set of synonyms,
with its file number, its words and its definition.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

DEBIAN = Path("/usr/share/wordnet")
FILES = ("data.adj", "data.adv", "data.noun", "data.verb")
HOW = "`apt install wordnet-base`, NLTK's corpus unpacked (nltk_data/corpora/wordnet), or a folder of its data.* files"

# The lexicographer files by number (`man 5 lexnames`).
_CATEGORIES = """
adj.all adj.pert adv.all noun.Tops noun.act noun.animal noun.artifact noun.attribute noun.body noun.cognition
noun.communication noun.event noun.feeling noun.food noun.group noun.location noun.motive noun.object noun.person
noun.phenomenon noun.plant noun.possession noun.process noun.quantity noun.relation noun.shape noun.state
noun.substance noun.time verb.body verb.change verb.cognition verb.communication verb.competition verb.consumption
verb.contact verb.creation verb.emotion verb.motion verb.perception verb.possession verb.social verb.stative
verb.weather adj.ppl
"""
CATEGORIES = tuple(_CATEGORIES.split())


class Synset(NamedTuple):
    """Words of one meaning: the number of its lexicographer file, its words, its definition without examples."""

    category: int
    words: tuple[str, ...]
    definition: str


def find(path: str | None = None) -> Path | None:
    """The folder with the database files: the given one, Debian's, or NLTK's; None where there is none."""
    home = Path(os.path.expanduser("~"))
    given = [Path(place) for place in os.environ.get("NLTK_DATA", "").split(os.pathsep) if place]
    roots = [*given, home / "nltk_data", *(Path(p) / "nltk_data" for p in ("/usr/share", "/usr/local/share"))]
    places = [DEBIAN, *(root / "corpora/wordnet" for root in roots)]
    tried = [Path(path).expanduser()] if path is not None else places
    return next((place for place in tried if all((place / name).is_file() for name in FILES)), None)


def synsets(folder: Path) -> Iterator[Synset]:
    """Every set of synonyms, in the order of the files.

    Raises:
        ValueError: a line is not in the format; the message has file and line.
    """
    for name in FILES:
        with (folder / name).open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                if line.startswith("  "):  # the licence
                    continue
                try:
                    yield _synset(line)
                except (ValueError, IndexError) as error:
                    raise ValueError(f"{folder / name}, line {number}: not a line of a WordNet database") from error


def _synset(line: str) -> Synset:
    """Offset, file number, kind, count of words (two hex digits), then word and sense by turns; `|` and the gloss."""
    facts, _, gloss = line.partition(" | ")
    fields = facts.split(" ")
    category, count = int(fields[1]), int(fields[3], 16)
    found = fields[4 : 4 + 2 * count : 2]
    if len(found) != count or not 0 <= category < len(CATEGORIES):
        raise ValueError(line)
    plain = tuple(word.partition("(")[0].replace("_", " ") for word in found)  # adjectives have a marker, "(a)"
    return Synset(category, plain, gloss.strip().split('; "')[0].strip())


@functools.cache
def synonyms(folder: Path) -> dict[str, tuple[str, ...]]:
    """For each single word in lower case, the other single words of its meanings, in the order of the files."""
    table: dict[str, dict[str, None]] = {}
    for synset in synsets(folder):
        single = [word.lower() for word in synset.words if " " not in word and word.isalpha()]
        for word in single:
            table.setdefault(word, {}).update(dict.fromkeys(other for other in single if other != word))
    return {word: tuple(others) for word, others in table.items() if others}
