"""Measures a lake on a real S3 server beside a gallery of the same rows, in one run.

    bench.py PROGRAM WEED FOLDER [WIDTH N_ROWS]...      [default: 192 1000000 768 100000]

Costs of a query are slopes: the difference of a run with many queries and one with few, divided by the difference of their numbers. So
opening and starting count apart. Prints one line of JSON for each figure.
"""

import json
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import time

import numpy

import parts
import store

PROGRAM, WEED, FOLDER = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
FOLDER.mkdir(parents=True, exist_ok=True)
SIZES = list(map(int, sys.argv[4:])) or [192, 1_000_000, 768, 100_000]
STORE = store.Store(WEED, FOLDER / "store")
N_QUERIES = (10, 110)
# Runs a command and says the largest memory of it alone: a process counts that of the one that started it, too.
PEAK = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print("peak_kb", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


def timed(*words, **more):
    """Runs the program: wall seconds, its CPU seconds, those of the store, its output."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    store_before, wall = STORE.cpu_seconds(), time.monotonic()
    environment = STORE.environment() | {"XDG_CONFIG_HOME": str(FOLDER / "config"), "M3RET_LAKE_DEADLINE": "60", **more}
    done = subprocess.run([PROGRAM, "-q", *map(str, words)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, (words, done.stderr[-3000:])
    wall = time.monotonic() - wall
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, STORE.cpu_seconds() - store_before, done.stdout


def tell(what, **figures):
    print(json.dumps({"what": what} | {name: round(value, 4) if isinstance(value, float) else value for name, value in figures.items()}), flush=True)


def hits_of(output):
    return [[hit["id"] for hit in line["hits"]] for line in map(json.loads, output.splitlines()) if "hits" in line]


def cost(place, queries, truth, *words, **more):
    """Slopes of searches in a gallery or a lake, and their recall@10."""
    walls, cpus, stores, recall = [], [], [], None
    for _ in range(2):
        found = []
        for n in N_QUERIES:
            numpy.save(FOLDER / "queries.npy", queries[:n])
            found.append(timed("search", "-d", place, "--embeddings", FOLDER / "queries.npy", "--encoder", "lake-test", "-k", "10", "--json", *words, **more))
        (wall, cpu, served, _), (wall_, cpu_, served_, output) = found
        n = N_QUERIES[1] - N_QUERIES[0]
        walls.append((wall_ - wall) / n * 1000), cpus.append((cpu_ - cpu) / n * 1000), stores.append((served_ - served) / n * 1000)
        hits = hits_of(output)
        recall = statistics.mean(len(set(hit) & set(exact)) / 10 for hit, exact in zip(hits, truth))
    return {"recall_at_10": recall, "ms_wall": statistics.median(walls), "ms_cpu": statistics.median(cpus), "ms_cpu_store": statistics.median(stores)}


def truth_of(vectors, ids, queries, is_allowed=None):
    found = []
    for query in queries:
        scores = vectors @ query
        if is_allowed is not None:
            scores[~is_allowed] = -2
        best = numpy.argpartition(-scores, 10)[:10]
        found.append([ids[row] for row in best])
    return found


def ingest(width, n_rows, n_writers, vectors, ids, columns):
    name = f"w{width}-{n_writers}"
    folders = []
    for writer, rows in enumerate(numpy.array_split(numpy.arange(n_rows), n_writers)):
        own = {column: [values[row] for row in rows] for column, values in columns.items()}
        run = f"{name}-{writer}"
        n_parts = max(1, len(rows) // 50_000)
        folders.append(parts.write(FOLDER / run, vectors[rows], [ids[row] for row in rows], own, n_parts, run))
    first = parts.write(FOLDER / f"{name}-first", vectors[:1], ["first"], {column: values[:1] for column, values in columns.items()}, 1, f"{name}-first")
    place = f"s3://{store.BUCKET}/{name}"
    timed("lake", "commit", first, place)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    store_before, wall = STORE.cpu_seconds(), time.monotonic()
    environment = STORE.environment() | {"XDG_CONFIG_HOME": str(FOLDER / "config")}
    command = [sys.executable, "-c", PEAK, PROGRAM, "-q", "lake", "commit"]
    children = [subprocess.Popen([*command, folder, place], env=environment, stderr=subprocess.PIPE, text=True) for folder in folders]
    told = [child.communicate()[1] for child in children]
    assert [child.returncode for child in children] == [0] * n_writers, told
    wall = time.monotonic() - wall
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    n_objects, n_bytes = STORE.n_bytes(name + "/")
    tell("ingest", width=width, n_rows=n_rows, n_writers=n_writers, s_wall=wall, rows_per_s=n_rows / wall, s_cpu=cpu, s_cpu_store=STORE.cpu_seconds() - store_before,
         n_objects=n_objects, n_bytes=n_bytes, peak_mb=max(int(words.rsplit("peak_kb", 1)[1]) for words in told) / 1024)
    return place, folders + [FOLDER / f"{name}-first"]


def main():
    STORE.start()
    try:
        for width, n_rows in zip(SIZES[::2], SIZES[1::2]):
            vectors = parts.mixture(n_rows + N_QUERIES[1], width, 1)
            vectors, queries = vectors[:n_rows], vectors[n_rows:]
            ids = [f"archive/{row:09}.dcm" for row in range(n_rows)]
            random = numpy.random.default_rng(2)
            modalities = random.choice(["CT", "MR", "XA", "US"], n_rows, p=[0.35, 0.4, 0.05, 0.2])
            body_parts = random.choice(["CHEST", "HEAD", "ABDOMEN", "SPINE", "KNEE"], n_rows)
            columns = {"modality": list(modalities), "body_part": list(body_parts), "patient_id": [f"P{number}" for number in random.integers(0, n_rows // 8, n_rows)]}
            for n_writers in (1, 2, 4):
                place, folders = ingest(width, n_rows, n_writers, vectors, ids, columns)
                if n_writers < 4:
                    for folder in folders:
                        shutil.rmtree(folder)
            bare = cost(place, queries[:N_QUERIES[1]], truth_of(vectors, ids, queries), "--exact") if n_rows <= 100_000 else None
            if bare:
                tell("lake, exact", width=width, n_rows=n_rows, **bare)
            wall, cpu, served, output = timed("lake", "maintain", place, "--json", "--prune", "0")
            done = json.loads(output.splitlines()[-1])
            n_objects, n_bytes = STORE.n_bytes(place.rsplit("/", 1)[1] + "/")
            tell("maintain", width=width, n_rows=n_rows, s_wall=wall, s_cpu=cpu, s_cpu_store=served, plans=done["plans"], n_objects=n_objects, n_bytes=n_bytes)
            wall, cpu, _, _ = timed("lake", "export", place, FOLDER / f"w{width}.m3i")
            tell("export to a gallery", width=width, n_rows=n_rows, s_wall=wall, s_cpu=cpu)
            exact = truth_of(vectors, ids, queries)
            tell("gallery", width=width, n_rows=n_rows, **cost(FOLDER / f"w{width}.m3i", queries, exact))
            tell("lake", width=width, n_rows=n_rows, **cost(place, queries, exact))
            tell("lake, cache on disk", width=width, n_rows=n_rows, **cost(place, queries, exact, M3RET_LAKE_CACHE_DIR=str(FOLDER / "cache")))
            for modality in ("CT", "XA"):
                exact = truth_of(vectors, ids, queries, modalities == modality)
                words = ["--filter", f"modality={modality}"]
                tell(f"gallery, {modality} only", width=width, n_rows=n_rows, **cost(FOLDER / f"w{width}.m3i", queries, exact, *words))
                tell(f"lake, {modality} only", width=width, n_rows=n_rows, **cost(place, queries, exact, *words))
            checked = json.loads(timed("lake", "verify", place, "--json")[3].splitlines()[-1])
            assert checked["faults"] == [], checked
            tell("verify", width=width, n_rows=checked["n_rows"])
    finally:
        STORE.kill()


if __name__ == "__main__":
    main()
