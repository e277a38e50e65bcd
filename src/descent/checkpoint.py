"""Checkpoints: written whole or not at all, verified when read; the newest valid one wins.

One is a folder `step-000123` of one `.npz` for each kind of variable, `host.json`, and `manifest.json` with the
SHA-256 of every file and of itself, and the path, shape and type of every variable. It is written under a temporary
name, synced, and renamed; so a folder with the right name is complete, unless the disk has damaged it, which the
digests show.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import json
import math
import os
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from descent.folder import sync_folder
from descent.types import UserError

MANIFEST = "manifest.json"


class Saved(NamedTuple):
    """A checkpoint read back.

    Attributes:
        about: its manifest: `step`, `variables`, and what the writer added.
    """

    step: int
    arrays: dict[str, list[np.ndarray]]
    host: dict[str, Any]
    path: Path
    about: dict[str, Any]


class Damaged(Exception):
    """A checkpoint that is not what was written."""


def save(
    folder: Path,
    step: int,
    arrays: dict[str, list[np.ndarray]],
    host: dict[str, Any],
    paths: dict[str, list[str]],
    keep: int,
    anchors: int = 1,
    **about: Any,
) -> Path:
    """Writes a checkpoint and removes all but the newest `keep`; returns once it is durable.

    The newest `anchors` that are `about` a `periodic` save stay, too: a rollback needs them.
    """
    files = {f"{kind}.npz": _pack(group) for kind, group in arrays.items()}
    files["host.json"] = json.dumps(host).encode()
    variables = {
        kind: [
            {"path": path, "shape": list(a.shape), "dtype": str(a.dtype)}
            for path, a in zip(paths[kind], group, strict=True)
        ]
        for kind, group in arrays.items()
    }
    final = write(folder, f"step-{step:06d}", files, {"step": step, "variables": variables, **about})
    found = _found(folder)
    kept = [*found[:keep], *itertools.islice(filter(_is_periodic, found), anchors)]
    for old in found:
        if old not in kept:
            remove(old)
    return final


def remove(path: Path) -> None:
    """Removes a checkpoint, under another name first, so that none is ever seen half removed."""
    gone = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(gone, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def set_aside(path: Path) -> None:
    """Renames a damaged checkpoint `step-...` to `damaged-...`, so that it counts no more."""
    aside = path.with_name(path.name.replace("step-", "damaged-"))
    shutil.rmtree(aside, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.rename(aside)


def _is_periodic(path: Path) -> bool:
    try:
        return bool(json.loads((path / MANIFEST).read_bytes()).get("periodic"))
    except (OSError, ValueError, AttributeError):
        return False


def write(folder: Path, name: str, files: dict[str, bytes], about: dict[str, Any]) -> Path:
    """Writes a folder of files with its manifest, atomically and durably; replaces one of that name."""
    folder.mkdir(exist_ok=True)  # not its parents: a run folder that has vanished is not made anew
    temporary, final = folder / f".{name}.tmp", folder / name
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    digests = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
    content = {**about, "sha256": digests}
    manifest = json.dumps({**content, "self": _digest(content)}, indent=1).encode()
    try:
        for file, data in {**files, MANIFEST: manifest}.items():
            _write_synced(temporary / file, data)
        sync_folder(temporary)
        if final.exists():
            final.rename(folder / f".{name}.old")
        temporary.rename(final)
        sync_folder(folder)
    finally:
        for leftover in (temporary, folder / f".{name}.old"):
            shutil.rmtree(leftover, ignore_errors=True)
    return final


def newest(folder: Path, *, periodic: bool = False, below: float = math.inf) -> tuple[Saved | None, list[str]]:
    """The newest valid checkpoint (of the periodic ones, before step `below`), and what is wrong with newer ones."""
    passed: list[str] = []
    for path in _found(folder):
        if int(path.name[5:]) >= below or (periodic and not _is_periodic(path)):
            continue
        try:
            return read(path), passed
        except Damaged as error:
            passed.append(f"{path.name}: {error}")
    return None, passed


def steps(folder: Path) -> list[int]:
    """The steps of the checkpoints that are there, newest first; not verified."""
    return [int(path.name[5:]) for path in _found(folder)]


def read(path: Path) -> Saved:
    """Reads a checkpoint back.

    Raises:
        Damaged: a file is missing or is not the one that was written.
    """
    files, about = read_verified(path)
    if path.name != f"step-{about['step']:06d}":
        raise Damaged(f"it is of step {about['step']}")
    kinds = {kind: len(group) for kind, group in about["variables"].items()}
    arrays = {kind: unpack(files[f"{kind}.npz"], count) for kind, count in kinds.items()}
    return Saved(about["step"], arrays, json.loads(files["host.json"]), path, about)


def read_verified(path: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The files of a written folder and its manifest, digests checked."""
    try:
        about = json.loads((path / MANIFEST).read_bytes())
        files = {name: (path / name).read_bytes() for name in about["sha256"]}
        own = about.pop("self")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{MANIFEST} or a file it names is missing or unreadable ({error})") from error
    if own != _digest(about):
        raise Damaged(f"{MANIFEST} is not what was written")
    for name, content in files.items():
        if hashlib.sha256(content).hexdigest() != about["sha256"][name]:
            raise Damaged(f"{name} is not what was written")
    return files, about


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def clean(folder: Path) -> None:
    """Removes what a killed save left behind; a `best` it had moved aside is put back."""
    for leftover in folder.glob(".*.old"):
        name = leftover.name[1:].removesuffix(".old")
        if not (folder / name).exists():
            leftover.rename(folder / name)
    for leftover in [*folder.glob(".*.tmp"), *folder.glob(".*.old")]:
        shutil.rmtree(leftover, ignore_errors=True)


def save_weights(folder: Path, name: str, arrays: Sequence[np.ndarray], paths: Sequence[str], **about: Any) -> None:
    """Weights alone, under a name such as `best`."""
    write(folder, name, {"model.npz": _pack(arrays)}, {"variables": list(paths), **about})


def load_weights(path: Path) -> list[np.ndarray]:
    """What `save_weights` wrote.

    Raises:
        UserError: it is missing or damaged.
    """
    return named_weights(path)[1]


def named_weights(path: Path) -> tuple[list[str], list[np.ndarray]]:
    """What `save_weights` wrote, and the paths of the variables.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        files, about = read_verified(path)
        return about["variables"], unpack(files["model.npz"], len(about["variables"]))
    except Damaged as error:
        raise UserError(f"{path}: no valid weights there: {error}") from error


def _found(folder: Path) -> list[Path]:
    """Checkpoints, newest first."""
    paths = [p for p in folder.glob("step-*") if p.is_dir() and p.name[5:].isdigit()]
    return sorted(paths, key=lambda p: int(p.name[5:]), reverse=True)


def _pack(arrays: Sequence[np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{str(i): array for i, array in enumerate(arrays)})
    return buffer.getvalue()


def unpack(content: bytes, count: int) -> list[np.ndarray]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return [arrays[str(i)] for i in range(count)]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise Damaged(f"unreadable arrays ({error})") from error


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
