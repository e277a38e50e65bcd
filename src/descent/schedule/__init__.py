"""Learning-rate schedules: shapes from the fraction of the run to the fraction of the peak.

A schedule is evaluated once, on the host, at the middle of every step: (step + 1/2) / total. So the first step of
a warm-up has a rate above zero, a milestone given in steps holds from that very step on, and a schedule may be
any Python function. It knows neither the peak (the optimizer's) nor the length (the trainer's).
"""

from descent.schedule.base import Schedule
from descent.schedule.custom import Custom, example
from descent.schedule.cycle import CosineRestarts, OneCycle
from descent.schedule.decay import WSD, Constant, Cosine, Exponential, InverseSqrt, Linear, Polynomial
from descent.schedule.stepwise import MultiStep, Step

__all__ = [
    "Constant",
    "Cosine",
    "CosineRestarts",
    "Custom",
    "Exponential",
    "InverseSqrt",
    "Linear",
    "MultiStep",
    "OneCycle",
    "Polynomial",
    "Schedule",
    "Step",
    "WSD",
    "example",
]

# A saved config and a run's hash name a schedule by where it is imported from, not by the file it stands in.
for _name in __all__:
    globals()[_name].__module__ = __name__
