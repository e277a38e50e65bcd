"""WordNet's definitions: which lexicographer's category is this?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from descent import wordnet
from descent.data.text import Corpus, Text
from descent.types import Count, UserError, part


@part
class WordNet(Text):
    """Definitions of WordNet 3.0 (Fellbaum 1998) and their categories, 45 of them: noun.animal, verb.motion, adj.all.

    Of equal definitions the first is kept, so that no text is in two splits.

    Attributes:
        path: folder of the `data.*` files; None: Debian's `wordnet-base`, then NLTK's corpus.
    """

    length: Count = 32
    path: str | None = None

    def source(self) -> Any:
        files = [self._folder() / name for name in wordnet.FILES]
        return [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]

    def _folder(self) -> Path:
        if found := wordnet.find(self.path):
            return found
        if self.path is not None:
            raise UserError(f"data.path={self.path}: no folder with {', '.join(wordnet.FILES)}")
        raise UserError(f"data=wordnet is not on this machine; get it by {wordnet.HOW} as data.path")

    def read(self) -> Corpus:
        try:
            every = list(wordnet.synsets(self._folder()))
        except ValueError as error:
            raise UserError(f"data: {error}") from error
        first = dict.fromkeys(synset.definition for synset in every if synset.definition)
        category = {synset.definition: synset.category for synset in reversed(every)}
        used = sorted({category[text] for text in first})
        labels = [used.index(category[text]) for text in first]
        remark = f"{len(every) - len(first):,} of {len(every):,} definitions are repeated and left out"
        return Corpus(tuple(wordnet.CATEGORIES[i] for i in used), {"train": (list(first), labels)}, (remark,))
