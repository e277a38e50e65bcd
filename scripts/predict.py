"""Answers of a finished run: python scripts/predict.py run=outputs/run/... inputs=FILE|FOLDER [top=3] [out=FILE.csv].

The inputs of a run on images are JPEG or PNG files of any size and mode, which are brought to the run's shape (EXIF
orientation honoured; cut or padded as its data is), or a folder of them. Those of a run on texts are the lines of a
.txt file, or a `column` of a .csv, .tsv or .jsonl file, read with the run's own vocabulary. Those of a run on a table
are a .csv or .tsv file with the same columns (the target may be missing), encoded as the run's own was. Any run takes a
.npy file of raw elements. Prints the `top` classes of each with their probabilities, and writes them to `out`, by
default to `predictions/NAME.csv` in the run's folder. Files that cannot be read, and texts without words, are named and
left out.
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
        inputs: an image file, a folder of them, a file of texts, a table, or a .npy file.
        column: of a table, or key of JSON lines, that holds the texts.
        top: how many classes of each, the most likely first.
        out: the CSV file; None: named after the inputs, in the run's folder.
    """

    run: Annotated[str, Field(min_length=1)]
    inputs: Annotated[str, Field(min_length=1)]
    column: str = "text"
    top: Count = 3
    out: str | None = None

    def __call__(self) -> None:
        from descent import prediction
        from descent.config import load_experiment, restore
        from descent.data.absent import Absent
        from descent.data.decoding import Fit
        from descent.data.raw_texts import SEPARATORS
        from descent.data.verified import few

        is_table = Path(self.inputs).suffix.lower() in SEPARATORS
        tabular = is_table and load_experiment(self.run, data=False).data.spec.kind == "tabular"
        inputs = prediction.find(self.inputs, self.column, tabular=tabular)
        experiment, built, folder = restore(self.run, data=False)
        data = experiment.data.own if isinstance(experiment.data, Absent) else experiment.data
        fit: Fit = getattr(data, "fit", "crop") if built.pipeline.spec.kind == "image" else "crop"
        answers = list(prediction.answer(built, inputs, data, fit))
        lines = prediction.rows(answers, built.pipeline.spec, self.top)
        place = Path(self.out) if self.out else folder.path / "predictions" / f"{Path(self.inputs).absolute().stem}.csv"
        prediction.write_csv(place, lines)
        print(prediction.table(lines))
        print(f"{len(answers):,} answers: {place}")
        if inputs.bad:
            what = "texts without words" if inputs.texts else "unreadable files"
            print(f"{len(inputs.bad)} {what} are left out: {few(inputs.bad)}", file=sys.stderr)


if __name__ == "__main__":
    run_script(Predict)
