"""Text augmentation: laws of length, multiset, rate and table; padding and masked words stay; same key, same text."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from descent import seeds
from descent.augmentation import TextEda
from descent.augmentation.text import STOP_WORDS, Ready, synonym_table
from descent.types import Spec
from descent.vocabulary import MASKED
from samples import wordnet_folder

WORDS = ("", "[UNK]", MASKED, "the", "cat", "feline", "dog", "hound", "run", "sprint", "tree", "blue", "azure")
THE, MASK = WORDS.index("the"), WORDS.index(MASKED)
LENGTH = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """A WordNet of three meanings: cat = feline, dog = hound, run = sprint = scat."""
    place = tmp_path_factory.mktemp("wordnet")
    return wordnet_folder(
        place, {"noun": [("cat feline the", "x"), ("dog hound big_dog", "y")], "verb": [("run sprint scat", "z")]}
    )


def ready(folder: str, **fields) -> Ready:
    sizes = {"train": 10, "validation": 2, "test": 2}
    spec = Spec(kind="text", shape=(LENGTH,), sizes=sizes, num_classes=2, vocabulary=len(WORDS), words=WORDS)
    off = dict.fromkeys(("synonym", "insertion", "swap", "deletion"), 0.0)
    return TextEda(**off | {"single": False, "wordnet": folder} | fields).resolved(spec)  # type: ignore[return-value]


def texts(count: int = 64) -> np.ndarray:
    """Texts of 1 to 12 words, none of them unknown."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, LENGTH + 1, (count, 1))
    return np.where(np.arange(LENGTH) < lengths, rng.integers(2, len(WORDS), (count, LENGTH)), 0).astype(np.int32)


def augmented(eda: Ready, ids: np.ndarray, step: int = 0) -> np.ndarray:
    plan = eda.draw(seeds.key(7, tf.constant(step)), list(ids.shape))
    return eda.apply(plan, tf.constant(ids)).numpy()


def length(ids: np.ndarray) -> np.ndarray:
    return (ids > 0).sum(axis=1)


def sound(before: np.ndarray, after: np.ndarray) -> None:
    """What holds for all: shape, type, words first and then padding, masked words as many as before, never empty."""
    assert after.shape == before.shape
    assert after.dtype == before.dtype
    np.testing.assert_array_equal(after > 0, np.arange(LENGTH) < length(after)[:, None])
    assert (length(after) >= 1).all()
    assert (after < len(WORDS)).all()


ALL = {"synonym": 0.3, "insertion": 0.3, "swap": 0.3, "deletion": 0.3}


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("chosen", [*({name: share} for name, share in ALL.items()), ALL])
def test_texts_stay_texts(folder, chosen, single):
    eda, ids = ready(folder, **chosen, single=single), texts()
    for step in range(5):
        sound(ids, augmented(eda, ids, step))


@pytest.mark.parametrize("single", [False, True])
def test_the_same_key_gives_the_same_text_and_another_step_another(folder, single):
    eda, ids = ready(folder, **ALL, single=single), texts()
    np.testing.assert_array_equal(augmented(eda, ids, 3), augmented(eda, ids, 3))
    assert (augmented(eda, ids, 3) != augmented(eda, ids, 4)).any()


def test_synonyms_come_from_the_table_alone(folder):
    eda, ids = ready(folder, synonym=0.5), texts(256)
    pairs = {(WORDS[a], WORDS[b]) for a, b in zip(ids.ravel(), augmented(eda, ids).ravel(), strict=True) if a != b}
    two_ways = [("cat", "feline"), ("dog", "hound"), ("run", "sprint")]
    assert pairs == {*two_ways, *((b, a) for a, b in two_ways)}


def test_the_share_of_words_is_replaced(folder):
    eda = ready(folder, synonym=0.25)
    ids = np.full((8, LENGTH), WORDS.index("cat"), np.int32)
    ids[4:, 4:] = 0
    changed = (augmented(eda, ids) != ids).sum(axis=1)
    np.testing.assert_array_equal(changed, [3] * 4 + [1] * 4)


def test_stop_words_and_unknown_words_have_no_synonyms(folder):
    from pathlib import Path

    table = synonym_table(WORDS, Path(folder))
    assert not table[[0, 1, MASK, THE]].any()
    assert "the" in STOP_WORDS
    assert set(table[WORDS.index("cat")]) == {WORDS.index("feline"), 0}  # "the" and "scat" aside


def test_a_swap_keeps_the_multiset_and_masked_words_in_place(folder):
    eda, ids = ready(folder, swap=0.3), texts(256)
    after = augmented(eda, ids)
    assert [Counter(row) for row in after] == [Counter(row) for row in ids]
    np.testing.assert_array_equal(after == MASK, ids == MASK)
    np.testing.assert_array_equal(after == 0, ids == 0)


def test_one_swap_changes_exactly_two_places(folder):
    ids = np.tile(np.arange(3, 13, dtype=np.int32), (200, 1))
    ids = np.pad(ids, [(0, 0), (0, LENGTH - 10)])
    after = augmented(ready(folder, swap=0.1), ids)
    np.testing.assert_array_equal((after != ids).sum(axis=1), 2)
    first = (after != ids).argmax(axis=1)
    assert np.bincount(first, minlength=9)[:9].min() > 0


def test_the_rate_of_deletion_is_the_chance(folder):
    """Of 12 words, so that hardly any text is emptied: within five standard errors of the binomial."""
    ids = np.full((2000, LENGTH), WORDS.index("tree"), np.int32)
    kept = length(augmented(ready(folder, deletion=0.2), ids)).mean() / LENGTH
    assert abs(kept - 0.8) < 5 * np.sqrt(0.16 / ids.size)


def test_deletion_keeps_order_masked_words_and_one_word(folder):
    eda, ids = ready(folder, deletion=1.0), texts(256)
    after = augmented(eda, ids)
    masked = (ids == MASK).sum(axis=1)
    np.testing.assert_array_equal(length(after), np.maximum(masked, 1))
    half = augmented(ready(folder, deletion=0.5), ids)
    for a, b in zip(half, ids, strict=True):
        rest = iter(b[b > 0])
        assert all(word in rest for word in a[a > 0])  # a subsequence


def test_the_word_that_is_spared_is_any_of_them(folder):
    ids = np.tile(np.arange(3, 13, dtype=np.int32), (500, 1))
    left = augmented(ready(folder, deletion=1.0), np.pad(ids, [(0, 0), (0, 2)]))[:, 0]
    assert set(left) == set(range(3, 13))


def test_insertions_add_synonyms_and_keep_the_rest_in_order(folder):
    """The length grows by the number of insertions, as far as there is room and there are words with synonyms."""
    eda, ids = ready(folder, insertion=0.25), texts(256)
    after, table = augmented(eda, ids), eda.table
    able = (table[ids] > 0).any(axis=2).sum(axis=1)
    expected = np.minimum(np.maximum(1, (0.25 * length(ids)).astype(int)), able)
    np.testing.assert_array_equal(length(after), np.minimum(LENGTH, length(ids) + expected))
    for a, b, n in zip(after, ids, expected, strict=True):
        if length(b[None])[0] + n <= LENGTH:
            new = Counter(a[a > 0]) - Counter(b[b > 0])
            assert set(new) <= set(table[b].ravel())
            rest = iter(a[a > 0])
            assert all(word in rest for word in b[b > 0])


def test_one_operation_each_is_even_over_those_that_are_on(folder):
    """Deletion alone shortens, insertion alone lengthens: a third each of texts of one repeated word, with a swap."""
    ids = np.tile(np.pad(np.full(8, WORDS.index("cat"), np.int32), (0, 4)), (3000, 1))
    eda = ready(folder, insertion=0.2, swap=0.2, deletion=1.0, single=True)
    change = length(augmented(eda, ids)) - 8
    shares = np.array([(change < 0).mean(), (change == 0).mean(), (change > 0).mean()])
    assert np.abs(shares - 1 / 3).max() < 5 * np.sqrt(2 / 9 / 3000)


def test_wordnet_is_asked_for_only_where_synonyms_are(tmp_path):
    TextEda(synonym=0.0, insertion=0.0, wordnet=str(tmp_path))
    with pytest.raises(ValueError, match="need WordNet: `apt install wordnet-base`"):
        TextEda(wordnet=str(tmp_path))
