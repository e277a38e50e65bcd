"""Small image sets that everyone knows: read from a folder, or downloaded by Keras."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

from descent import seeds
from descent.data.arrays import Arrays, Splitting, divide
from descent.data.files import IDX, Layout, Pairs, batches, find, npz, pairs
from descent.types import Spec, UserError, part


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a set before it is read.

    Attributes:
        name: of the option, and of the set in `keras.datasets`.
        train, test: number of images.
        shape: rows, columns, channels.
        mean, std: per channel, of values in [0, 1].
        layouts: how its files may lie in a folder.
        package: a Debian package with the files, and where it puts them.
    """

    name: str
    train: int
    test: int
    shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mirrors: bool = True
    layouts: tuple[Layout, ...]
    package: tuple[str, str] | None = None

    @property
    def words(self) -> str:
        return " or ".join(layout.words for layout in self.layouts)


@part
class KnownImages(Splitting):
    """A set that has a test split of its own; validation is cut out of its training images.

    Attributes:
        path: folder with the set's files; None: a Debian package where there is one, then Keras' download.
    """

    facts: ClassVar[Facts]

    path: str | None = None

    @property
    def spec(self) -> Spec:
        facts = self.facts
        validation = self.held(facts.train)
        return Spec(
            kind="image",
            shape=facts.shape,
            sizes={"train": facts.train - validation, "validation": validation, "test": facts.test},
            num_classes=len(facts.class_names),
            class_names=facts.class_names,
            scale=1 / 255,
            mean=facts.mean,
            std=facts.std,
            mirrors=facts.mirrors,
        )

    def open(self) -> Arrays:
        rest, test = self._read()
        held = self.hold(rest[1], seeds.host(self.split_seed, "split"))
        train, validation = divide(rest, held)
        return Arrays(self.spec, {"train": train, "validation": validation, "test": test})

    def _read(self) -> Pairs:
        facts = self.facts
        if self.path is not None:
            read = find(facts.layouts, Path(self.path).expanduser())
            if read is None:
                raise UserError(f"data.path={self.path}: no folder with {facts.words} of {facts.name}")
            return read
        packaged = find(facts.layouts, Path(facts.package[1])) if facts.package else None
        return packaged or _download(facts)


def _download(facts: Facts) -> Pairs:
    import keras

    try:
        return pairs(getattr(keras.datasets, facts.name).load_data())
    except Exception as error:  # whatever the network raises, the way out is the same
        install = f"`apt install {facts.package[0]}`, or " if facts.package else ""
        raise UserError(
            f"data={facts.name} is not on this machine; {'three' if install else 'two'} ways to get it: "
            f"data.path=FOLDER with {facts.words}, or {install}a network from which Keras can download it"
        ) from error


@part
class Mnist(KnownImages):
    """MNIST (LeCun et al. 1998): 60,000 + 10,000 handwritten digits of 28x28 greys.

    Attributes:
        path: folder with `mnist.npz` or the four `*-ubyte.gz` files; None: Keras' download.
    """

    facts: ClassVar[Facts] = Facts(
        name="mnist",
        train=60_000,
        test=10_000,
        shape=(28, 28, 1),
        class_names=tuple("0123456789"),
        mean=(0.1307,),
        std=(0.3081,),
        mirrors=False,
        layouts=(npz("mnist.npz"), IDX),
    )


@part
class FashionMnist(KnownImages):
    """Fashion-MNIST (Xiao et al. 2017): 60,000 + 10,000 images of 28x28 greys in ten kinds of clothes.

    Attributes:
        path: folder with the four `*-ubyte.gz` files; None: Debian's `dataset-fashion-mnist`, then Keras' download.
    """

    facts: ClassVar[Facts] = Facts(
        name="fashion_mnist",
        train=60_000,
        test=10_000,
        shape=(28, 28, 1),
        class_names=(
            "T-shirt", "trouser", "pullover", "dress", "coat",
            "sandal", "shirt", "sneaker", "bag", "boot",
        ),
        mean=(0.286,),
        std=(0.353,),
        layouts=(IDX,),
        package=("dataset-fashion-mnist", "/usr/share/datasets/fashion-mnist"),
    )  # fmt: skip


_HUNDRED_NAMES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""
_TEN = tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "labels"
_HUNDRED = ("train",), "test", "fine_labels"


@part
class Cifar10(KnownImages):
    """CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 photographs of 32x32 in ten kinds of things.

    Attributes:
        path: folder with the batches of the Python version, or with `cifar-10-batches-py`; None: Keras' download.
    """

    facts: ClassVar[Facts] = Facts(
        name="cifar10",
        train=50_000,
        test=10_000,
        shape=(32, 32, 3),
        class_names=(
            "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
        ),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        layouts=(batches(*_TEN, inside="cifar-10-batches-py/"), batches(*_TEN)),
    )  # fmt: skip


@part
class Cifar100(KnownImages):
    """CIFAR-100 (Krizhevsky 2009): 50,000 + 10,000 photographs of 32x32 in a hundred kinds of things.

    Attributes:
        path: folder with the batches of the Python version, or with `cifar-100-python`; None: Keras' download.
    """

    facts: ClassVar[Facts] = Facts(
        name="cifar100",
        train=50_000,
        test=10_000,
        shape=(32, 32, 3),
        class_names=tuple(_HUNDRED_NAMES.split()),
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        layouts=(batches(*_HUNDRED, inside="cifar-100-python/"), batches(*_HUNDRED)),
    )
