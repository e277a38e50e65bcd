"""Models for text: padding changes no logit, layers match Keras and the formulas, embeddings mix."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from descent.model import BagOfEmbeddings, Gru, Lstm, TextCnn, Transformer
from descent.model.layers import noise
from descent.model.text_layers import MaskedAttention, MaskedMax, MaskedMean, Token, WordDropout, Words, mixture, waves
from descent.regularization import Regularization
from descent.types import Spec

LENGTH, VOCABULARY = 9, 30
MODELS = {
    "lstm": Lstm(embedding=6, width=5),
    "lstm_last": Lstm(embedding=6, width=5, pool="last", shortcut=False),
    "lstm_mean": Lstm(embedding=6, width=5, pool="mean", shortcut=False),
    "bilstm": Lstm(embedding=6, width=5, layers=2, bidirectional=True, pool="max"),
    "gru": Gru(embedding=6, width=5, layers=2, bidirectional=True),
    "transformer": Transformer(width=8, heads=2),
    "transformer_first": Transformer(width=8, heads=2, pool="first", positions="sinusoidal", shortcut=False),
    "text_cnn": TextCnn(embedding=6, filters=4),
    "bag_of_embeddings": BagOfEmbeddings(embedding=6),
}
KEY = np.array([3, 4], np.int64)  # no tensor: the devices are not set before the first test


def spec(length: int) -> Spec:
    sizes = {"train": 10, "validation": 2, "test": 2}
    return Spec(kind="text", shape=(length,), sizes=sizes, num_classes=3, vocabulary=VOCABULARY)


def built(name: str, length: int, **rates) -> keras.Model:
    model = MODELS[name].build(spec(length), Regularization(**rates))
    rng = np.random.default_rng(0)
    for variable in model.variables:  # the same for every length; positions beyond the shorter are its own
        full = rng.standard_normal([LENGTH + 5 if n == length else n for n in variable.shape])
        variable.assign(full[tuple(slice(n) for n in variable.shape)] * 0.5)
    return model


def texts(*lengths: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    ids = rng.integers(1, VOCABULARY, (len(lengths), LENGTH)).astype(np.int32)
    return np.where(np.arange(LENGTH) < np.array(lengths)[:, None], ids, 0)


@pytest.mark.parametrize("name", MODELS)
def test_padding_never_changes_a_logit(name: str):
    """The same words, padded to another length, in a model of that length with the same weights."""
    ids = texts(9, 5, 1, 4)
    short = MODELS[name].build(spec(LENGTH), Regularization())
    long = MODELS[name].build(spec(LENGTH + 4), Regularization())
    rng = np.random.default_rng(2)
    for a, b in zip(short.variables, long.variables, strict=True):
        values = rng.standard_normal(b.shape) * 0.5
        b.assign(values)
        a.assign(values[tuple(slice(n) for n in a.shape)])
    longer = np.pad(ids, [(0, 0), (0, 4)])
    np.testing.assert_allclose(short(ids), long(longer), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_text_does_not_see_the_others(name: str):
    model, ids = built(name, LENGTH), texts(9, 5, 1, 4)
    alone = np.concatenate([model(ids[i : i + 1]) for i in range(len(ids))])
    np.testing.assert_allclose(model(ids), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_text_without_words_gives_finite_logits_and_gradients(name: str):
    model, ids = built(name, LENGTH), texts(0, 3)
    with tf.GradientTape() as tape, noise(KEY):
        loss = tf.reduce_sum(model(ids, training=True))
    found = tape.gradient(loss, model.trainable_variables)
    assert np.abs(model(ids)).max() < 1e3
    assert all(np.isfinite(tf.convert_to_tensor(g)).all() for g in found)


@pytest.mark.parametrize("name", MODELS)
def test_every_rate_acts_in_training(name: str):
    rates = {"dropout": 0.5, "recurrent_dropout": 0.5, "stochastic_depth": 0.5}
    model, ids = built(name, LENGTH, **rates), texts(9, 5, 4)
    with noise(KEY):
        dropped = model(ids, training=True)
    assert np.abs(dropped - model(ids)).max() > 1e-4


@pytest.mark.parametrize("name", MODELS)
def test_words_are_silenced_in_training_alone(name: str):
    model, ids = built(name, LENGTH, word_dropout=0.5), texts(9, 5, 4)
    with noise(KEY):
        silenced = model(ids, training=True)
    assert np.abs(silenced - model(ids)).max() > 1e-4
    np.testing.assert_array_equal(built(name, LENGTH)(ids), model(ids))


def test_a_silenced_word_loses_its_whole_vector_and_the_mean_stays():
    """Of 40,000 words of value 1, 70 % are left, at 1 / 0.7 each: the deviation of their mean is 0.0033."""
    with noise(KEY):
        found = WordDropout(0.3, name="silenced")(tf.ones([200, 200, 3]), training=True).numpy()
    np.testing.assert_array_equal(found[..., :1].repeat(3, axis=-1), found)
    np.testing.assert_allclose(np.unique(found), [0, 1 / 0.7], rtol=1e-6)
    assert found.mean() == pytest.approx(1, abs=5 * np.sqrt(0.3 / 0.7 / 40_000))


@pytest.mark.parametrize("name", ["lstm", "transformer", "text_cnn", "bag_of_embeddings"])
def test_mixed_with_a_share_of_one_is_the_text_itself(name: str):
    model, ids = built(name, LENGTH), texts(9, 5, 4)
    with noise(KEY):
        plain = model(ids, training=True)
        with mixture((tf.constant(ids), tf.constant([0.3, 0.6, 0.9]))):
            same = model(ids, training=True)
        with mixture((tf.constant(ids[::-1]), tf.zeros([3]))):
            other = model(ids, training=True)
    np.testing.assert_allclose(same, plain, rtol=1e-4, atol=1e-5)
    if name == "bag_of_embeddings":
        return  # whose mean is over the words of both
    assert np.abs(other - plain).max() > 1e-4


def test_embeddings_are_mixed_and_ids_are_not():
    layer, ids = Words(VOCABULARY, 4), texts(9, 5)
    alone, masks = layer(ids)
    share = np.array([0.25, 0.75], np.float32)
    with mixture((tf.constant(ids[::-1]), tf.constant(share))):
        mixed, mask = layer(ids, training=True)
        outside, _ = layer(ids, training=False)
    expected = share[:, None, None] * alone + (1 - share[:, None, None]) * alone[::-1]
    np.testing.assert_allclose(mixed, expected, rtol=1e-6, atol=1e-8)
    np.testing.assert_array_equal(mask, np.maximum(masks, masks[::-1]))
    np.testing.assert_array_equal(outside, alone)


def test_padding_has_no_vector_and_no_gradient():
    layer, ids = Words(VOCABULARY, 4), texts(2)
    with tf.GradientTape() as tape:
        vectors, _ = layer(ids)
        loss = tf.reduce_sum(vectors)
    gradient = tf.convert_to_tensor(tape.gradient(loss, layer.embeddings.value)).numpy()
    assert not vectors.numpy()[0, 2:].any()
    assert not gradient[0].any()
    assert gradient[ids[0, 0]].any()


@pytest.mark.parametrize("lengths", [(9, 5), (1, 9)])
def test_masked_attention_is_keras_own(lengths):
    width, heads, rng = 12, 3, np.random.default_rng(0)
    x = tf.constant(rng.standard_normal((2, LENGTH, width)), tf.float32)
    mask = tf.sequence_mask(lengths, LENGTH, tf.float32)
    theirs = keras.layers.MultiHeadAttention(heads, width // heads)
    theirs(x, x)
    weights = [rng.standard_normal(w.shape).astype(np.float32) * 0.3 for w in theirs.get_weights()]
    theirs.set_weights(weights)
    kernels = np.concatenate([w.reshape(width, width) for w in weights[:6:2]], axis=1)
    biases = np.concatenate([w.reshape(width) for w in weights[1:6:2]])

    def ours(x: tf.Tensor) -> tf.Tensor:
        mixed = MaskedAttention(heads)([x @ kernels + biases, mask])
        return mixed @ weights[6].reshape(width, width) + weights[7]

    def both(call) -> tuple[np.ndarray, np.ndarray]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = call(x) * mask[..., None]
            loss = tf.reduce_sum(tf.sin(outputs))
        return outputs.numpy(), tape.gradient(loss, x).numpy()

    expected = both(lambda x: theirs(x, x, attention_mask=mask[:, None, :] > 0))
    for a, b in zip(both(ours), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["lstm", "transformer"])
def test_the_shortcut_is_the_mean_of_the_words_vectors(name: str):
    """With a head of zeros but for the shortcut's weights, a network is a bag of embeddings."""
    ids, part = texts(9, 4), MODELS[name]
    width = 8 if name == "transformer" else 6
    short, bag = (made.build(spec(LENGTH), Regularization()) for made in (part, BagOfEmbeddings(embedding=width)))
    bag.get_layer("words").set_weights(short.get_layer("words").get_weights())
    kernel, bias = short.get_layer("head").get_weights()
    kernel[:-width] = 0
    short.get_layer("head").set_weights([kernel, bias])
    bag.get_layer("head").set_weights([kernel[-width:], bias])
    np.testing.assert_allclose(short(ids), bag(ids), rtol=1e-5, atol=1e-6)


def test_waves_are_the_papers_formula():
    """Vaswani et al. 2017, section 3.5, in float64."""
    position, i = np.arange(7)[:, None], np.arange(10)[None]
    angle = position / 10000 ** ((i - i % 2) / 10)
    np.testing.assert_allclose(waves(7, 10), np.where(i % 2, np.cos(angle), np.sin(angle)), atol=1e-5)


def test_pooling_is_over_words_alone():
    x = tf.constant(np.random.default_rng(0).standard_normal((2, 4, 3)), tf.float32)
    mask = tf.sequence_mask([4, 2], 4, tf.float32)
    np.testing.assert_allclose(MaskedMean()([x, mask])[1], x[1, :2].numpy().mean(0), rtol=1e-5)
    np.testing.assert_array_equal(MaskedMax()([x, mask])[1], x[1, :2].numpy().max(0))
    for pool in (MaskedMean(), MaskedMax()):
        assert not pool([x, tf.zeros([2, 4])]).numpy().any()


def test_the_token_stands_first_and_counts_as_a_word():
    x, mask = tf.ones([2, 4, 3]), tf.sequence_mask([4, 2], 4, tf.float32)
    layer = Token()
    longer, longer_mask = layer([x, mask])
    np.testing.assert_array_equal(longer[:, 0], np.repeat(layer.first.numpy()[0], 2, axis=0))
    np.testing.assert_array_equal(longer[:, 1:], x)
    np.testing.assert_array_equal(longer_mask, tf.sequence_mask([5, 3], 5, tf.float32))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_comes_back_from_its_file(name: str, tmp_path):
    model, ids = built(name, LENGTH), texts(9, 5, 1)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(ids), model(ids), rtol=1e-6)
