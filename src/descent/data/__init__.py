"""Data: sources that are random-access, and the pipeline from a step to its batch."""

from descent.data.arrays import Arrays, Digits, Synthetic
from descent.data.fitted import Fitted
from descent.data.image_folder import ImageFolder
from descent.data.images import Cifar10, Cifar100, FashionMnist, Mnist
from descent.data.linear import Linear

__all__ = ["Arrays", "Cifar10", "Cifar100", "Digits", "FashionMnist", "Fitted", "ImageFolder", "Linear", "Mnist", "Synthetic"]
