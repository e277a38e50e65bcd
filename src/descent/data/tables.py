"""Small tables that everyone knows, from scikit-learn: three are shipped with it, one is downloaded."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any, ClassVar

import numpy as np

from descent.data.table import Encoding, Rows, Table, numeric
from descent.types import Flag, Spec, UserError, part


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a table before it is read.

    Attributes:
        target: name of the target.
        rows, features: its size.
        class_names: its classes, or none where the target is real.
    """

    target: str
    rows: int
    features: int
    class_names: tuple[str, ...] = ()


@part
class KnownTable(Table):
    """A table of numbers whose size is known before it is read, and checked when it is."""

    facts: ClassVar[Facts]

    @property
    def spec(self) -> Spec:
        """Complete once the table is read; before, without what is fitted."""
        if self.read is not None:
            return super().spec
        return Spec(
            kind="tabular",
            shape=(self.facts.features,),
            sizes=self.sizes(self.facts.rows),
            num_classes=len(self.facts.class_names) or None,
            class_names=self.facts.class_names,
        )

    def load(self) -> Any:
        """Scikit-learn's bunch."""
        raise NotImplementedError

    def rows(self) -> Rows:
        bunch, facts = self.load(), self.facts
        if bunch.data.shape != (facts.rows, facts.features):
            raise UserError(
                f"data: {type(self).__name__} has {bunch.data.shape[0]} rows of {bunch.data.shape[1]} features, "
                f"not the {facts.rows} of {facts.features} that are declared"
            )
        labels = bunch.target.astype(np.int32 if facts.class_names else np.float32)
        parts = self.parts(labels if facts.class_names else np.zeros(len(labels), int))
        values = {str(name): bunch.data[:, i].astype(np.float64) for i, name in enumerate(bunch.feature_names)}
        columns = tuple(numeric(name, own[parts["train"]]) for name, own in values.items())
        encoding = Encoding(columns=columns, target=facts.target, classes=facts.class_names)
        if getattr(self, "standardize_target", False):
            encoding = encoding.standardizing(bunch.target[parts["train"]])
        digest = hashlib.sha256(np.ascontiguousarray(bunch.data).tobytes() + labels.tobytes()).hexdigest()
        return Rows(encoding, values, labels, parts, digest)


@part
class RealTable(KnownTable):
    """A known table with a real target.

    Attributes:
        standardize_target: let the loss see the target in standard deviations from its mean, both of the training
            rows; outputs and metrics stay in its own unit.
    """

    standardize_target: Flag = True


@part
class Diabetes(RealTable):
    """442 patients: ten measurements, and the progression of diabetes a year later (Efron et al. 2004), 25 to 346."""

    facts: ClassVar[Facts] = Facts(target="progression", rows=442, features=10)

    def load(self) -> Any:
        from sklearn.datasets import load_diabetes

        return load_diabetes(scaled=False)


@part
class BreastCancer(KnownTable):
    """569 tumours, malignant or benign, by 30 measures of their cells (Street et al. 1993)."""

    facts: ClassVar[Facts] = Facts(target="diagnosis", rows=569, features=30, class_names=("malignant", "benign"))

    def load(self) -> Any:
        from sklearn.datasets import load_breast_cancer

        return load_breast_cancer()


@part
class Wine(KnownTable):
    """178 wines of three growers, by 13 chemical measures (Aeberhard & Forina 1991)."""

    facts: ClassVar[Facts] = Facts(
        target="grower", rows=178, features=13, class_names=("class_0", "class_1", "class_2")
    )

    def load(self) -> Any:
        from sklearn.datasets import load_wine

        return load_wine()


@part
class CaliforniaHousing(RealTable):
    """20,640 districts of California: eight measures, and the median price of a house in 100,000 dollars (Pace & Barry
    1997). Prices above 5 are cut to 5.00001.

    Attributes:
        path: scikit-learn's data folder, where it keeps what it downloads; None: `~/scikit_learn_data`.
    """

    facts: ClassVar[Facts] = Facts(target="median house value", rows=20_640, features=8)

    path: str | None = None

    def load(self) -> Any:
        from sklearn.datasets import fetch_california_housing

        try:
            return fetch_california_housing(data_home=self.path, n_retries=1)
        except Exception as error:  # whatever the network raises, the way out is the same
            raise UserError(
                "data=california_housing is not on this machine; two ways to get it: a network from which scikit-learn "
                "can download it, or data.path=FOLDER with the cal_housing_py3.pkz of a machine that has one"
            ) from error
