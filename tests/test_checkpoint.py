"""Checkpoints are written whole or not at all, and damage is noticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from descent import UserError, checkpoint

ARRAYS = {"model": [np.arange(6, dtype=np.float32).reshape(2, 3), np.float32(3)], "step": [np.int64(7)], "best": []}
PATHS = {"model": ["dense/kernel", "dense/bias"], "step": ["step"], "best": []}


def save(folder: Path, step: int, keep: int = 2) -> Path:
    return checkpoint.save(folder, step, ARRAYS, {"best": 0.1, "step": step}, PATHS, keep)


def test_what_is_saved_is_read_back(tmp_path):
    saved = checkpoint.read(save(tmp_path, 7))
    assert (saved.step, saved.host) == (7, {"best": 0.1, "step": 7})
    for kind, arrays in ARRAYS.items():
        for a, b in zip(arrays, saved.arrays[kind], strict=True):
            np.testing.assert_array_equal(np.asarray(a), b, strict=True)


def test_the_newest_are_kept(tmp_path):
    for step in (1, 9, 10, 100):
        save(tmp_path, step)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000010", "step-000100"]
    saved, _ = checkpoint.newest(tmp_path)
    assert saved is not None
    assert saved.step == 100


FILES = ("model.npz", "step.npz", "best.npz", "host.json", "manifest.json")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0x10
    path.write_bytes(content)


DAMAGE = {
    "flip": flip,
    "truncate": lambda path: path.write_bytes(path.read_bytes()[:-5]),
    "empty": lambda path: path.write_bytes(b""),
    "delete": lambda path: path.unlink(),
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 4),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", FILES)
def test_damage_to_any_file_is_noticed_and_the_one_before_wins(tmp_path, file, damage):
    save(tmp_path, 1)
    DAMAGE[damage](save(tmp_path, 2) / file)
    saved, passed = checkpoint.newest(tmp_path)
    if saved and saved.step == 2:  # a flipped bit in a name of the manifest changes nothing that is read
        assert (file, damage) == ("manifest.json", "flip")
        np.testing.assert_array_equal(saved.arrays["model"][0], ARRAYS["model"][0])
    else:
        assert saved is not None
        assert saved.step == 1
        assert passed[0].startswith("step-000002: ")


def test_what_a_killed_save_left_is_removed(tmp_path):
    save(tmp_path, 1)
    (tmp_path / ".step-000002.tmp").mkdir()
    (tmp_path / ".step-000002.tmp" / "model.npz").write_bytes(b"half")
    checkpoint.clean(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["step-000001"]


def test_weights_moved_aside_by_a_killed_save_come_back(tmp_path):
    checkpoint.save_weights(tmp_path, "best", ARRAYS["model"], PATHS["model"])
    (tmp_path / "best").rename(tmp_path / ".best.old")
    checkpoint.clean(tmp_path)
    np.testing.assert_array_equal(checkpoint.load_weights(tmp_path / "best")[0], ARRAYS["model"][0])


def test_missing_weights_are_a_message(tmp_path):
    with pytest.raises(UserError, match="no valid weights there"):
        checkpoint.load_weights(tmp_path / "best")
