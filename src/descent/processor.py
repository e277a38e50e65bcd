"""What the machine computes with, as Linux tells it."""

from __future__ import annotations

import contextlib
import functools
import platform
from pathlib import Path


def name() -> str:
    """The kind of CPU: libraries choose their kernels by it."""
    return _line("model name") or platform.processor() or platform.machine()


@functools.cache
def instructions() -> frozenset[str]:
    """The instruction sets of an x86 or ARM processor, as in `avx2`; empty where nobody tells."""
    return frozenset((_line("flags") or _line("Features")).split())


def multiplies_bfloat16() -> bool:
    return not instructions().isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})


def _line(key: str) -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(key):
                return line.split(":", 1)[1].strip()
    return ""
