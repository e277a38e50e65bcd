"""Augmentation: per sample in the pipeline (`sample`), and mixing per batch in the compiled step (`batch`)."""

from descent.augmentation.automatic import RandAugment, TrivialAugment
from descent.augmentation.chain import Chain
from descent.augmentation.crop import RandomResizedCrop
from descent.augmentation.erasing import Cutout, RandomErasing
from descent.augmentation.image import FlipCrop, NoSampleAugmentation
from descent.augmentation.mixing import Mixing, NoMixing
from descent.augmentation.standard import Standard
from descent.augmentation.text import TextEda

__all__ = [
    "NoSampleAugmentation",
    "FlipCrop",
    "RandomResizedCrop",
    "Standard",
    "RandomErasing",
    "Cutout",
    "RandAugment",
    "TrivialAugment",
    "Chain",
    "TextEda",
    "NoMixing",
    "Mixing",
]
