"""A process of a benchmark: `python -m benchmark_peers.worker VARIANT OVERRIDE ...`, spoken to by lines."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable

from benchmark_peers.turns import Finished, Turns
from descent import Experiment, compose

Run = Callable[[Experiment, Turns], None]


def ours(name: str, **changes: object) -> Run:
    def run(experiment: Experiment, turns: Turns) -> None:
        from benchmark_peers import ours

        getattr(ours, name)(experiment, turns, **changes)

    return run


def keras(name: str, **settings: object) -> Run:
    def run(experiment: Experiment, turns: Turns) -> None:
        from benchmark_peers import keras_peers, task

        getattr(keras_peers, name)(task.prepare(experiment), turns, **settings)

    return run


def pytorch(**settings: bool) -> Run:
    def run(experiment: Experiment, turns: Turns) -> None:
        sys.modules["triton"] = None  # type: ignore[assignment]  # beside TensorFlow it crashes; a CPU needs none of it
        from benchmark_peers import task, torch_peer

        torch_peer.train(task.prepare(experiment), turns, **settings)

    return run


def facts(experiment: Experiment, turns: Turns) -> None:
    from benchmark_peers import facts

    turns.answer(**facts.facts(experiment))


VARIANTS: dict[str, Run] = {
    "facts": facts,
    "descent": ours("session"),
    "descent_bf16": ours("session", precision="mixed_bfloat16"),
    "silent": ours("silent"),
    "unsaved": ours("unsaved"),
    "one_thread": ours("session", threads=1),
    "two_workers": ours("chief", threads=1),
    "follower": ours("follower", threads=1),
    "input": ours("pipeline"),
    "fit": keras("fit"),
    "fit_graph": keras("fit", jit=False, steps=32),
    "fit_xla": keras("fit", jit=True, steps=32),
    "loop": keras("loop"),
    "keras_input": keras("keras_input"),
    "torch": pytorch(),
    "torch_plain": pytorch(plain=True),
    "torch_compile": pytorch(compiled=True),
    "torch_bf16": pytorch(bfloat16=True),
    "torch_bf16_compile": pytorch(bfloat16=True, compiled=True),
}


def main() -> None:
    name, *overrides = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries print is no answer
    turns = Turns(sys.stdin, answers)
    try:
        VARIANTS[name](compose(*overrides), turns)
    except Finished:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        turns.answer(memory=memory, curve=turns.curve)
        os._exit(0)  # what a loop has running (threads, pools) need not end well


if __name__ == "__main__":
    main()
