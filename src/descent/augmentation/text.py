"""Augmentation of texts on the ids of their words, for the whole batch at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from etils import epy

from descent import seeds, vocabulary, wordnet
from descent.types import Flag, Fraction, Kind, Plan, Spec, part

with epy.lazy_imports():
    import tensorflow as tf

MOST = 8  # synonyms of a word that are used, the first of them in WordNet's order
# The words that carry a sentence rather than its meaning: pronouns, articles, auxiliaries, conjunctions, prepositions.
_STOP = """
a about above after again against all am an and any are as at be because been before being below between both but by
can could did do does doing down during each few for from further had has have having he her here hers herself him
himself his how i if in into is it its itself just me more most my myself no nor not now of off on once only or other
our ours ourselves out over own same she should so some such than that the their theirs them themselves then there
these they this those through to too under until up very was we were what when where which while who whom why will
with would you your yours yourself yourselves
"""
STOP_WORDS = frozenset(_STOP.split())

Operation = Callable[[Plan, "tf.Tensor"], "tf.Tensor"]


@part
class TextEda:
    """Easy data augmentation (Wei & Zou 2019, section 2): synonyms, insertions, swaps and deletions of random words.

    Of n words, `max(1, share * n)` are replaced by a synonym, as many synonyms of words of the text are inserted at
    random places, as many pairs of words change places; and each word is deleted with that chance, never all of them.
    Synonyms come from WordNet and stand in the vocabulary. Stop words are neither replaced nor copied from; padding
    and masked words stay as they are. A text that grows past the length loses its last words.

    Attributes:
        synonym: share of the words that are replaced; 0 for none.
        insertion: share of the words that are inserted; 0 for none.
        swap: share of the words as pairs that change places; 0 for none.
        deletion: chance of each word to be deleted; 0 for none.
        single: one operation for each text, drawn evenly from those that are on, as in the paper; or all in turn.
        wordnet: folder of WordNet's data.* files; None: Debian's wordnet-base, then NLTK's corpus.
    """

    kinds: ClassVar[tuple[Kind, ...]] = ("text",)

    synonym: Fraction = 0.1
    insertion: Fraction = 0.1
    swap: Fraction = 0.1
    deletion: Fraction = 0.1
    single: Flag = True
    wordnet: str | None = None

    def __post_init__(self) -> None:
        if not (self.synonym or self.insertion or self.swap or self.deletion):
            raise ValueError("synonym, insertion, swap or deletion should be above 0 (or augmentation/sample=none)")
        if (self.synonym or self.insertion) and wordnet.find(self.wordnet) is None:
            raise ValueError(f"synonym and insertion need WordNet: {wordnet.HOW} as wordnet; or set both to 0")

    def resolved(self, spec: Spec) -> TextEda:
        """With the synonyms of the vocabulary's words."""
        place = wordnet.find(self.wordnet) if self.synonym or self.insertion else None
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        table = synonym_table(spec.words, place) if place else np.zeros((spec.vocabulary, 1), np.int32)
        return Ready(**fields, table=table, masked=_masked(spec.words))

    def draw(self, seed: tf.Tensor, shape: Sequence[int]) -> Plan:
        """For ids of `shape` [b, t], uniform numbers in [0, 1): which operation, which words, which of their synonyms.

        `one` [b]; `synonym` and `insertion` [b, t] for places and for synonyms; `where` [b, t] for insertions;
        `swap` [b, s, 2]; `deletion` and `spared` [b, t].
        """
        names = ("synonym", "synonym_pick", "insertion", "insertion_pick", "where", "deletion", "spared")
        *keys, one, swap = seeds.split(seed, len(names) + 2)
        plan = {name: seeds.uniform(key, shape) for name, key in zip(names, keys, strict=True)}
        swaps = max(1, round(self.swap * shape[1]))
        return plan | {"one": seeds.uniform(one, shape[:1]), "swap": seeds.uniform(swap, [shape[0], swaps, 2])}

    def apply(self, plan: Plan, inputs: tf.Tensor) -> tf.Tensor:
        raise TypeError("`resolved` comes first: it finds the synonyms of the vocabulary")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ready(TextEda):
    """The augmentation with its tables, ready to be applied.

    Attributes:
        table: ids of the synonyms of each id, filled with 0: int32 [v, s].
        masked: the id of masked words; -1 where there is none.
    """

    table: np.ndarray
    masked: int

    def apply(self, plan: Plan, inputs: tf.Tensor) -> tf.Tensor:
        """Ids [b, t] to ids [b, t]."""
        operations: dict[str, Operation] = {
            "synonym": self.replaced, "insertion": self.inserted, "swap": self.swapped, "deletion": self.deleted
        }  # fmt: skip
        on = [operation for name, operation in operations.items() if getattr(self, name)]
        choice, outputs = tf.cast(plan["one"] * len(on), tf.int32), inputs
        for i, operation in enumerate(on):
            changed = operation(plan, outputs)
            chosen = (choice == i)[:, None] | (not self.single)
            outputs = tf.where(chosen, changed, outputs)
        return outputs

    def _free(self, ids: tf.Tensor) -> tf.Tensor:
        """Words that may be moved or deleted: neither padding nor masked."""
        return (ids > 0) & (ids != self.masked)

    def _synonyms(self, ids: tf.Tensor, pick: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """A synonym for each word, and whether it has any."""
        choices = tf.gather(tf.constant(self.table), ids)
        count = tf.reduce_sum(tf.cast(choices > 0, tf.int32), axis=-1)
        which = tf.cast(pick * tf.cast(count, tf.float32), tf.int32)
        return tf.gather(choices, which, axis=2, batch_dims=2), count > 0

    def replaced(self, plan: Plan, ids: tf.Tensor) -> tf.Tensor:
        """Synonym replacement."""
        others, able = self._synonyms(ids, plan["synonym_pick"])
        return tf.where(lowest(plan["synonym"], able, amount(self.synonym, ids)), others, ids)

    def inserted(self, plan: Plan, ids: tf.Tensor) -> tf.Tensor:
        """Random insertion: synonyms of some words at any places, before or behind any word."""
        others, able = self._synonyms(ids, plan["insertion_pick"])
        chosen = lowest(plan["insertion"], able, amount(self.insertion, ids))
        count = tf.reduce_sum(tf.cast(ids > 0, tf.float32), axis=1, keepdims=True)
        gaps = tf.floor(plan["where"] * (count + 1)) - 0.5
        places = tf.range(ids.shape[1], dtype=tf.float32)[None]
        end = float(2 * ids.shape[1])  # behind everything
        order = tf.concat([tf.where(ids > 0, places, end), tf.where(chosen, gaps, end)], axis=1)
        both = tf.concat([ids, tf.where(chosen, others, 0)], axis=1)
        return tf.gather(both, tf.argsort(order, stable=True), batch_dims=1)[:, : ids.shape[1]]

    def swapped(self, plan: Plan, ids: tf.Tensor) -> tf.Tensor:
        """Random swap: two different places at a time, one after another."""
        free, rows = self._free(ids), tf.range(tf.shape(ids)[0])
        places = tf.argsort(tf.cast(~free, tf.int32), stable=True)  # the free ones first
        count, wanted = tf.reduce_sum(tf.cast(free, tf.int32), axis=1), amount(self.swap, ids)[:, 0]

        def body(k: tf.Tensor, ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            draws = plan["swap"][:, k]
            first = tf.cast(draws[:, 0] * tf.cast(count, tf.float32), tf.int32)
            step = 1 + tf.cast(draws[:, 1] * tf.cast(count - 1, tf.float32), tf.int32)
            second = (first + step) % tf.maximum(count, 1)
            a, b = (tf.stack([rows, tf.gather(places, i, batch_dims=1)], axis=1) for i in (first, second))
            does = (k < wanted) & (count > 1)
            x, y = tf.gather_nd(ids, a), tf.gather_nd(ids, b)
            ids = tf.tensor_scatter_nd_update(ids, a, tf.where(does, y, x))
            return k + 1, tf.tensor_scatter_nd_update(ids, b, tf.where(does, x, tf.gather_nd(ids, b)))

        limit = plan["swap"].shape[1]
        return tf.while_loop(lambda k, _: k < limit, body, (tf.constant(0), ids))[1]

    def deleted(self, plan: Plan, ids: tf.Tensor) -> tf.Tensor:
        """Random deletion; where all words would go, one at random stays."""
        goes = self._free(ids) & (plan["deletion"] < self.deletion)
        none_left = tf.reduce_all(goes | (ids == 0), axis=1, keepdims=True)
        goes &= ~(none_left & lowest(plan["spared"], ids > 0, tf.ones_like(ids[:, :1])))
        order = tf.argsort(tf.cast(goes | (ids == 0), tf.int32), stable=True)
        return tf.gather(tf.where(goes, 0, ids), order, batch_dims=1)


def amount(share: float, ids: tf.Tensor) -> tf.Tensor:
    """`max(1, share * n)` of n words, rounded down: int32 [b, 1]."""
    count = tf.reduce_sum(tf.cast(ids > 0, tf.float32), axis=1, keepdims=True)
    return tf.maximum(1, tf.cast(share * count + 1e-4, tf.int32))


def lowest(scores: tf.Tensor, able: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Marks the `count` [b, 1] places of the lowest scores among those that are able: bool [b, t]."""
    scores = tf.where(able, scores, 2.0)
    rank = tf.argsort(tf.argsort(scores, stable=True), stable=True)
    return able & (rank < count)


def synonym_table(words: Sequence[str], place: Path) -> np.ndarray:
    """The ids of the first synonyms that are in the vocabulary, for each id, filled with 0: int32 [v, s]."""
    ids, known = {word: i for i, word in enumerate(words)}, wordnet.synonyms(place)
    table = np.zeros((len(words), MOST), np.int32)
    for i, word in enumerate(words):
        if word in STOP_WORDS or word in (vocabulary.PADDING, vocabulary.UNKNOWN, vocabulary.MASKED):
            continue
        found = [ids[other] for other in known.get(word, ()) if other in ids and other not in STOP_WORDS][:MOST]
        table[i, : len(found)] = found
    return table


def _masked(words: Sequence[str]) -> int:
    return words.index(vocabulary.MASKED) if vocabulary.MASKED in words else -1
