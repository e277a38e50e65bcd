"""Data: sources that are random-access, and the pipeline from a step to its batch."""

from descent.data.arrays import Arrays, Digits, Synthetic
from descent.data.csv_table import CsvTable
from descent.data.fitted import Fitted
from descent.data.image_folder import ImageFolder
from descent.data.images import Cifar10, Cifar100, FashionMnist, Mnist
from descent.data.linear import Linear
from descent.data.tables import BreastCancer, CaliforniaHousing, Diabetes, Wine
from descent.data.tfds import Tfds

__all__ = [
    "Arrays",
    "BreastCancer",
    "CaliforniaHousing",
    "Cifar10",
    "Cifar100",
    "CsvTable",
    "Diabetes",
    "Digits",
    "FashionMnist",
    "Fitted",
    "ImageFolder",
    "Linear",
    "Mnist",
    "Synthetic",
    "Tfds",
    "Wine",
]
