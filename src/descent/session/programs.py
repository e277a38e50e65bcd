"""What a process has compiled for a run, kept for a next one with the same program: another seed, other rates.

To trace and compile is most of a short run. It is for processes where nobody keeps a run's model: the next run with the
same program takes it over, and puts into all its variables what new ones would hold.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from etils import epy

from descent import identity
from descent.data import Remembered
from descent.session.building import Built, build, renewed

with epy.lazy_imports():
    import tensorflow as tf

if TYPE_CHECKING:
    from descent.experiment import Experiment

LARGE = 2**24  # parameters; to make a larger model beside the one there is may take memory that a run has not got

_USED: ContextVar[Programs | None] = ContextVar("programs", default=None)


class Programs:
    """The program of the last run of this process; None before the first, and after one that went wrong."""

    def __init__(self) -> None:
        self.traits: Any = None
        self.built: Built | None = None

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Inside, runs take over what is here where they can, and leave their own."""
        token = _USED.set(self)
        try:
            yield
        except BaseException:
            self.forget()
            raise
        finally:
            _USED.reset(token)

    def build(self, experiment: Experiment) -> Built:
        """As `session.build`."""
        there, self.built = self.built, None
        data = experiment.data
        traits = identity.program(experiment), data.spec, data.digest() if isinstance(data, Remembered) else None
        if there and traits == self.traits:
            built = renewed(there, experiment)
        else:
            there = None  # before there is another
            built = build(experiment)
        alone = built.step.strategy is tf.distribute.get_strategy()
        if alone and built.state.model.count_params() <= LARGE:
            self.traits, self.built = traits, built
        return built

    def forget(self) -> None:
        """What is left of a run that went wrong is not used again."""
        self.built = None


HERE = Programs()


def obtain(experiment: Experiment) -> Built:
    """What a resolved experiment becomes, made anew or taken over."""
    programs = _USED.get()
    return programs.build(experiment) if programs else build(experiment)
