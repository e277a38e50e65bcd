"""Size caps: prints what is over them and exits 1. A file 400 lines, a function 40 (aim for 250 and 10)."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILE_LINES, FUNCTION_LINES = 400, 40


def over() -> Iterator[str]:
    for folder in ("src", "scripts", "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            name, lines = path.relative_to(ROOT), text.count("\n")
            if lines > FILE_LINES:
                yield f"{name}: {lines} lines, at most {FILE_LINES}"
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    length = (node.end_lineno or node.lineno) - node.lineno + 1
                    if length > FUNCTION_LINES:
                        yield f"{name}:{node.lineno}: {node.name} has {length} lines, at most {FUNCTION_LINES}"


if __name__ == "__main__":
    found = list(over())
    print("\n".join(found) or "sizes: all within the caps")
    sys.exit(bool(found))
