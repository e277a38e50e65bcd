"""Answers of a finished run: python scripts/predict.py run=outputs/run/... inputs=FILE|FOLDER [top=3] [out=FILE.csv].

The inputs are JPEG or PNG files of any size and mode, which are brought to the run's shape (EXIF orientation honoured;
cut or padded as its data is), a folder of them, or a .npy file of raw elements. Prints the `top` classes of each with
their probabilities, and writes them to `out`, by default to `predictions/NAME.csv` in the run's folder. Files that
cannot be read are named and left out.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from pydantic import Field

from descent.command import run_script
from descent.types import Count, part


@part
class Predict:
    """What to predict.

    Attributes:
        run: the run's folder.
        inputs: an image file, a folder of them, or a .npy file.
        top: how many classes of each, the most likely first.
        out: the CSV file; None: named after the inputs, in the run's folder.
    """

    run: Annotated[str, Field(min_length=1)]
    inputs: Annotated[str, Field(min_length=1)]
    top: Count = 3
    out: str | None = None

    def __call__(self) -> None:
        from descent import prediction
        from descent.config import restore
        from descent.data.verified import few

        inputs = prediction.find(self.inputs)
        experiment, built, folder = restore(self.run)
        answers = list(prediction.answer(built, inputs, getattr(experiment.data, "fit", "crop")))
        lines = prediction.rows(answers, built.pipeline.spec, self.top)
        place = Path(self.out) if self.out else folder.path / "predictions" / f"{Path(self.inputs).absolute().stem}.csv"
        prediction.write_csv(place, lines)
        print(prediction.table(lines))
        print(f"{len(answers):,} answers: {place}")
        if inputs.bad:
            print(f"{len(inputs.bad)} unreadable files are left out: {few(inputs.bad)}", file=sys.stderr)


if __name__ == "__main__":
    run_script(Predict)
