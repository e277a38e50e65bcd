"""Sources of which a run keeps something in its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from descent.types import UserError

FILE = "data.json"


def content(folder: Path) -> dict[str, Any]:
    """What the folder of a run keeps of its data.

    Raises:
        UserError: the file is damaged.
    """
    try:
        kept: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / FILE} is damaged: {error}") from error
    if "digest" not in kept:
        raise UserError(f"{folder / FILE} is damaged: it has no digest")
    return kept


@runtime_checkable
class Remembered(Protocol):
    """A source of which a run keeps what later uses of it need: what was fitted on its training split (a vocabulary,
    an encoding), and a digest that tells whether the samples are still the same.
    """

    def digest(self) -> str:
        """Of everything that the splits are cut from."""
        ...

    def prepare(self) -> Any:
        """Reads (or downloads) and fits, so that `spec` is complete. Called when a run starts."""
        ...

    def keep(self, folder: Path) -> None:
        """Writes what was fitted into the folder of a run."""
        ...

    def kept(self, folder: Path) -> Any:
        """The same source with what the folder of a run holds in place of a fit of its own; itself if nothing."""
        ...
