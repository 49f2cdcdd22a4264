"""Processes: forks, interrupts, memory, imports."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REAL

import m3ret

NIFTI = sorted(REAL.glob("*.nii.gz"))[0]


def python(code: str, **arguments: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False, **arguments
    )


def _embed(arguments: tuple[m3ret.Encoder, str]) -> bytes:
    encoder, path = arguments
    return encoder.embed(path).numpy().tobytes()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_fork_embeds_searches_and_checks(encoder: m3ret.Encoder, pictures: Path, tmp_path: Path) -> None:
    paths = sorted(pictures.iterdir())[:6] + [NIFTI]
    expected = [encoder.embed(path).numpy().tobytes() for path in paths]
    index = m3ret.Index.build(tmp_path / "a.m3i", encoder.embed(pictures))
    # Rayon's global pool of this process is in use too, which no child has.
    m3ret.check(REAL)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            found = [encoder.embed(path).numpy().tobytes() for path in paths]
            hits = index.search(encoder.embed(paths[0]), k=1).ids
            is_same = found == expected and hits == [[str(paths[0])]]
            is_same = is_same and m3ret.check(pictures).summary["n_objects"] == 40
            is_same = is_same and len(m3ret.open(pictures, cache=tmp_path / "cache", model="hog")) == 40
            os.write(writer, b"same" if is_same else b"other")
            code = 0
        finally:
            os._exit(code)
    deadline = time.monotonic() + 120
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            pytest.fail("the forked process hangs")
        time.sleep(0.05)
    assert os.read(reader, 10) == b"same"
    assert [encoder.embed(path).numpy().tobytes() for path in paths] == expected, "the parent goes on"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_workers_of_a_data_loader_embed(pictures: Path) -> None:
    encoder = m3ret.load("hog")
    paths = sorted(pictures.iterdir())
    expected = encoder.embed(paths).numpy()
    with multiprocessing.get_context("fork").Pool(3) as pool:
        found = pool.map_async(_embed_named, [str(path) for path in paths], chunksize=4).get(timeout=120)
    assert b"".join(found) == expected.tobytes()


_HOG: list[m3ret.Encoder] = []


def _embed_named(path: str) -> bytes:
    if not _HOG:
        _HOG.append(m3ret.load("hog"))
    return _HOG[0].embed(path).numpy().tobytes()


INTERRUPTED = """
import os, signal, sys, threading, time
import numpy as np
import m3ret
{prepare}
def interrupt():
    time.sleep(0.7)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
began = time.monotonic()
try:
    {work}
except KeyboardInterrupt:
    print("interrupted after", time.monotonic() - began)
    # The package goes on working.
    assert m3ret.load("pixels").embed(np.arange(4096.0).reshape(64, 64)).width == 1024
else:
    print("not interrupted", time.monotonic() - began)
"""

WORK = {
    "embed": (
        "encoder = m3ret.load('random:small'); a = np.random.default_rng(0).random((96, 200, 200))",
        "[encoder.embed([a] * 400, spacing=(1, 1, 1))]",
    ),
    "search": (
        "v = np.random.default_rng(0).standard_normal((30000, 256)); "
        "index = m3ret.Index.build(sys.argv[1] + '/a.m3i', v, normalize=True, numbers='f32')",
        "[index.search(np.tile(v[:1000], (1000, 1)), k=10, exact=True, normalize=True)]",
    ),
    "check": ("", "[m3ret.check(sys.argv[2]) for _ in range(10000)]"),
}


@pytest.mark.parametrize("name", WORK)
def test_ctrl_c_ends_work(name: str, tmp_path: Path) -> None:
    prepare, work = WORK[name]
    code = INTERRUPTED.format(prepare=prepare, work=work)
    program = [sys.executable, "-c", code, str(tmp_path), str(REAL)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("interrupted after"), done.stdout
    assert float(done.stdout.split()[-1]) < 20


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
def test_a_thousand_embeddings_leak_no_memory(pictures: Path) -> None:
    encoder = m3ret.load("random:tiny")
    paths = sorted(pictures.iterdir())
    array = np.load(paths[0])
    content = paths[1].read_bytes()

    def embed(n: int) -> None:
        for idx in range(n):
            encoder.embed([paths[idx % 40], content, array][idx % 3])

    embed(150)
    before = resident_bytes()
    embed(1000)
    grown = resident_bytes() - before
    print(f"1,000 embeddings: {before / 1e6:.1f} MB before, {grown / 1e6:+.2f} MB")
    assert grown < 8e6


def test_importing_is_quick_and_imports_numpy_at_most() -> None:
    code = (
        "import sys, time; began = time.perf_counter(); import m3ret; "
        "took = time.perf_counter() - began; "
        "heavy = {'torch', 'pandas', 'pyarrow', 'pydicom', 'nibabel', 'SimpleITK', 'tqdm', 'numpy'} & set(sys.modules); "
        "print(took, sorted(heavy))"
    )
    done = [python(code).stdout.split(maxsplit=1) for _ in range(5)]
    took = min(float(words[0]) for words in done)
    print(f"import m3ret: {took:.3f} s")
    assert took < 0.2 and done[0][1].strip() == "[]"


def test_threads_are_as_many_as_asked_for(pictures: Path) -> None:
    code = f"""
import os, m3ret
m3ret.load("hog", threads=1).embed({str(pictures)!r})
print(sum(open(f"/proc/self/task/{{t}}/comm").read().startswith("m3ret-") for t in os.listdir("/proc/self/task")))
"""
    if sys.platform.startswith("linux"):
        done = python(code)
        # The model is opened and run on the one thread.
        assert done.stdout.strip() == "1", done.stdout + done.stderr


def test_a_training_run_is_an_iterator(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    rng = np.random.default_rng(0)
    lines = ["path,patient_id"]
    for idx in range(24):
        np.save(tmp_path / f"{idx}.npy", (rng.random((64, 64)) * 200).astype(np.uint8))
        lines.append(f"{idx}.npy,p{idx}")
    manifest.write_text("\n".join(lines) + "\n")
    config = tmp_path / "tiny.toml"
    config.write_text(TINY)
    run = m3ret.pretrain(config, set={"train.steps": 3})
    log = list(run)
    assert run.facts is not None and run.facts["n_steps"] == 3
    steps = [entry["step"] for entry in log if entry.get("loss") is not None]
    assert steps == [0, 1, 2] and all(np.isfinite(entry["loss"]) for entry in log if entry.get("loss") is not None)
    assert run.model is not None
    encoder = m3ret.load(run.model)
    assert encoder.embed(tmp_path / "0.npy").numpy().shape == (1, encoder.width)
    with pytest.raises(m3ret.M3retError):
        list(m3ret.pretrain(config))


TINY = """
out = "run"
manifests = ["manifest.csv"]
method = "mae"
[model]
embed_dim = 96
depth = 2
num_heads = 3
patch = [4, 8, 8]
side = 32
max_depth = 8
[images]
validation = 0.3
[views]
side = 32
depth = 8
[mae]
decoder_dim = 32
decoder_depth = 1
decoder_heads = 2
[train]
steps = 24
batch = 6
checkpoint_every = 4
[monitor]
knn_every = 0
"""
