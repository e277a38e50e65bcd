"""Sources of which a run keeps something in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

FILE = "data.json"


@runtime_checkable
class Remembered(Protocol):
    """A source of which a run keeps what later uses of it need: what was fitted on its training split (a vocabulary,
    an encoding), and a digest that tells whether the samples are still the same.
    """

    @property
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
