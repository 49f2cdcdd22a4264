"""Compares searching: m3ret against ScaNN, VSAG, SVS, hnswlib and FAISS, on the same vectors, in one run.

Every engine runs on one thread. Each searches for the 10 best of 2,000 queries that are not in the
gallery, as one batch and one at a time, at the setting with the least CPU time among those whose recall
is at least 0.995 (the tables name it; an engine that does not reach the recall has the setting with the
most recall, and the tables say so). Rounds alternate between engines; tables give medians of queries per
CPU second. CPU time is the process's own (for m3ret: of its process while it searches). An engine without
a call for batches (VSAG) gets the queries of a batch one by one. Memory is what the process holds in
anonymous pages after building, beyond what it held before; files that are mapped do not count.

Vectors are made here:
    clustered  rows around random centres in 768 dimensions, 100 rows a centre
    coarse     the same with 5,000 rows a centre
    latent     2,000 clusters in 64 dimensions whose sizes follow Zipf's law, embedded in 768 with noise
    cloud      one normal distribution in 768 dimensions, without any structure
    views      32 x 32 thumbnails (the model `pixels`) of random crops and flips of real images, with
               queries from images that are not in the gallery

Run from the repository root, in a Python with numpy, faiss-cpu, hnswlib, scann-core, pyvsag and scalable-vs
(engines that cannot be imported are left out; `views` needs pillow):
    cargo build --release -p m3ret-search --examples
    python benches/compare/search.py latent 100000 --work FOLDER
    python benches/compare/search.py views 100000 --work FOLDER --images FOLDER_WITH_MANIFEST
FOLDER keeps vectors, hnswlib's indexes and all results; about 20 GB for 1,000,000 rows.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import search_engines as engines
from search_engines import K, recall
from search_vectors import GENERATORS, make_vectors

WANTED, N_SINGLE = 0.995, 300


def choose(engine, rows, queries, exact):
    """Takes the setting with the least CPU time among those that reach the recall."""
    best = None
    for setting in engine.settings:
        start = time.process_time()
        found = engine.search(queries, setting)
        cost = time.process_time() - start
        reached = recall(found, rows, queries, exact)
        # Settings of one group cost more and more: the first that reaches the recall ends the group.
        key = (reached < WANTED, cost if reached >= WANTED else -reached)
        if best is None or key < best[0]:
            best = (key, setting, reached)
        engine.note(setting, reached >= WANTED)
    _, engine.setting, engine.recall = best


def measure(engine, queries):
    """CPU seconds a query of one batch, and of queries one at a time, with their latencies."""
    start = time.process_time()
    engine.search(queries, engine.setting)
    batch = (time.process_time() - start) / len(queries)
    latencies, start = [], time.process_time()
    for query in queries[:N_SINGLE]:
        before = time.perf_counter()
        engine.search(query[None], engine.setting)
        latencies.append(time.perf_counter() - before)
    single = (time.process_time() - start) / N_SINGLE
    return {"batch": batch, "single": single, "median_us": statistics.median(latencies) * 1e6,
            "p99_us": float(np.quantile(latencies, 0.99)) * 1e6}


def bandwidth():
    """GB/s that one thread reads from memory: the largest number of a gigabyte."""
    values = np.ones(1 << 27, np.int64)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        values.max()
        times.append(time.perf_counter() - start)
    return values.nbytes / min(times) / 1e9


def table(results):
    """Prints medians as a table."""
    lines = ["| engine | setting | recall@10 | batch, queries / CPU s | single, queries / CPU s "
             "| single, median / p99 us | build, CPU s | anonymous, MB |", "|---|---|---|---|---|---|---|---|"]
    for name, result in results.items():
        of = lambda key: statistics.median(round[key] for round in result["rounds"])
        memory = "-" if result["mb"] is None else f"{result['mb']:,.0f}"
        lines.append(
            f"| {name} | {result['setting']} | {result['recall']:.4f} | {1 / of('batch'):,.0f} "
            f"| {1 / of('single'):,.0f} | {of('median_us'):,.0f} / {of('p99_us'):,.0f} "
            f"| {result['build_s']:.1f} | {memory} |")
    return "\n".join(lines)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("kind", choices=sorted([*GENERATORS, "views"]))
    parser.add_argument("n", type=int)
    parser.add_argument("--work", required=True)
    parser.add_argument("--images", nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="engines: ours " + " ".join(engines.BUILDERS))
    parser.add_argument("--recalls", nargs="*", default=["0.995"], help="recalls that m3ret is asked for")
    return parser.parse_args()


def main():
    arguments = parse()
    work = Path(arguments.work)
    work.mkdir(exist_ok=True)
    name = f"{arguments.kind}-{arguments.n}"
    rows, queries, exact, paths = make_vectors(name, arguments)
    queries = np.array(queries)  # VSAG wants an array that may be written
    print(f"{name}: width {rows.shape[1]}, 10th neighbour at {exact[:, -1].mean():.3f}, "
          f"one thread reads {bandwidth():.1f} GB/s", flush=True)
    wants = lambda engine: not arguments.only or engine in arguments.only
    every = []
    if wants("ours"):
        every += engines.ours(paths, work, name, arguments.recalls)
    for key, build in engines.BUILDERS.items():
        if not wants(key):
            continue
        try:
            every.append(engines.built(build, rows, work, name))
        except Exception as error:  # an engine that is not installed, or refuses the data, is left out by name
            print(f"  {key}: left out: {type(error).__name__}: {str(error)[:200]}", flush=True)
    results = {}
    for engine in every:
        (engine.choose if hasattr(engine, "choose") else lambda *data: choose(engine, *data))(rows, queries, exact)
        print(f"  {engine.name}: {engine.setting}, recall {engine.recall:.4f}, "
              f"build {engine.build_s:.1f} CPU s", flush=True)
        results[engine.name] = {"setting": str(engine.setting), "recall": engine.recall, "rounds": [],
                                "build_s": engine.build_s, "mb": engine.mb}
    for _ in range(arguments.rounds):
        for engine in every:
            one = engine.measure() if hasattr(engine, "measure") else measure(engine, queries)
            results[engine.name]["rounds"].append(one)
    (work / f"{name}.json").write_text(json.dumps(results, indent=1))
    print(table(results))


if __name__ == "__main__":
    main()
