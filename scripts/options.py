"""The option table of the README, made from conf/: python scripts/options.py writes it anew."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- options: made by `make options` -->", "<!-- end of options -->"
ORDER = (
    "data", "augmentation", "augmentation/sample", "augmentation/batch", "model", "loss", "regularization", "sharpness",
    "clipping",
    "optimizer", "schedule", "averaging", "trainer", "strategy", "callback", "logger", "experiment", "sweep", "debug",
)  # fmt: skip


def headline(path: Path) -> str:
    """The first comment of an option file that is not a directive."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return next(line[1:].strip() for line in lines if line.startswith("#") and "@package" not in line)


def table() -> str:
    lines = ["| group | option | what it is |", "| --- | --- | --- |"]
    for group in ORDER:
        for i, path in enumerate(sorted((ROOT / "conf" / group).glob("*.yaml"))):
            lines.append(f"| {f'`{group}`' if i == 0 else ''} | `{path.stem}` | {headline(path)} |")
    return "\n".join(lines)


def with_table(readme: str) -> str:
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(with_table(path.read_text(encoding="utf-8")), encoding="utf-8")
