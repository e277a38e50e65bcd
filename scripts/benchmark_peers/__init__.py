"""What `scripts/benchmark.py` times a run against, written as their own tutorials write them.

Every peer trains the model of a config from the same weights, on the same batches in size, with the same
augmentation, mixing, loss, clipping, optimizer, rates and metrics. Each runs in a process of its own (`worker.py`)
and calls `turns(steps, loss)` wherever it may be paused.
"""
