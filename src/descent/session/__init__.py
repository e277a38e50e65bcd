"""One run in its folder: builds what the experiment describes, trains, evaluates, and writes it all down."""

from descent.session.building import Built, build
from descent.session.run import Run
from descent.session.running import Session

__all__ = ["Built", "Run", "Session", "build"]
