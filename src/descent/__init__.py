"""Descent: train networks well in TensorFlow, and find out which technique helped."""

import gc
import os
import sys

# Before Keras is imported anywhere: a user's global Keras file must not choose another engine.
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "tensorflow" not in sys.modules:  # where it is, it has chosen already
    # With its kernels convolutions take half the time also on processors where TensorFlow leaves them off (AVX2).
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

_collects = gc.isenabled()
gc.disable()  # to look for garbage among what stays took a third of the time

from descent.config import compose, load  # noqa: E402
from descent.experiment import Experiment, Result  # noqa: E402
from descent.types import Batch, Record, Spec, UserError, part  # noqa: E402

if _collects:
    gc.enable()

__all__ = ["Batch", "Experiment", "Record", "Result", "Spec", "UserError", "compose", "load", "part"]
__version__ = "0.1.0"
