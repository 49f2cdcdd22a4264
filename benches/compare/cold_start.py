"""Time and memory from nothing to the first embedding, with a model folder of ViT-B's size.

Writes a ViT-B with random weights as transformers saves it (config.json, model.safetensors, 346 MB
of f32), then starts each program anew several times, in turn: `m3ret embed` of one image in each
precision, and one forward pass of PyTorch with the same folder, as plain modules and by
transformers' `from_pretrained`. Wall time is that of the whole process; beside it the time of only
reading the file, from the page cache, and the largest resident memory, mapped pages included.

Run from the repository root, in a Python with torch, transformers and safetensors:
    cargo build --release -p m3ret-cli
    python benches/compare/cold_start.py
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", Path(__file__).parents[2] / "target"))

SAVE = """
import sys, torch
from transformers import ViTConfig, ViTModel
torch.manual_seed(0)
ViTModel(ViTConfig(), add_pooling_layer=False).save_pretrained(sys.argv[1])
"""

FROM_PRETRAINED = """
import sys, torch
from transformers import ViTModel
torch.set_num_threads(int(sys.argv[2]))
model = ViTModel.from_pretrained(sys.argv[1], add_pooling_layer=False).eval()
with torch.inference_mode():
    print(model(torch.rand(1, 3, 224, 224)).last_hidden_state[0, 0, 0])
"""

# The leanest way: modules without memory of their own take over the tensors of the file.
PLAIN_MODULES = """
import sys, json, torch
sys.path.insert(0, sys.argv[3])
from encode_engines import network
from safetensors.torch import load_file
torch.set_num_threads(int(sys.argv[2]))
with torch.device("meta"):
    model = network({"width": 768, "heads": 12, "depth": 12, "tokens": 197, "frames": 1})
held = load_file(sys.argv[1] + "/model.safetensors")
given = iter(held.values())
by_size = {}
for tensor in given:
    by_size.setdefault(tensor.numel(), []).append(tensor)
state = {}
for name, wanted in model.state_dict().items():
    if ".qkv." in name:  # three tensors of the file
        parts = [by_size[wanted.numel() // 3].pop() for _ in range(3)]
        state[name] = torch.cat([part.flatten() for part in parts]).reshape(wanted.shape)
    else:
        state[name] = by_size[wanted.numel()].pop().reshape(wanted.shape)
del held, by_size, given
model.load_state_dict(state, assign=True)
with torch.inference_mode():
    print(model(torch.rand(1, 3, 224, 224))[0, 0, 0])
"""


def png(side=224):
    """A grey PNG of noise, so that reading and preparing are part of the time."""
    def chunk(kind, content):
        return (len(content).to_bytes(4, "big") + kind + content
                + zlib.crc32(kind + content).to_bytes(4, "big"))

    rows = b"".join(b"\0" + os.urandom(side) for _ in range(side))
    header = side.to_bytes(4, "big") * 2 + b"\x08\0\0\0\0"
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
            + chunk(b"IEND", b""))


def start(command):
    """Runs a command; returns wall seconds, CPU seconds and peak MiB."""
    begun = time.perf_counter()
    child = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - begun
    if status:
        sys.exit(f"failed: {command}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=TARGET / "release" / "m3ret")
    parser.add_argument("--threads", default="1")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "image.png")
        image.write_bytes(png())
        python = [sys.executable, "-c"]
        subprocess.run([*python, SAVE, folder], check=True, capture_output=True)
        weights = Path(folder, "model.safetensors")
        ours = [options.binary, "embed", image, "--model", folder, "--threads", options.threads,
                "--out", Path(folder, "vector.npy"), "--precision"]
        commands = {
            "reading the file": ["dd", f"if={weights}", "of=/dev/null", "bs=1M", "status=none"],
            "m3ret f32": [*ours, "f32"],
            "m3ret bf16": [*ours, "bf16"],
            "m3ret int8": [*ours, "int8"],
            "importing PyTorch alone": [*python, "import torch"],
            "PyTorch, transformers": [*python, FROM_PRETRAINED, folder, options.threads],
            "PyTorch, plain modules": [*python, PLAIN_MODULES, folder, options.threads,
                                       Path(__file__).parent],
        }
        runs = {name: [] for name in commands}
        for _ in range(options.repeats):
            for name, command in commands.items():
                runs[name].append(start(command))
    reading = statistics.median(wall for wall, *_ in runs["reading the file"])
    memory = statistics.median(peak for *_, peak in runs["PyTorch, transformers"])
    print("| first embedding | wall s | beyond reading the file | CPU s | peak MiB "
          "| ratio to transformers |\n|---|---|---|---|---|---|")
    for name, taken in runs.items():
        wall, cpu, peak = (statistics.median(column) for column in zip(*taken))
        print(f"| {name} | {wall:.2f} | {wall - reading:.2f} | {cpu:.2f} | {peak:.0f} "
              f"| {peak / memory:.2f} |")


if __name__ == "__main__":
    main()
