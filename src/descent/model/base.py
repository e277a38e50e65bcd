"""The first and the last layer, which are the same in all models, and how kernels start."""

from __future__ import annotations

from typing import Literal

from etils import epy

from descent.types import Spec

with epy.lazy_imports():
    import keras

Initializer = Literal[
    "he_normal",
    "he_uniform",
    "glorot_normal",
    "glorot_uniform",
    "lecun_normal",
    "lecun_uniform",
    "orthogonal",
    "truncated_normal",
]


def start(spec: Spec) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """The input (scaled values) and its standardised form, `(x - mean) / std` with the data's own numbers.

    A table's is computed in float32 whatever the precision: its values may be large beside their spread.
    Of text, ids (int32) as they are.
    """
    if spec.kind == "text":
        inputs = keras.Input(spec.shape, dtype="int32", name="inputs")
        return inputs, inputs
    inputs = keras.Input(spec.shape, name="inputs")
    dtype = "float32" if spec.kind == "tabular" else None
    scale = [1 / s for s in spec.std]
    offset = [-m / s for m, s in zip(spec.mean, spec.std, strict=True)]
    return inputs, keras.layers.Rescaling(scale, offset, name="standardize", dtype=dtype)(inputs)


def finish(inputs: keras.KerasTensor, features: keras.KerasTensor, spec: Spec, name: str) -> keras.Model:
    """Logits, or one real output in the target's unit, in float32 whatever the precision of the layers before."""
    # A tenth of the usual scale: training starts near the loss of a uniform guess, log n.
    small = keras.initializers.VarianceScaling(0.01)
    outputs = keras.layers.Dense(spec.outputs, kernel_initializer=small, dtype="float32", name="head")(features)
    if (spec.target_mean, spec.target_std) != (0, 1):
        outputs = keras.layers.Rescaling(spec.target_std, spec.target_mean, dtype="float32", name="unit")(outputs)
    return keras.Model(inputs, outputs, name=name)


def kernels(name: Initializer) -> str | keras.initializers.Initializer:
    """A new initializer for one layer's kernel, by name.

    he: variance 2 / fan-in (He et al. 2015, eq. 10); glorot: 2 / (fan-in + fan-out) (Glorot & Bengio 2010,
    eq. 16); lecun: 1 / fan-in (LeCun et al. 1998, section 4.6); orthogonal (Saxe et al. 2014); truncated_normal:
    deviation 0.02, cut at two deviations, as transformers start.
    """
    return keras.initializers.TruncatedNormal(stddev=0.02) if name == "truncated_normal" else name


def layer_norm(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Layer norm over channels (Ba et al. 2016)."""
    return keras.layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm")(x)


def dense(
    x: keras.KerasTensor, width: int, initializer: Initializer, name: str, activation: str | None = None
) -> keras.KerasTensor:
    return keras.layers.Dense(width, activation, kernel_initializer=kernels(initializer), name=name)(x)
