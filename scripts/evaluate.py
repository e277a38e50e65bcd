"""Evaluates a finished run: python scripts/evaluate.py run=outputs/run/... [split=test] [tta=8] [views=augmentation].

Prints the split's metrics and each class' precision, recall and F1, and writes the confusion matrix and the
calibration (reliability) diagram to the run's `plots/`. With `tta=N` the probabilities are means over N views of each
sample, the first being the sample itself: draws of the run's own augmentation, or with `views=shift` its mirror image
and small shifts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from descent.command import run_script
from descent.types import Count, Record, Spec, Split, part
from descent.views import Views

if TYPE_CHECKING:
    import numpy as np

    from descent.folder import RunFolder
    from descent.session import Built


@part
class Evaluate:
    """What to evaluate.

    Attributes:
        run: the run's folder.
        split: train, validation or test.
        tta: views of each sample whose answers are averaged; 1: the sample alone.
        views: what they are.
    """

    run: Annotated[str, Field(min_length=1)]
    split: Literal["train", "validation", "test"] = "test"
    tta: Count = 1
    views: Views = "augmentation"

    def __call__(self) -> None:
        from descent.config import restore

        experiment, built, folder = restore(self.run)
        targets, outputs = self.outputs(built)
        for name, value in self.record(built, targets, outputs).items():
            print(f"{name:20} {value:.6g}")
        if experiment.data.spec.num_classes:
            self.draw(experiment.data.spec, folder, targets, outputs)

    def outputs(self, built: Built) -> tuple[np.ndarray, np.ndarray]:
        """Targets [m], and outputs [m, n]: logits, or logarithms of mean probabilities."""
        from descent import views

        if self.tta > 1:
            return views.outputs(built, self.split, self.tta, self.views)
        return built.evaluator.outputs(self.split, built.state.weights())

    def record(self, built: Built, targets: np.ndarray, outputs: np.ndarray) -> Record:
        """Every metric; the run's own loss is of single answers, and has no meaning for means of several."""
        from descent import metric

        split: Split = self.split
        record = built.evaluator.metrics(split, targets, outputs)
        if self.tta > 1:
            record.pop(f"{metric.PREFIX[split]}/loss")
        return record | metric.final(built.pipeline.spec, split, targets, outputs)

    def draw(self, spec: Spec, folder: RunFolder, targets: np.ndarray, outputs: np.ndarray) -> None:
        from descent import metric, plot, report

        table = metric.confusion(targets, outputs, spec.num_classes or 0)
        print(metric.class_report(table, spec.class_names))
        end = self.split if self.tta == 1 else f"{self.split}_{self.tta}_{self.views}"
        what = f"{self.split} split" if self.tta == 1 else f"{self.split} split, {self.tta} views"
        print(plot.save(plot.confusion(table, spec.class_names, what), folder.plots, f"confusion_{end}"))
        figure = report.calibration(targets, metric.softmax(outputs), what)
        print(plot.save(figure, folder.plots, f"calibration_{end}"))


if __name__ == "__main__":
    run_script(Evaluate)
