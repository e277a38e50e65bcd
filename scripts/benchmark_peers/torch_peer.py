"""The same training in PyTorch: eager, compiled, or in bfloat16 with channels last."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from benchmark_peers import torch_models
from benchmark_peers.task import Task
from benchmark_peers.turns import Turns
from descent import UserError
from descent.augmentation import FlipCrop, Mixing, NoMixing, NoSampleAugmentation
from descent.loss import CrossEntropy, MeanSquaredError
from descent.optimizer import SGD, Adam

# What the peer does not have, and the value at which that is no matter.
PLAIN = {
    "model.activation": "relu", "model.norm": "none", "model.residual": False,
    "optimizer.amsgrad": False, "optimizer.centralize": False, "optimizer.decay_all": False,
    "optimizer.frozen": None, "optimizer.layer_decay": 1.0, "optimizer.multipliers": (),
    "loss.class_weights": (), "regularization.recurrent_dropout": 0.0,
}  # fmt: skip


def train(task: Task, turns: Turns, *, compiled: bool = False, bfloat16: bool = False, plain: bool = False) -> None:
    """Plain is as in the tutorials: a `DataLoader`, and the optimizer with its defaults."""
    check(task)
    torch.set_num_threads(task.experiment.trainer.cores())
    torch.manual_seed(task.experiment.seed)
    layout = torch.channels_last if bfloat16 else torch.contiguous_format
    model = torch_models.build(task).to(memory_format=layout)
    forward = torch.compile(model) if compiled else model
    optimizer = optimizer_of(task, model, fused=not plain)
    batches, total, step = Batches(task, layout, plain=plain), 0.0, 0
    while True:
        for inputs, targets in batches.epoch():
            for group in optimizer.param_groups:
                group["lr"] = float(task.rates[step])
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                outputs = forward(inputs)
            outputs = outputs.float()
            loss = loss_of(task, outputs, targets)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), task.max_norm) if task.max_norm < float("inf") else None
            optimizer.step()
            total, step = total + loss.item(), step + 1
            right(task, outputs, targets).mean().item()
            if step % task.evaluate_every == 0:
                with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                    evaluate(forward, model, task, layout)
            if step % min(10, task.epoch) == 0 or step == 1:
                turns(step, total / (1 if step == 1 else min(10, task.epoch)))
                total = 0.0


def check(task: Task) -> None:
    parts = task.experiment.augmentation
    known = isinstance(parts.sample, (FlipCrop, NoSampleAugmentation)) and isinstance(parts.batch, (Mixing, NoMixing))
    if not known or getattr(parts.batch, "mode", "batch") != "batch":
        raise UserError("benchmark: the PyTorch peer does augmentation=flip_crop, mixup, cutmix or none, by batches")
    losses = CrossEntropy, MeanSquaredError
    optimizer = task.experiment.optimizer
    if type(task.experiment.loss) not in losses or not isinstance(optimizer, (Adam, SGD)):
        wanted = "loss=cross_entropy or mse with optimizer=adam, adamw, momentum or nesterov"
        raise UserError(f"benchmark: the PyTorch peer does {wanted}")
    for name, plain in PLAIN.items():
        group, _, field = name.partition(".")
        value = getattr(getattr(task.experiment, group), field, plain)
        if value != plain:
            raise UserError(f"benchmark: the PyTorch peer does not know {name}={value}")


def loss_of(task: Task, outputs: Tensor, targets: Tensor) -> Tensor:
    if task.spec.num_classes:
        return functional.cross_entropy(outputs, targets, label_smoothing=task.smoothing)
    return functional.mse_loss(outputs, targets)


def right(task: Task, outputs: Tensor, targets: Tensor) -> Tensor:
    """Of each sample: whether its class was found, or how far its value was missed, in deviations."""
    if task.spec.num_classes:
        return (outputs.argmax(1) == targets.argmax(1)).float()
    return (outputs - targets).abs()[:, 0]


def targets_of(task: Task, raw: Tensor) -> Tensor:
    """One-hot rows of labels, or a column of standardised values."""
    if task.spec.num_classes:
        return functional.one_hot(raw.long(), task.spec.num_classes).float()
    return ((raw - task.spec.target_mean) / task.spec.target_std)[:, None]


def optimizer_of(task: Task, model: nn.Module, *, fused: bool) -> torch.optim.Optimizer:
    """Decay on kernels only; the fused kernels are the fastest on a CPU."""
    part = task.experiment.optimizer
    assert isinstance(part, (Adam, SGD))  # `check`
    kernels = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": kernels, "weight_decay": part.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if isinstance(part, SGD):
        return torch.optim.SGD(groups, momentum=part.momentum, nesterov=part.nesterov, fused=fused)
    return torch.optim.AdamW(groups, betas=(part.beta_1, part.beta_2), eps=part.epsilon, fused=fused)


@torch.no_grad()
def evaluate(forward: nn.Module, model: nn.Module, task: Task, layout: torch.memory_format) -> float:
    model.eval()
    inputs, targets = (torch.from_numpy(a) for a in task.arrays["validation"])
    total = 0.0
    for x, y in zip(inputs.split(256), targets.split(256), strict=True):
        total += float(right(task, forward(scaled(x, task, layout)), targets_of(task, y)).sum())
    model.train()
    return total / len(targets)


def scaled(raw: Tensor, task: Task, layout: torch.memory_format) -> Tensor:
    """Raw rows of the data as [b, c, h, w] (tables [b, f]) in the range the model sees; ids [b, t] as they are."""
    if task.spec.kind == "text":
        return raw.long()
    if task.spec.kind == "tabular":
        return raw.float() * task.spec.scale
    return (raw.permute(0, 3, 1, 2).float() * task.spec.scale).contiguous(memory_format=layout)


class Batches:
    """An epoch's batches, gathered from memory, augmented and mixed whole."""

    def __init__(self, task: Task, layout: torch.memory_format, *, plain: bool) -> None:
        self.task, self.layout, self.plain = task, layout, plain
        self.inputs, self.labels = (torch.from_numpy(a) for a in task.arrays["train"])
        self.sample, self.mixing = task.experiment.augmentation.sample, task.experiment.augmentation.batch

    def epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        for raw, labels in islice(self._loaded() if self.plain else self._gathered(), self.task.epoch):
            if isinstance(self.sample, FlipCrop):
                raw = flip_crop(raw, self.sample.shift, bool(self.sample.flip))
            yield self.mix(scaled(raw, self.task, self.layout), targets_of(self.task, labels))

    def _gathered(self) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.randperm(len(self.inputs)).split(self.task.batch_size):
            yield self.inputs[rows], self.labels[rows]

    def _loaded(self) -> Iterable[tuple[Tensor, Tensor]]:
        return DataLoader(TensorDataset(self.inputs, self.labels), self.task.batch_size, shuffle=True)

    def mix(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        mixing = self.mixing
        if not isinstance(mixing, Mixing) or torch.rand(()) >= mixing.prob:
            return x, y
        cut = bool(mixing.cutmix_alpha) and (not mixing.mixup_alpha or bool(torch.rand(()) < mixing.switch_prob))
        alpha = mixing.cutmix_alpha if cut else mixing.mixup_alpha
        share = float(torch.distributions.Beta(alpha, alpha).sample())
        if cut:
            x, share = pasted(x, share)
        else:
            x = share * x + (1 - share) * x.flip(0)
        return x, share * y + (1 - share) * y.flip(0)


def pasted(x: Tensor, share: float) -> tuple[Tensor, float]:
    """CutMix with the mirrored batch; returns the share of each image that is left."""
    height, width = x.shape[2:]
    rows, columns = (round((1 - share) ** 0.5 * n) for n in (height, width))
    y, c = (int(torch.randint(n, ())) for n in (height, width))
    top, left = max(0, y - rows // 2), max(0, c - columns // 2)
    bottom, right = min(height, y - rows // 2 + rows), min(width, c - columns // 2 + columns)
    mixed = x.clone()
    mixed[:, :, top:bottom, left:right] = x.flip(0)[:, :, top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)


def flip_crop(raw: Tensor, shift: int, flip: bool) -> Tensor:
    """Shifts and flips of raw images [b, h, w, c], as two gathers."""
    count, height, width, _ = raw.shape
    padded = functional.pad(raw, (0, 0, shift, shift, shift, shift))
    moves = torch.randint(0, 2 * shift + 1, (count, 2))
    rows, columns = torch.arange(height) + moves[:, :1], torch.arange(width) + moves[:, 1:]
    if flip:
        columns = torch.where(torch.rand(count, 1) < 0.5, columns.flip(1), columns)
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
