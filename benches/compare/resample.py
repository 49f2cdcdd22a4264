"""CPU time of resampling 512 x 512 x 128 -> 128^3: m3ret against scipy.ndimage.zoom, order 1.

Both sides run in turn, in one go, on the same float32 values, and each reports the CPU time of all
its threads; the table gives medians and the ratio. `prepare` is printed beside it: percentiles,
windowing, resizing and padding of the same volume, to the default model input.

Run from the repository root, in a Python with numpy and scipy:
    cargo build --release -p m3ret-imaging --example resample_bench
    python benches/compare/resample.py
Set CARGO_TARGET_DIR if the build did. The target is a ratio of at most 0.5.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from scipy.ndimage import zoom

N_RUNS = 15


class Ours:
    """The Rust half: one line in, one run, one line of CPU and wall seconds out."""

    def __init__(self, mode):
        target = Path(os.environ.get("CARGO_TARGET_DIR", "target"))
        program = target / "release" / "examples" / "resample_bench"
        if not program.exists():
            sys.exit(f"{program} is missing: see the first lines of this file")
        self.child = subprocess.Popen(
            [program, mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self):
        self.child.stdin.write("\n")
        self.child.stdin.flush()
        return tuple(float(field) for field in self.child.stdout.readline().split())


def run_scipy(values):
    cpu, wall = time.process_time(), time.perf_counter()
    zoom(values, (1, 0.25, 0.25), order=1)
    return time.process_time() - cpu, time.perf_counter() - wall


def main():
    n_values = 128 * 512 * 512
    values = (np.arange(n_values, dtype=np.int64) * 7919 % 4096).astype(np.float32)
    values = values.reshape(128, 512, 512)
    resample, prepare = Ours("resample"), Ours("prepare")
    sides = {
        "scipy.ndimage.zoom order 1": lambda: run_scipy(values),
        "m3ret resample": resample.run,
        "m3ret prepare": prepare.run,
    }
    seconds = {name: [] for name in sides}
    for run in range(N_RUNS + 1):
        for name, side in sides.items():
            taken = side()
            if run > 0:  # the first run of each warms caches
                seconds[name].append(taken)
    base = statistics.median(cpu for cpu, _ in seconds["scipy.ndimage.zoom order 1"])
    print(f"{'':28}{'CPU ms':>10}{'wall ms':>10}{'CPU ratio':>11}   ({N_RUNS} runs, medians)")
    for name, taken in seconds.items():
        cpu = statistics.median(cpu for cpu, _ in taken)
        wall = statistics.median(wall for _, wall in taken)
        print(f"{name:28}{cpu * 1e3:10.1f}{wall * 1e3:10.1f}{cpu / base:11.2f}")


if __name__ == "__main__":
    main()
