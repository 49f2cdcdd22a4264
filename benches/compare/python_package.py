"""What the Python package costs: embedding 1,000 pictures beside the command line, and beside a network of the same shape in
transformers (DINOv2 with random weights, nothing is downloaded). CPU seconds and peak memory of processes of their own.

    python benches/compare/python_package.py PROGRAM     PROGRAM is the release build of m3ret
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

N_PICTURES = 1000
ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "weights/m3ret-tiny"

BY_FOLDER = """
import sys, m3ret
m3ret.load(sys.argv[1]).embed(sys.argv[2])
"""
ONE_BY_ONE = """
import sys, os, m3ret
encoder = m3ret.load(sys.argv[1])
for name in sorted(os.listdir(sys.argv[2])):
    encoder.embed(os.path.join(sys.argv[2], name))
"""
ARRAYS = """
import sys, os, numpy, m3ret
encoder = m3ret.load(sys.argv[1])
encoder.embed([numpy.load(os.path.join(sys.argv[2], name)) for name in sorted(os.listdir(sys.argv[2]))])
"""
# The same shape: width 192, 4 blocks, 3 heads, 64 patches and CLS; one patch of 8 x 8 in place of 4 x 8 x 8.
TRANSFORMERS = """
import sys, os, numpy, torch
from transformers import Dinov2Config, Dinov2Model
config = Dinov2Config(hidden_size=192, num_hidden_layers=4, num_attention_heads=3, mlp_ratio=4, image_size=64, patch_size=8)
model = Dinov2Model(config).eval()
names = sorted(os.listdir(sys.argv[2]))
with torch.inference_mode():
    for start in range(0, len(names), 8):
        arrays = [numpy.load(os.path.join(sys.argv[2], name)) for name in names[start:start + 8]]
        x = torch.stack([torch.from_numpy(array).float()[None].expand(3, -1, -1) for array in arrays]) / 255
        x = torch.nn.functional.interpolate(x, size=(64, 64), mode="bilinear", antialias=True)
        torch.nn.functional.normalize(model((x - 0.5) / 0.25).pooler_output, dim=1).numpy()
"""


def measured(words: list[str]) -> dict[str, float]:
    """Runs a process and returns its wall and CPU seconds, and its peak memory in MB."""
    began = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, words
    return {
        "wall_s": round(time.perf_counter() - began, 2),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_mb": round(usage.ru_maxrss / 1024),
    }


def main(program: str) -> None:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "pictures"
        pictures.mkdir()
        for idx in range(N_PICTURES):
            picture = rng.integers(0, 255, (256, 256)).cumsum(axis=0) % 251
            np.save(pictures / f"{idx:04}.npy", picture.astype(np.uint8))
        out = str(Path(folder) / "vectors.npy")
        embed = [program, "embed", str(pictures), "--model", str(MODEL), "--out", out, "--force", "--restart", "-q"]

        def python(code: str) -> list[str]:
            return [sys.executable, "-c", code, str(MODEL), str(pictures)]

        ways = {
            "command line": embed,
            "Python, a folder": python(BY_FOLDER),
            "Python, arrays": python(ARRAYS),
            "Python, one by one": python(ONE_BY_ONE),
            "import alone": [sys.executable, "-c", "import m3ret, numpy"],
            "transformers, DINOv2": python(TRANSFORMERS),
            "transformers, import alone": [sys.executable, "-c", "import torch; from transformers import Dinov2Model"],
        }
        for name, words in ways.items():
            runs = [measured(words) for _ in range(3)]
            print(json.dumps({"way": name, **min(runs, key=lambda run: run["cpu_s"])}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
