"""Sources that fit something on their training split: a vocabulary, a standardisation."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Fitted(Protocol):
    """A source whose run keeps what was fitted, so that evaluation, prediction and resuming use the same."""

    def fit(self) -> None:
        """Reads (or downloads) and fits, so that `spec` is complete. Called when a run starts."""
        ...

    def keep(self, folder: Path) -> None:
        """Writes what was fitted into the folder of a run."""
        ...

    def kept(self, folder: Path) -> Any:
        """The same source with what the folder of a run holds in place of a fit of its own; itself if nothing."""
        ...
