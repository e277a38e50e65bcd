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
from descent.types import Count, Record, Spec, part
from descent.views import MOST, Views

if TYPE_CHECKING:
    from descent.folder import RunFolder
    from descent.metric import Outcome
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

    def __post_init__(self) -> None:
        if self.views == "shift" and self.tta > MOST:
            raise ValueError(f"tta={self.tta}: there are at most {MOST} views by views=shift")

    def __call__(self) -> None:
        from descent.config import restore

        experiment, built, folder = restore(self.run)
        outcome = self.outcome(built)
        for name, value in self.record(built.pipeline.spec, outcome).items():
            print(f"{name:20} {value:.6g}")
        if experiment.data.spec.num_classes:
            self.draw(experiment.data.spec, folder, outcome)

    def outcome(self, built: Built) -> Outcome:
        """Of the samples alone, or of means over several views."""
        from descent import views

        if self.tta > 1:
            return views.outcome(built, self.split, self.tta, self.views)
        return built.evaluator.outcome(self.split)

    def record(self, spec: Spec, outcome: Outcome) -> Record:
        """Every metric; the run's own loss is of single answers, and has no meaning for means of several."""
        from descent import metric

        return metric.evaluate(spec, self.split, outcome) | metric.final(spec, self.split, outcome)

    def draw(self, spec: Spec, folder: RunFolder, outcome: Outcome) -> None:
        from descent import metric, plot, report

        targets, outputs, _ = outcome
        table = metric.confusion(targets, outputs, spec.num_classes or 0)
        print(metric.class_report(table, spec.class_names))
        end = self.split if self.tta == 1 else f"{self.split}_{self.tta}_{self.views}"
        what = f"{self.split} split" if self.tta == 1 else f"{self.split} split, {self.tta} views"
        print(plot.save(plot.confusion(table, spec.class_names, what), folder.plots, f"confusion_{end}"))
        figure = report.calibration(targets, metric.softmax(outputs), what)
        print(plot.save(figure, folder.plots, f"calibration_{end}"))


if __name__ == "__main__":
    run_script(Evaluate)
