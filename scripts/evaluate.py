"""Evaluates a finished run: python scripts/evaluate.py run=outputs/run/... [split=test].

Prints the split's metrics, per-class precision and recall, and writes `plots/confusion_<split>.png`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from descent.config import run_script
from descent.types import Split, part


@part
class Evaluate:
    """What to evaluate.

    Attributes:
        run: the run's folder.
        split: train, validation or test.
    """

    run: Annotated[str, Field(min_length=1)]
    split: Literal["train", "validation", "test"] = "test"

    def __call__(self) -> None:
        from descent import metric, plot
        from descent.config import restore

        experiment, built, folder = restore(self.run)
        split: Split = self.split
        targets, outputs = built.evaluator.outputs(split, built.state.weights())
        spec = experiment.data.spec
        record = built.evaluator.metrics(split, targets, outputs) | metric.final(spec, split, targets, outputs)
        for name, value in record.items():
            print(f"{name:20} {value:.6g}")
        if spec.num_classes:
            table = metric.confusion(targets, outputs, spec.num_classes)
            print(metric.class_report(table, spec.class_names))
            figure = plot.confusion(table, spec.class_names, f"{split} split")
            print(plot.save(figure, folder.plots, f"confusion_{split}"))


if __name__ == "__main__":
    run_script(Evaluate)
