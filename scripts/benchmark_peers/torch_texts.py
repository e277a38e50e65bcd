"""The models for text of the PyTorch peer, from the same weights as Descent's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import torch
from torch import Tensor, nn

from descent.model import BagOfEmbeddings, Lstm, Transformer
from descent.types import Regularization, Spec

PARTS = (BagOfEmbeddings, Lstm, Transformer)


def build(part: Any, ours: keras.Model, spec: Spec, regularization: Regularization) -> nn.Module:
    """A module from ids [b, t] to logits [b, n]: the counterpart of `ours`, which `part` built."""
    if isinstance(part, Transformer):
        body: nn.Module = Blocks(part, spec, regularization.rates("dropout", part.depth + 2)[1:-1])
        first, last = (regularization.rates("dropout", part.depth + 2)[i] for i in (0, -1))
    elif isinstance(part, Lstm):
        rates = regularization.rates("dropout", part.layers + 1)
        first, last = rates[0], rates[-1]
        between = rates[1] if part.layers > 1 else 0.0
        body = Recurrent(part.embedding, part.width, part.layers, batch_first=True, dropout=between)
    else:
        first, last, body = 0.0, regularization.rates("dropout", 1)[0], Same()
    width = getattr(part, "embedding", None) or part.width
    model = Texts(spec, width, body, (regularization.rates("word_dropout", 1)[0], first, last), head_width(ours))
    model.largest = getattr(part, "pool", "mean") == "max"
    model.shortcut = getattr(part, "shortcut", False)
    copy_weights(ours, model)
    return model


def head_width(ours: keras.Model) -> int:
    return ours.get_layer("head").kernel.shape[0]


class Texts(nn.Module):
    """Words, a body over them, the mean (or the largest value) over words, the head.

    Attributes:
        largest: pool by the largest value.
        shortcut: the head sees the mean of the words' vectors too.
    """

    def __init__(self, spec: Spec, width: int, body: nn.Module, rates: Sequence[float], features: int) -> None:
        super().__init__()
        self.words, self.body = nn.Embedding(spec.vocabulary, width, padding_idx=0), body
        self.silenced, self.first, self.last = map(nn.Dropout, rates)
        self.head = nn.Linear(features, spec.outputs)
        self.largest = self.shortcut = False

    def forward(self, ids: Tensor) -> Tensor:
        mask = ids != 0
        live = mask.float()[..., None]
        words = self.words(ids) * self.silenced(live)
        x = self.body(self.first(words), mask)
        x = x.masked_fill(live == 0, -1e9).amax(1) if self.largest else mean(x, live)
        return self.head(self.last(torch.cat([x, mean(words, live)], 1) if self.shortcut else x))


def mean(x: Tensor, live: Tensor) -> Tensor:
    return (x * live).sum(1) / live.sum(1).clamp(min=1)


class Same(nn.Module):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x


class Recurrent(nn.LSTM):
    """Read forwards, padding behind a text changes no output at its words: it need not be packed."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return super().forward(x)[0]


class Blocks(nn.Module):
    def __init__(self, part: Transformer, spec: Spec, rates: list[float]) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, spec.shape[0], part.width))
        self.blocks = nn.ModuleList(Block(part, rate) for rate in rates)
        self.norm = nn.LayerNorm(part.width, eps=1e-6)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.position
        for block in self.blocks:
            x = block(x, ~mask)
        return self.norm(x)


class Block(nn.Module):
    def __init__(self, part: Transformer, rate: float) -> None:
        super().__init__()
        width, hidden = part.width, part.mlp_ratio * part.width
        self.attention = nn.MultiheadAttention(width, part.heads, batch_first=True)
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in range(2))
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(rate), nn.Linear(hidden, width))

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        y = self.norms[0](x)
        x = x + self.attention(y, y, y, key_padding_mask=padding, need_weights=False)[0]
        return x + self.mlp(self.norms[1](x))


def copy_weights(ours: keras.Model, model: Texts) -> None:
    """By name; Keras' kernels are [in, out], torch's [out, in]. Norms start alike in both."""
    weights = {"/".join(v.path.split("/")[-2:]): np.array(v) for v in ours.variables}

    def put(parameter: Tensor, name: str, transposed: bool = False) -> None:
        value = weights[name].T if transposed else weights[name]
        parameter.data.copy_(torch.from_numpy(np.ascontiguousarray(value)))

    def linear(layer: Any, name: str, kernel: str = "weight", bias: str = "bias") -> None:
        put(getattr(layer, kernel), f"{name}/kernel", transposed=True)
        put(getattr(layer, bias), f"{name}/bias")

    put(model.words.weight, "words/embeddings")
    linear(model.head, "head")
    if isinstance(model.body, Blocks):
        put(model.body.position, "positions/position")
        for i, block in enumerate(model.body.blocks):
            linear(block.attention, f"block_{i}_attention_qkv", "in_proj_weight", "in_proj_bias")
            linear(block.attention.out_proj, f"block_{i}_attention_out")
            linear(block.mlp[0], f"block_{i}_mlp_1")
            linear(block.mlp[3], f"block_{i}_mlp_2")
    elif isinstance(model.body, Recurrent):
        for i in range(model.body.num_layers):
            linear(model.body, f"layer_{i}_forwards", f"weight_ih_l{i}", f"bias_ih_l{i}")
            put(getattr(model.body, f"weight_hh_l{i}"), f"layer_{i}_forwards/recurrent_kernel", transposed=True)
            nn.init.zeros_(getattr(model.body, f"bias_hh_l{i}"))
