"""The preview script: a picture of any augmentation, and one line for a mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import QUICK
from descent import compose
from descent.session import build

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "scripts"))


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts/preview.py"), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.figures
@pytest.mark.parametrize("shape", ["[8,8,1]", "[5,12,3]"])
def test_a_preview_is_drawn(shape, folder):
    import preview

    path = preview.preview([*QUICK, "augmentation=mixup", f"data.shape={shape}", "trainer.batch_size=3"], folder)
    assert path == folder / "preview.png"
    assert {p.name for p in folder.iterdir()} == {"preview.png", "preview.svg"}


def test_rows_hold_an_original_and_the_versions_the_run_would_make():
    import preview

    pipeline = build(compose(*QUICK, "augmentation=flip_crop").resolved()).pipeline
    pictures, captions = preview.versions(pipeline)
    rows = pictures.reshape(preview.IMAGES, 1 + preview.STEPS, 8, 8, 1)
    raw = pipeline.source.gather("train", list(range(preview.IMAGES)))[0].numpy()
    np.testing.assert_allclose(rows[:, 0], raw / 255, rtol=1e-6)
    assert captions[:3] == ["original", "step 0", "step 1"]
    assert not np.array_equal(rows[:, 1], rows[:, 2])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["augmentation=strnog"], "error: augmentation=strnog: there is no such option; did you mean strong?\n"),
        (["-m"], "error: -m: not an override; write key=value, and quote what has spaces or brackets\n"),
    ],
)
def test_a_mistake_is_one_line_and_code_two(words, said):
    done = run(*words)
    assert (done.returncode, done.stderr) == (2, said)


def test_without_arguments_it_says_what_it_does():
    done = run()
    assert done.returncode == 2
    assert "augmentation=strong" in done.stdout
