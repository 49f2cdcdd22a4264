"""Data and programs that several tests share."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
REAL = ROOT / "testdata" / "real"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))

# Models are found in the sources, unless a package of weights is installed.
os.environ.setdefault("M3RET_MODELS", str(ROOT / "weights"))


def command_line() -> Path:
    """Returns the program m3ret: that of $M3RET_PROGRAM, or the newest build."""
    named = os.environ.get("M3RET_PROGRAM")
    if named:
        return Path(named)
    built = [TARGET / profile / "m3ret" for profile in ("release", "debug")]
    built = [program for program in built if program.is_file()]
    if not built:
        pytest.skip("the program m3ret is not built: cargo build -p m3ret-cli")
    return max(built, key=lambda program: program.stat().st_mtime)


def run(*words: Any, is_good: bool = True) -> list[dict[str, Any]]:
    """Runs m3ret and returns its lines of JSON."""
    program = [str(command_line()), *map(str, words)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert not is_good or done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real images."""
    return REAL


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 40 small pictures."""
    import numpy as np

    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for idx in range(40):
        side = 48 + idx % 5
        picture = rng.integers(0, 255, (side, side)).cumsum(axis=0) % 251
        np.save(folder / f"{idx:02}.npy", picture.astype(np.uint8))
    return folder


@pytest.fixture(scope="session")
def encoder() -> Any:
    import m3ret

    return m3ret.load("m3ret-tiny")
