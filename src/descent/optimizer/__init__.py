"""Optimizers: the numbers of a Keras optimizer, which is built when the run starts.

`learning_rate` is the peak; the schedule's fraction multiplies it at every step. `weight_decay` is decoupled
everywhere (Loshchilov & Hutter 2019): each step first takes `learning_rate * weight_decay * w` off the weights, apart
from the gradient. Biases and normalisation are spared unless `decay_all` is set.

Keras' class is used where it is the algorithm of the paper; else the rule is in `rules.py`.
"""

from descent.optimizer.adaptive import Adadelta, Adafactor, Adagrad, Adam, Adamax, AdamW, Nadam, RMSprop
from descent.optimizer.base import Optimizer
from descent.optimizer.momentum import SGD
from descent.optimizer.normalized import LAMB, LARS, Lion, Muon

__all__ = [
    "Optimizer",
    "SGD",
    "Adam",
    "AdamW",
    "Nadam",
    "Adamax",
    "Adagrad",
    "Adadelta",
    "RMSprop",
    "Adafactor",
    "Lion",
    "LAMB",
    "LARS",
    "Muon",
]
