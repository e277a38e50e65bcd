"""The models of the PyTorch peer, from the same weights as Descent's."""

from __future__ import annotations

import keras
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmark_peers import torch_texts
from benchmark_peers.task import Task
from descent import UserError
from descent.model import Cnn, Mlp, ResNet20
from descent.types import Spec


def build(task: Task) -> nn.Module:
    """The torch module of a task's model.

    Raises:
        UserError: there is none for this model.
    """
    part, spec, regularization = task.experiment.model, task.spec, task.experiment.regularization
    if isinstance(part, Mlp):
        body: nn.Module = mlp(part, spec, regularization.rates("dropout", len(part.widths)))
    elif isinstance(part, Cnn):
        rates = regularization.rates("spatial_dropout", len(part.widths)), regularization.rates("dropout", 1)[0]
        body = cnn(part, spec, *rates)
    elif isinstance(part, ResNet20):
        spatial = regularization.rates("spatial_dropout", 3 * part.blocks)
        body = resnet(part, spec, spatial, regularization.rates("dropout", 1)[0])
    elif isinstance(part, torch_texts.PARTS):
        return torch_texts.build(part, task.ours, spec, regularization)
    else:
        known = "mlp, cnn, resnet20, bag_of_embeddings, lstm and transformer"
        raise UserError(f"benchmark: the PyTorch peer has model={known}")
    model = nn.Sequential(Standardize(spec), body)
    copy_weights(task.ours, model)
    return model


class Standardize(nn.Module):
    def __init__(self, spec: Spec) -> None:
        super().__init__()
        channels = [-1, 1, 1] if spec.kind == "image" else [-1]
        self.register_buffer("mean", torch.tensor(spec.mean).reshape(channels))
        self.register_buffer("std", torch.tensor(spec.std).reshape(channels))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def norm(width: int, kind: type[nn.Module] = nn.BatchNorm2d) -> nn.Module:
    """With Keras' epsilon and momentum."""
    return kind(width, eps=1e-3, momentum=0.01)


def convolution(inputs: int, width: int, stride: int = 1, size: int = 3) -> nn.Conv2d:
    if size == 1 or stride == 1:
        return nn.Conv2d(inputs, width, size, stride, padding=size // 2, bias=False)
    return Strided(inputs, width, size, stride, bias=False)


class Strided(nn.Conv2d):
    """With Keras' "same" padding, whose odd row or column comes last."""

    def forward(self, x: Tensor) -> Tensor:
        (size, _), (stride, _) = self.kernel_size, self.stride
        padding = []
        for length in (x.shape[3], x.shape[2]):
            total = max(0, (-(-length // stride) - 1) * stride + size - length)
            padding += [total // 2, total - total // 2]
        return super().forward(functional.pad(x, padding))


def mlp(part: Mlp, spec: Spec, rates: list[float]) -> nn.Module:
    widths, layers = [int(np.prod(spec.shape)), *part.widths], []
    for fan_in, width, rate in zip(widths[:-1], widths[1:], rates, strict=True):
        layers += [nn.Linear(fan_in, width), nn.ReLU(), nn.Dropout(rate)]
    return nn.Sequential(Flatten(), *layers, nn.Linear(widths[-1], spec.outputs))


class Flatten(nn.Module):
    """In Keras' order of pixels: rows, columns, channels. Rows of a table are flat."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(1) if x.ndim == 4 else x


def cnn(part: Cnn, spec: Spec, spatial: list[float], rate: float) -> nn.Module:
    widths, layers = [spec.shape[-1], *part.widths], []
    for fan_in, width, dropped in zip(widths[:-1], widths[1:], spatial, strict=True):
        layers += [convolution(fan_in, width), norm(width), nn.ReLU()]
        layers += [nn.MaxPool2d(2, ceil_mode=True), nn.Dropout2d(dropped)]
    dense = [nn.Linear(widths[-1], part.dense, bias=False), norm(part.dense, nn.BatchNorm1d), nn.ReLU()]
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *pool, *dense, nn.Dropout(rate), nn.Linear(part.dense, spec.outputs))


class Block(nn.Module):
    """`relu(shortcut(x) + branch(x))`."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        first = [convolution(inputs, width, stride), norm(width), nn.ReLU()]
        self.branch = nn.Sequential(*first, convolution(width, width), norm(width))
        changes = stride > 1 or inputs != width
        shortcut = [convolution(inputs, width, stride, size=1), norm(width)] if changes else []
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.shortcut(x) + self.branch(x))


def resnet(part: ResNet20, spec: Spec, spatial: list[float], rate: float) -> nn.Module:
    layers: list[nn.Module] = [convolution(spec.shape[-1], part.width), norm(part.width), nn.ReLU()]
    inputs = part.width
    for number, dropped in enumerate(spatial):
        stage, block = divmod(number, part.blocks)
        width, stride = part.width * 2**stage, 2 if stage and not block else 1
        layers += [Block(inputs, width, stride), nn.Dropout2d(dropped)]
        inputs = width
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(rate)]
    return nn.Sequential(*layers, *pool, nn.Linear(inputs, spec.outputs))


def copy_weights(ours: keras.Model, model: nn.Module) -> None:
    """Keras' kernels are [h, w, in, out] and [in, out], torch's [out, in, h, w] and [out, in].

    Both list their kernels in the order they are made, but for a block's shortcut, which Keras has third of three
    as well. Biases start at zero here, as Keras' do; scales and offsets start alike in both.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
    theirs = [p for p in model.parameters() if p.ndim > 1]
    kernels = [v for v in ours.trainable_variables if len(v.shape) > 1]
    for parameter, kernel in zip(theirs, kernels, strict=True):
        value = np.array(kernel)
        value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
        parameter.data = torch.from_numpy(np.ascontiguousarray(value)).reshape(parameter.shape)
