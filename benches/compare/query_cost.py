"""What a query by file costs beside one by vector, in a small and in a large gallery.

    python3 benches/compare/query_cost.py M3RET FOLDER [N_ROWS]

A query by file reads and embeds the image and looks for its own row in the gallery; a query by its vector does not.
What is left when the second is subtracted from the first must not grow with the gallery. Galleries hold random unit
vectors under the fingerprint of `hog`, 100 and N_ROWS (1,000,000) of them, in FOLDER, which is made. A filter leaves
100 rows of each, so that the scan, which is no part of the question, does not drown the difference. CPU time of the
child, medians of rounds that alternate. Needs numpy.
"""

import json
import pathlib
import resource
import statistics
import subprocess
import sys

import numpy

N_QUERIES, ROUNDS = 200, 11


def run(*words):
    """Runs a command and returns the seconds of CPU that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def write_vectors(path, words, vectors):
    """Writes a .safetensors with the metadata that m3ret embed gives it."""
    header = {"__metadata__": words,
              "embeddings": {"dtype": "F32", "shape": list(vectors.shape), "data_offsets": [0, vectors.nbytes]}}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with open(path, "wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.write(vectors.tobytes())


def main():
    program, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    n_rows = int(sys.argv[3]) if len(sys.argv) > 3 else 1_000_000
    random = numpy.random.default_rng(0)
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    for i in range(N_QUERIES):
        numpy.save(images / f"{i}.npy", random.normal(size=(64, 64)).astype("float32"))
    run(program, "embed", str(images), "--model", "hog", "--out", str(folder / "own.safetensors"))
    own = (folder / "own.safetensors").read_bytes()
    words = json.loads(own[8:8 + int.from_bytes(own[:8], "little")])
    width = words["embeddings"]["shape"][1]
    words = {name: words["__metadata__"][name] for name in ("model", "fingerprint", "precision")}
    for n in (100, n_rows):
        gallery = folder / f"{n}.m3i"
        if gallery.exists():
            continue
        vectors = random.normal(size=(n, width)).astype("float32")
        vectors /= numpy.linalg.norm(vectors, axis=1, keepdims=True)
        write_vectors(folder / f"{n}.safetensors", words, vectors)
        with open(folder / f"{n}.csv", "w") as file:
            file.write("path,id,group\n")
            file.writelines(f"elsewhere/{i // 1000}/{i}.npy,i{i},{'few' if i < 100 else 'rest'}\n" for i in range(n))
        run(program, "index", "build", str(gallery), str(folder / f"{n}.csv"), "--embeddings",
            str(folder / f"{n}.safetensors"), "--f16")
    usual = ["--filter", "group=few", "--threads", "1", "--jobs", "1", "--json", "-k", "1"]
    files = [word for i in range(N_QUERIES) for word in ("-i", str(images / f"{i}.npy"))]
    vectors = ["--embeddings", str(folder / "own.safetensors")]
    times = {(n, kind): [] for n in (100, n_rows) for kind in ("file", "vector")}
    for _ in range(ROUNDS):
        for n in (100, n_rows):
            for kind, queries in (("file", files), ("vector", vectors)):
                words = [program, "search", "-d", str(folder / f"{n}.m3i"), *queries, *usual]
                times[n, kind].append(run(*words))
    print("| rows | by file, ms a query | by vector, ms a query | difference |")
    print("|---|---|---|---|")
    for n in (100, n_rows):
        by_file, by_vector = (1000 * statistics.median(times[n, kind]) / N_QUERIES for kind in ("file", "vector"))
        print(f"| {n:,} | {by_file:.3f} | {by_vector:.3f} | {by_file - by_vector:.3f} |")


main()
