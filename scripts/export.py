"""Exports a finished run: python scripts/export.py run=outputs/run/... [format=saved_model,keras,litert,onnx].

Writes the model with its best weights, from raw elements (bytes of an image) to probabilities, to `export/` in the
run's folder or to `out=FOLDER`: `saved_model/` (with class names), `model.keras` (README: which of them
need `descent` to be loaded), `model.tflite`, `model.onnx`, and `export.json` about all of them. Each is compared with
the run's own outputs on test samples, and kept only if they agree.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from descent.command import run_script
from descent.export import Format
from descent.types import UserError, part


def _listed(value: Any) -> Any:
    return tuple(value.split(",")) if isinstance(value, str) else value


@part
class ExportRun:
    """What to export.

    Attributes:
        run: the run's folder.
        format: one of saved_model, keras, litert and onnx, or several with commas between.
        out: the folder to write to; None: `export/` in the run's.
    """

    run: Annotated[str, Field(min_length=1)]
    format: Annotated[tuple[Format, ...], BeforeValidator(_listed), Field(min_length=1)] = ("saved_model",)
    out: str | None = None

    def __call__(self) -> None:
        from descent.config import restore
        from descent.export import export, require

        require(self.format)
        try:
            experiment, built, folder = restore(self.run)
        except UserError as error:
            experiment, built, folder = restore(self.run, data=False)
            print(f"{error}; each format is tried on elements that are made up", flush=True)
        place = Path(self.out).absolute() if self.out else folder.path / "export"
        for made in export(experiment, built, place, self.format):
            print(f"{made.path}  largest difference {made.difference:.1e}")


if __name__ == "__main__":
    run_script(ExportRun)
