"""Where a run computes."""

from __future__ import annotations

from etils import epy

from descent.types import part

with epy.lazy_imports():
    import tensorflow as tf


@part
class Single:
    """One replica: the first GPU if there is one, else the CPU."""

    def build(self) -> tf.distribute.Strategy:
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
        return tf.distribute.get_strategy()
