"""Models: parts that build a Keras model from what the data is."""

from descent.model.cnn import Cnn
from descent.model.convnext import ConvNeXt
from descent.model.keras_application import KerasApplication
from descent.model.mlp import Mlp
from descent.model.recurrent import Gru, Lstm
from descent.model.resnet import ResNet, ResNet20, WideResNet
from descent.model.text_cnn import BagOfEmbeddings, TextCnn
from descent.model.transformer import Transformer
from descent.model.vit import ViT

__all__ = [
    "BagOfEmbeddings",
    "Cnn",
    "ConvNeXt",
    "Gru",
    "KerasApplication",
    "Lstm",
    "Mlp",
    "ResNet",
    "ResNet20",
    "TextCnn",
    "Transformer",
    "ViT",
    "WideResNet",
]
