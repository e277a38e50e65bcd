"""Data: sources that are random-access, and the pipeline from a step to its batch."""

from descent.data.arrays import Arrays, Digits, Synthetic
from descent.data.csv_table import CsvTable
from descent.data.csv_text import CsvText
from descent.data.definitions import WordNet
from descent.data.docstrings import Docstrings
from descent.data.image_folder import ImageFolder
from descent.data.images import Cifar10, Cifar100, FashionMnist, Mnist
from descent.data.imdb import Imdb
from descent.data.linear import Linear
from descent.data.remembered import Remembered
from descent.data.tables import BreastCancer, CaliforniaHousing, Diabetes, Wine
from descent.data.tfds import Tfds

__all__ = [
    "Arrays",
    "BreastCancer",
    "CaliforniaHousing",
    "Cifar10",
    "Cifar100",
    "CsvTable",
    "CsvText",
    "Diabetes",
    "Digits",
    "Docstrings",
    "FashionMnist",
    "Remembered",
    "ImageFolder",
    "Imdb",
    "Linear",
    "Mnist",
    "Synthetic",
    "Tfds",
    "Wine",
    "WordNet",
]
