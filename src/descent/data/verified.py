"""Image files are decoded once before a run uses them; what was found is remembered by path, size and time."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from descent.folder import write_atomic

ENDINGS = (".jpg", ".jpeg", ".png")
ORIENTATION = 0x0112  # the tag's number in EXIF 2.32, table 4
MANY = 5_000  # files; more of them are worth a word before the wait
WORTH = 1.0  # seconds; what was found faster is not written down

PNG_END = b"IEND\xaeB`\x82"  # its last chunk with the checksum, which Pillow does not ask for

Finding = int | str  # the EXIF orientation, 1 to 8, or what is wrong with the file
Known = dict[str, tuple[int, int, Finding]]  # by path: size, time of change, finding


class File(NamedTuple):
    """A file as listed: size in bytes, time of its last change in nanoseconds."""

    path: str
    size: int
    changed: int


def listed(folder: Path) -> list[File]:
    """The files under a folder whose names end like an image's; hidden ones are passed over."""
    found = []
    for base, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        images = (name for name in names if name.lower().endswith(ENDINGS) and not name.startswith("."))
        found += [_file(os.path.join(base, name)) for name in images]
    return sorted(found)


def _file(path: str) -> File:
    try:
        status = os.stat(path)
    except OSError:  # a link to nowhere: `look` says what is wrong
        return File(path, 0, 0)
    return File(path, status.st_size, status.st_mtime_ns)


def readable(path: str) -> str:
    """A path that can be printed, whatever bytes its name has."""
    return path.encode(errors="replace").decode()


def look(path: str) -> Finding:
    """Decodes a file whole. Returns its EXIF orientation, or what is wrong with it."""
    from PIL import Image, UnidentifiedImageError

    if path != readable(path):
        return "its name is not UTF-8"
    try:
        if os.path.getsize(path) == 0:
            return "empty"
        with Image.open(path, formats=("JPEG", "PNG")) as image:
            image.verify()  # checksums of a PNG, which decoding passes over
        with Image.open(path, formats=("JPEG", "PNG")) as image:
            image.load()
            orientation = image.getexif().get(ORIENTATION, 1)
            if image.format == "PNG" and PNG_END not in Path(path).read_bytes():
                return "truncated"
    except UnidentifiedImageError:
        return "neither JPEG nor PNG"
    except Exception as error:  # a damaged file can raise anything
        return f"{getattr(error, 'strerror', None) or error or type(error).__name__}"
    return orientation if orientation in range(1, 9) else 1


def findings(root: Path, files: Sequence[File]) -> list[Finding]:
    """What `look` finds of each file; only new and changed ones are read."""
    store = _store(root)
    known = _known(store)
    new = [file for file in files if known.get(file.path, (None, None))[:2] != (file.size, file.changed)]
    if len(new) > MANY:
        print(f"data: {len(new):,} images in {root} are read through, once", flush=True)
    began = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(look, (file.path for file in new))
        known.update({file.path: (file.size, file.changed, finding) for file, finding in zip(new, found, strict=True)})
    if time.monotonic() - began > WORTH:
        _write(store, {file.path: known[file.path] for file in files})
    return [known[file.path][2] for file in files]


def _store(root: Path) -> Path:
    """Under the user's caches, never among the images."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    name = hashlib.blake2b(str(root.resolve()).encode(), digest_size=8).hexdigest()
    return caches / "descent" / f"images-{name}.json"


@functools.cache
def _known(store: Path) -> Known:
    """What is remembered, read once in a process; nothing when the file is missing or damaged."""
    try:
        return {path: _row(*row) for path, row in json.loads(store.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _row(size: int, changed: int, finding: Finding) -> tuple[int, int, Finding]:
    return size, changed, finding


def _write(store: Path, known: Known) -> None:
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, nothing else
        store.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(store, json.dumps(known))


def few(lines: Iterable[str], count: int = 3) -> str:
    """The first few, and how many more there are."""
    every = list(lines)
    return ", ".join(every[:count]) + (f" and {len(every) - count} more" if len(every) > count else "")
