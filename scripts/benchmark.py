"""How fast a run trains, and beside what: python scripts/benchmark.py [KEY=VALUE ...] [vs=fit,torch] [rounds=5].

Any overrides of `train.py` may follow. Descent is timed as it is used: evaluation every `trainer.eval_every`, log and
TensorBoard included. Each of the others, from `vs`, trains the same model from the same weights, with the
same augmentation, mixing, loss, clipping, optimizer, rates and metrics:

    fit                       model.fit with Keras' own layers and its defaults, TensorFlow as it comes
    fit_best                  with steps_per_execution, oneDNN, and jit_compile on (fit_xla) and off (fit_graph)
    loop                      a custom loop as in the tutorials: a tf.function a step, Keras metrics
    torch, torch_compile      PyTorch (pip install -e '.[torch]'), eager and compiled
    torch_plain               as its tutorials have it: a DataLoader, and the optimizer not fused
    torch_bf16, torch_bf16_compile    the same under bfloat16 autocast with channels last
    descent_bf16              Descent in mixed_bfloat16
    silent, unsaved           Descent without logging; without checkpoints
    one_thread, two_workers   Descent on one thread; in two processes of one thread each, which share the batch
    input, keras_input        no training: Descent's pipeline; five layers of Keras like augmentation=standard

Every variant is a process that is kept alive; they train in turn (A B A B), `seconds` at a time, so that whatever else
the machine does falls on all of them. Early stopping is off, and the run is made longer than the benchmark.
FLOPs, and with them the share of the machine's peak, are those of plain convolutions; Winograd's need fewer.
Prints a table of medians; a JSON row for each variant goes to `outputs/benchmark/`, or to `out=FOLDER`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Annotated, Any

from pydantic import BeforeValidator

from descent import UserError, compose
from descent.command import parted, script_words
from descent.config import PROJECT
from descent.entry import run_main
from descent.types import Count, Positive, part

SCRIPTS = Path(__file__).parent
# What a benchmark changes in the run: long enough never to end, and nothing that stops it.
ALWAYS = ("callback=[checkpoint]", "trainer.epochs=null", "trainer.steps=1000000")
ALIASES = {"fit_best": ("fit_graph", "fit_xla")}
# The names in `benchmark_peers.worker.VARIANTS`.
KNOWN = (
    *("fit", "fit_graph", "fit_xla", "loop", "torch", "torch_plain", "torch_compile"),
    *("torch_bf16", "torch_bf16_compile"),
    *("descent_bf16", "silent", "unsaved", "one_thread", "two_workers", "input", "keras_input"),
)
ONLY_INPUT = ("input", "keras_input")
AS_IT_COMES = ("fit", "loop", "keras_input")  # without oneDNN on processors where TensorFlow leaves it off
TRAINING = 3  # passes over the model in a step: forward, and twice as much backward (by weights and by inputs)


def _variants(value: Any) -> tuple[str, ...]:
    words = [word for word in (value.split(",") if isinstance(value, str) else value or ()) if word]
    names = [name for word in words for name in ALIASES.get(word, (word,))]
    if not set(names) <= set(KNOWN):
        raise ValueError(f"there is no such variant; choose of {', '.join([*KNOWN, *ALIASES])}")
    return tuple(dict.fromkeys(names))


@part
class Benchmark:
    """How it is measured.

    Attributes:
        vs: what to time beside Descent.
        rounds: turns of each variant that count; one more comes before, to warm up.
        seconds: of one turn.
        out: folder of the rows.
    """

    vs: Annotated[tuple[str, ...], BeforeValidator(_variants)] = ("fit",)
    rounds: Count = 5
    seconds: Positive = 3.0
    out: str = str(PROJECT / "outputs/benchmark")


class Worker:
    """The process of a variant.

    Attributes:
        first: seconds from the start of the process to the end of its first step (for Descent, its first call).
        rates: steps a second in each round.
    """

    def __init__(self, name: str, overrides: list[str]) -> None:
        self.name, began = name, time.perf_counter()
        self.rates: list[float] = []
        environment = {**os.environ, "PYTHONPATH": str(SCRIPTS), "TF_CPP_MIN_LOG_LEVEL": "3"}
        if name in AS_IT_COMES:
            environment["TF_ENABLE_ONEDNN_OPTS"] = "default"  # neither 0 nor 1: TensorFlow chooses
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmark_peers.worker", name, *overrides],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self.started = self._answer()
        self.first = time.perf_counter() - began

    def turn(self, seconds: float) -> float:
        """Trains for about so long; returns steps a second."""
        self._order(f"go {seconds}")
        done = self._answer()
        return done["steps"] / done["seconds"]

    def end(self) -> dict[str, Any]:
        """The last answer: peak memory, in MB, and the training curve."""
        self._order("end")
        return self._answer()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing of the process is left: neither itself nor its pipes."""
        self.process.kill()
        self.process.communicate()

    def _order(self, words: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        if line := self.process.stdout.readline():
            return json.loads(line)
        said = self.process.communicate()[1].strip().splitlines() or ["it ended without a word"]
        code = self.process.returncode
        raise UserError(f"{self.name}: {said[-1] if code >= 0 else f'it was ended by signal {-code}'}")


def measure(benchmark: Benchmark, overrides: list[str]) -> list[dict[str, Any]]:
    """A row for each variant, Descent's first."""
    batch_size = compose(*overrides).trainer.batch_size
    with Worker("facts", overrides) as worker:
        facts = worker.started
    with contextlib.ExitStack() as open_workers:
        workers = [open_workers.enter_context(Worker(name, overrides)) for name in ("descent", *benchmark.vs)]
        for number in range(benchmark.rounds + 1):
            for worker in workers:
                rate = worker.turn(benchmark.seconds)
                worker.rates += [rate] if number else []
        ends = [worker.end() for worker in workers]
    losses = compared([end["curve"] for worker, end in zip(workers, ends, strict=True)], workers)
    return [
        {
            "variant": worker.name,
            "overrides": overrides,
            "samples_per_second": batch_size * median(worker.rates),
            "spread": [batch_size * min(worker.rates), batch_size * max(worker.rates)],
            "step_ms": 1e3 / median(worker.rates),
            "descent_is": median(a / b for a, b in zip(workers[0].rates, worker.rates, strict=True)),
            "first_step_seconds": worker.first,
            "memory_mb": end["memory"],
            **work(worker, facts, batch_size),
            "loss": loss,
            "rounds": [batch_size * rate for rate in worker.rates],
        }
        for worker, end, loss in zip(workers, ends, losses, strict=True)
    ]


def work(worker: Worker, facts: dict[str, float], batch_size: int) -> dict[str, Any]:
    """The arithmetic of a variant that trains, beside the machine's own convolutions and products."""
    if worker.name in ONLY_INPUT:
        return {"flops_per_sample": None, "gflops": None, "of_conv_peak": None, "of_gemm_peak": None}
    dtype = "bfloat16" if "bf16" in worker.name else "float32"
    reached = TRAINING * facts["flops"] * batch_size * median(worker.rates)
    return {
        "flops_per_sample": TRAINING * facts["flops"],
        "gflops": reached / 1e9,
        "of_conv_peak": reached / facts[f"conv_{dtype}"],
        "of_gemm_peak": reached / facts[f"gemm_{dtype}"],
    }


def compared(curves: list[list[tuple[int, float]]], workers: list[Worker]) -> list[float | None]:
    """The mean training loss of each over the second half of the steps that all of them have done."""
    trained = [c for c, worker in zip(curves, workers, strict=True) if worker.name not in ONLY_INPUT]
    horizon = min(curve[-1][0] for curve in trained)

    def late(curve: list[tuple[int, float]]) -> float:
        total, weight, before = 0.0, 0, 0
        for step, loss in curve:
            inside = max(0, min(step, horizon) - max(before, horizon // 2))
            total, weight, before = total + inside * loss, weight + inside, step
        return total / weight

    return [None if w.name in ONLY_INPUT else late(c) for c, w in zip(curves, workers, strict=True)]


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| variant | samples/s | spread | Descent is | ms a step | first step | memory | of its peak | loss |",
        "| --- | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for row in rows:
        low, high = row["spread"]
        peak = f"{row['of_conv_peak']:.0%}" if row["of_conv_peak"] else ""
        cells = [
            f"`{row['variant']}`", f"{row['samples_per_second']:,.0f}", f"{low:,.0f} - {high:,.0f}",
            f"{row['descent_is']:.2f}x", f"{row['step_ms']:.3g}", f"{row['first_step_seconds']:.1f} s",
            f"{row['memory_mb']:,.0f} MB", peak, f"{row['loss']:.3f}" if row["loss"] else "",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    benchmark, overrides = parted(Benchmark, script_words(__doc__))
    rows = measure(benchmark, [*ALWAYS, *overrides])
    name = re.sub(r"[^\w.+=-]+", "-", "-".join(overrides))[:100].strip("-") or "default"
    path = Path(benchmark.out) / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(table(rows))
    rates = {row["variant"]: row["samples_per_second"] for row in rows}
    if {"one_thread", "two_workers"} <= set(rates):
        print(f"\nscaling efficiency of two processes: {rates['two_workers'] / rates['one_thread'] / 2:.0%}")
    print(f"\nrows: {path}")


if __name__ == "__main__":
    run_main(main)
