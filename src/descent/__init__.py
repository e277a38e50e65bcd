"""Descent: train networks well in TensorFlow, and find out which technique helped."""

import os

# Before Keras is imported anywhere: a user's global Keras file must not choose another engine.
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from descent.config import compose, load
from descent.experiment import Experiment, Result
from descent.types import Batch, Record, Spec, UserError, part

__all__ = ["Batch", "Experiment", "Record", "Result", "Spec", "UserError", "compose", "load", "part"]
__version__ = "0.1.0"
