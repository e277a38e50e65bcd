"""Published numbers: parameters and depths. Torch's and the papers' counts leave out a norm's moving statistics."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from descent.data import FashionMnist, Synthetic
from descent.model import Cnn, ConvNeXt, ResNet, ResNet20, ViT, WideResNet
from descent.regularization import Regularization

CIFAR = ((32, 32, 3), 10)
IMAGENET = ((224, 224, 3), 1000)


def build(part, shape: tuple[int, ...], classes: int) -> keras.Model:
    keras.backend.clear_session()
    return part.build(Synthetic(shape=shape, num_classes=classes).spec, Regularization())


def parameters(part, shape: tuple[int, ...], classes: int) -> int:
    return sum(int(np.prod(v.shape)) for v in build(part, shape, classes).trainable_variables)


def small_stem(imagenet: int, features: int) -> int:
    """An ImageNet network's count with a 3x3 stem for 7x7, and ten classes for a thousand."""
    return imagenet - 49 * 3 * 64 + 9 * 3 * 64 - (features + 1) * 990


def test_the_lesson_cnn_has_the_size_counted_by_hand():
    convolutions = 9 * (1 * 64 + 64 * 128 + 128 * 256)
    norms = 4 * (64 + 128 + 256 + 256)
    dense = 256 * 256 + 256 * 10 + 10
    assert Cnn().build(FashionMnist().spec, Regularization()).count_params() == convolutions + norms + dense


def test_resnet20_has_the_size_of_the_paper():
    """He et al. 2016, table 6: 0.27 M parameters on 32x32x3."""
    assert round(parameters(ResNet20(), *CIFAR) / 1e6, 2) == 0.27


def test_resnet18_has_torchvisions_size():
    """torchvision: 11,689,512 parameters on ImageNet."""
    assert parameters(ResNet(), *CIFAR) == small_stem(11_689_512, 512)


def test_resnet50_has_torchvisions_size():
    """torchvision: 25,557,032 parameters on ImageNet."""
    assert parameters(ResNet(blocks=(3, 4, 6, 3), bottleneck=True), *CIFAR) == small_stem(25_557_032, 2048)


def wide(blocks: int, widen: int) -> int:
    """By hand: the trainable numbers of a wide residual network with ten classes."""
    total, before = 9 * 3 * 16, 16
    for width in (16 * widen, 32 * widen, 64 * widen):
        total += 9 * (before * width + (2 * blocks - 1) * width * width)  # 3x3 convolutions
        total += before * width if before != width else 0  # shortcut
        total += 2 * (before + (2 * blocks - 1) * width)  # norms
        before = width
    return total + 2 * before + 10 * before + 10


@pytest.mark.parametrize(("blocks", "widen", "millions"), [(6, 1, 0.6), (2, 8, 11.0), (3, 8, 17.2), (4, 10, 36.5)])
def test_the_hand_count_of_wide_resnets_is_the_papers(blocks, widen, millions):
    """Zagoruyko & Komodakis 2016, in the tables: WRN-40-1, 16-8, 22-8 and 28-10."""
    assert wide(blocks, widen) / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize(("blocks", "widen"), [(6, 1), (2, 4), (1, 8)])
def test_wide_resnet_has_the_size_counted_by_hand(blocks, widen):
    assert parameters(WideResNet(blocks=blocks, widen=widen), *CIFAR) == wide(blocks, widen)


def test_convnext_tiny_has_the_size_of_the_authors_model():
    """Liu et al. 2022, table 1: 28.6 M; the authors' code: 28,589,128."""
    assert parameters(ConvNeXt(patch=4), *IMAGENET) == 28_589_128


def test_the_small_stem_of_convnext_is_a_3x3_convolution():
    small, patches = (parameters(ConvNeXt(widths=(8,), blocks=(1,), patch=patch), *CIFAR) for patch in (1, 4))
    assert patches - small == (4 * 4 - 3 * 3) * 3 * 8


def test_vit_tiny_has_the_size_of_deit_tiny():
    """Touvron et al. 2021, table 1: 5.7 M (5 M in the text); the authors' code: 5,717,416."""
    assert parameters(ViT(patch=16, pool="token"), *IMAGENET) == 5_717_416


def test_vit_on_small_images_counted_by_hand():
    block = 3 * (192 * 192 + 192) + 192 * 192 + 192 + 2 * 4 * 192 * 192 + 5 * 192 + 4 * 192
    ends = 16 * 3 * 192 + 192 + 64 * 192 + 2 * 192 + 193 * 10
    assert parameters(ViT(), *CIFAR) == 12 * block + ends


DEPTHS = {
    20: ResNet20(width=2),
    32: ResNet20(width=2, blocks=5),
    18: ResNet(width=2),
    34: ResNet(width=2, blocks=(3, 4, 6, 3)),
    50: ResNet(width=2, blocks=(3, 4, 6, 3), bottleneck=True),
    16: WideResNet(widen=2, width=2, blocks=2),
    28: WideResNet(widen=2, width=2),
}


@pytest.mark.parametrize(("depth", "part"), DEPTHS.items())
def test_the_number_in_a_name_is_the_count_of_layers(depth, part):
    """Residual networks count the head and no shortcuts, wide ones the shortcuts and no head."""
    layers = build(part, *CIFAR).layers
    convolutions = [layer.name for layer in layers if isinstance(layer, keras.layers.Conv2D)]
    shortcuts = [name for name in convolutions if "shortcut" in name]
    own = 0 if isinstance(part, WideResNet) else 1 - len(shortcuts)
    assert len(convolutions) + own == depth
