"""Every combination of the values given."""

from __future__ import annotations

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper


class GridSweeper(BasicSweeper):
    """Hydra's own sweeper. Our launchers compose every job before the first starts; it need not do so, too."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        pass
