"""How far a linear model gets on texts: python scripts/text_baseline.py data=docstrings [KEY=VALUE ...].

Any overrides of `train.py` that choose texts may follow. A logistic regression on TF-IDF of words and pairs of words
(scikit-learn's, fitted on the training split as the run cuts it), its strength chosen on the validation split.
Prints the share of the largest class, and the accuracy, on the test split.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.utils import get_class

from descent import UserError, compose
from descent.command import script_words
from descent.config import CONF
from descent.data.text import Text
from descent.entry import run_main
from descent.vocabulary import words

STRENGTHS = (1.0, 10.0, 100.0)  # C, one over the coefficient of the L2 penalty


def accuracies(source: Text) -> dict[str, float]:
    """Of always guessing the largest class, and of the logistic regression: on the test split."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    splits = source.texts()
    terms = TfidfVectorizer(analyzer=_terms, min_df=2, sublinear_tf=True)
    x = {"train": terms.fit_transform(splits["train"][0])}
    x |= {split: terms.transform(splits[split][0]) for split in ("validation", "test")}
    y = {split: np.array(labels) for split, (_, labels) in splits.items()}
    fits = [LogisticRegression(C=c, max_iter=300).fit(x["train"], y["train"]) for c in STRENGTHS]
    best = max(fits, key=lambda fit: fit.score(x["validation"], y["validation"]))
    largest = np.bincount(y["train"]).argmax()
    return {"largest class": float(np.mean(y["test"] == largest)), "TF-IDF": best.score(x["test"], y["test"])}


def _terms(text: str) -> list[str]:
    single = words(text)
    return [*single, *(f"{a} {b}" for a, b in itertools.pairwise(single))]


def _check_texts(given: Sequence[str]) -> None:
    """Whether the data is texts: before a model for these is chosen, of whose mistakes nobody could make sense.

    Raises:
        UserError: it is something else.
    """
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra_compose("train", list(given))
    kind = get_class(str(config.data._target_))
    if not issubclass(kind, Text):
        option = next((word for word in given if word.startswith("data=")), "data=digits")
        raise UserError(f"{option}: should be texts, as in data=docstrings; this baseline is for nothing else")


def main() -> None:
    given = script_words(__doc__)
    _check_texts(given)
    experiment = compose(*given, "model=bag_of_embeddings", "augmentation=none")
    assert isinstance(experiment.data, Text)
    for name, accuracy in accuracies(experiment.data).items():
        print(f"test accuracy of {name}: {accuracy:.2%}")


if __name__ == "__main__":
    run_main(main)
