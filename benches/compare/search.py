"""Compares searching: m3ret against FAISS, hnswlib and usearch, on the same vectors, in one go.

Every engine runs on one thread. Each searches for the 10 best of 2,000 queries that are not in the
gallery, as one batch and one at a time, at the cheapest setting whose recall is at least 0.995 (the
tables say which). Rounds alternate between engines; tables give medians of queries per CPU second.
CPU time is the process's own (for m3ret: of its process while it searches).

Vectors are made here: `clustered` draws rows around centres, 100 rows a centre, with the 10th
neighbour of a query at cosine 0.89; `coarse` has 5,000 rows a centre, as hard for lists and graphs
as one cloud; `views` are 32 x 32 thumbnails (the model `pixels`) of random crops and flips of real
images, with queries from images that are not in the gallery.

Run from the repository root, in a Python with numpy, faiss-cpu, hnswlib, usearch and pillow:
    cargo build --release -p m3ret-search --examples
    python benches/compare/search.py clustered 100000 --work FOLDER
    python benches/compare/search.py views 100000 --work FOLDER --images FOLDER_WITH_MANIFEST
FOLDER keeps vectors, hnswlib's indexes and all results; about 20 GB for 1,000,000 rows.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parents[1] / "target"))
EXAMPLES = TARGET / "release" / "examples"
K, N_QUERIES, WANTED = 10, 2000, 0.995
N_SINGLE = 300


def clustered(n, rows_a_centre):
    """Yields chunks of rows around random centres, then the queries."""
    width, noise = 768, 0.365
    centres = np.random.default_rng(1).standard_normal((max(1, n // rows_a_centre), width), np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    for seed, total in ((2, n), (3, N_QUERIES)):
        random = np.random.default_rng(seed)
        for start in range(0, total, 20000):
            n_rows = min(20000, total - start)
            rows = random.standard_normal((n_rows, width), np.float32) * np.float32(noise / width**0.5)
            rows += centres[random.integers(0, len(centres), n_rows)]
            yield seed == 3, rows / np.linalg.norm(rows, axis=1, keepdims=True)


def thumbnail(image, random):
    """One view: a crop of 40 to 100 % of the area, perhaps flipped, at 32 x 32, without its mean."""
    share = random.uniform(0.4, 1.0) ** 0.5
    width, height = image.size
    w, h = width * share, height * share
    left, top = random.uniform(0, width - w), random.uniform(0, height - h)
    view = np.asarray(image.resize((32, 32), 2, (left, top, left + w, top + h)), np.float32)
    if random.random() < 0.5:
        view = view[:, ::-1]
    view = view.ravel() - view.mean()
    length = np.linalg.norm(view)
    return view / length if length > 0 else None


def views(n, folders, patients):
    """Yields chunks of thumbnails of real pictures; one picture in 25 gives the queries.

    Appends the number of each row's picture to `patients`: as in an archive, the gallery knows which
    images belong together.
    """
    from PIL import Image

    images = []
    for folder in map(Path, folders):
        for row in csv.DictReader((folder / "manifest.csv").open(newline="")):
            if row["dims"] == "2d" and row["path"].lower().endswith((".png", ".jpg", ".jpeg")):
                images.append(np.asarray(Image.open(folder / row["path"]).convert("L").resize((96, 96), 2)))
    order = np.random.default_rng(4).permutation(len(images))
    n_held = len(images) // 25
    for seed, total, chosen in ((5, n, order[n_held:]), (6, N_QUERIES, order[:n_held])):
        random = np.random.default_rng(seed)
        rows = []
        for idx in range(10 * total):
            view = thumbnail(Image.fromarray(images[chosen[idx % len(chosen)]]), random)
            if view is not None:
                rows.append(view)
                if seed == 5:
                    patients.append(idx % len(chosen))
            if len(rows) == min(20000, total):
                yield seed == 6, np.stack(rows)
                total -= len(rows)
                rows = []
            if total == 0:
                break


def make(name, arguments):
    """Writes rows and queries once, and the exact best rows of each query."""
    import faiss

    work = Path(arguments.work)
    paths = [work / f"{name}.{part}.npy" for part in ("rows", "queries", "exact")]
    if not all(path.exists() for path in paths):
        patients = []
        chunks = {"clustered": lambda: clustered(arguments.n, 100),
                  "coarse": lambda: clustered(arguments.n, 5000),
                  "views": lambda: views(arguments.n, arguments.images, patients)}[arguments.kind]()
        rows, queries, at = None, [], 0
        for is_query, chunk in chunks:
            if is_query:
                queries.append(chunk)
                continue
            if rows is None:
                shape = (arguments.n, chunk.shape[1])
                rows = np.lib.format.open_memmap(paths[0], "w+", np.float32, shape)
            rows[at:at + len(chunk)] = chunk
            at += len(chunk)
        rows.flush()
        if patients:
            (work / f"{name}.patients.txt").write_text("\n".join(map(str, patients)))
        queries = np.concatenate(queries)
        np.save(paths[1], queries)
        faiss.omp_set_num_threads(os.cpu_count())
        scores = np.full((len(queries), K), -9, np.float32)
        for start in range(0, arguments.n, 100000):
            flat = faiss.IndexFlatIP(rows.shape[1])
            flat.add(np.ascontiguousarray(rows[start:start + 100000]))
            found = flat.search(queries, K)[0]
            scores = -np.sort(-np.concatenate([scores, found], 1), 1)[:, :K]
        np.save(paths[2], scores)
    return [np.load(path, mmap_mode="r") for path in paths] + [paths]


def recall(found, rows, queries, exact):
    """Share of the 10 best that were found; a row with an equal score is as good."""
    n_good = 0
    for query, best, ids in zip(queries, exact, found):
        ids = ids[ids >= 0]
        n_good += min(K, int((np.asarray(rows[np.sort(ids)]) @ query >= best[-1] - 2e-6).sum()))
    return n_good / (K * len(queries))


class Engine:
    """Something that searches: `search(queries, setting)` gives row numbers."""

    def __init__(self, name, search, settings, note=""):
        self.name, self.search, self.settings, self.note = name, search, settings, note
        self.setting, self.recall = None, 0.0

    def choose(self, rows, queries, exact):
        """Takes the first setting that reaches the recall, or the last."""
        for self.setting in self.settings:
            self.recall = recall(self.search(queries, self.setting), rows, queries, exact)
            if self.recall >= WANTED:
                break
        print(f"  {self.name}: {self.setting}, recall {self.recall:.4f}", flush=True)

    def measure(self, queries):
        """CPU seconds a query of one batch, and of queries one at a time, with their latencies."""
        start = time.process_time()
        self.search(queries, self.setting)
        batch = (time.process_time() - start) / len(queries)
        latencies, start = [], time.process_time()
        for query in queries[:N_SINGLE]:
            before = time.perf_counter()
            self.search(query[None], self.setting)
            latencies.append(time.perf_counter() - before)
        single = (time.process_time() - start) / N_SINGLE
        return {"batch": batch, "single": single,
                "median_us": statistics.median(latencies) * 1e6,
                "p99_us": float(np.quantile(latencies, 0.99)) * 1e6}


class Ours(Engine):
    """m3ret, by its example program."""

    def __init__(self, gallery, queries_path, work, options=(), name="m3ret"):
        super().__init__(name, None, [])
        self.gallery, self.queries_path, self.work, self.options = gallery, queries_path, work, list(options)

    def run(self, *more):
        command = [EXAMPLES / "search_speed", self.gallery, self.queries_path, *self.options, *more]
        environment = os.environ | {"RAYON_NUM_THREADS": "1"}
        return json.loads(subprocess.run(list(map(str, command)), env=environment, check=True,
                                         capture_output=True, text=True).stdout)

    def choose(self, rows, queries, exact):
        out = self.work / "found.i64"
        self.facts = self.run("--batch", N_QUERIES, "--rounds", 1, "--out", out)
        found = np.fromfile(out, np.int64).reshape(-1, K)
        self.setting, self.recall = "as calibrated", recall(found, rows, queries, exact)
        if "--filter" in self.options:
            # The best rows that pass are others; tests compare them with the exact scan.
            self.setting, self.recall = "flat, with a filter", float("nan")
        print(f"  {self.name}: recall {self.recall:.4f}", flush=True)

    def measure(self, queries):
        batch = self.run("--batch", N_QUERIES, "--rounds", 1)
        single = self.run("--batch", 1, "--n", N_SINGLE, "--rounds", 1)
        return {"batch": batch["cpu_s"] / batch["n_queries"], "single": single["cpu_s"] / N_SINGLE,
                "median_us": single["latency_us_median"], "p99_us": single["latency_us_p99"]}


def build_ours(rows_path, work, name):
    """Builds a gallery anew on one thread: what it took, and its size without the vectors."""
    gallery = work / f"{name}.m3i"
    facts = work / f"{name}.m3i.json"
    if not gallery.exists():
        patients = work / f"{name}.patients.txt"
        command = [EXAMPLES / "make_gallery", gallery, rows_path] + ([patients] if patients.exists() else [])
        environment = os.environ | {"RAYON_NUM_THREADS": "1"}
        out = subprocess.run(list(map(str, command)), env=environment, check=True, capture_output=True, text=True)
        facts.write_text(out.stdout)
    return gallery, json.loads(facts.read_text())


def build_hnswlib(rows, work, name):
    """Builds hnswlib's index or loads it; building is slow, so the index is kept with its cost."""
    import hnswlib

    path, facts = work / f"{name}.hnsw", work / f"{name}.hnsw.json"
    index = hnswlib.Index("ip", rows.shape[1])
    if not path.exists():
        index.init_index(len(rows), M=16, ef_construction=200, random_seed=1)
        index.set_num_threads(os.cpu_count())
        start = time.process_time()
        for at in range(0, len(rows), 50000):
            index.add_items(np.ascontiguousarray(rows[at:at + 50000]), np.arange(at, min(at + 50000, len(rows))))
        cost = time.process_time() - start
        index.save_index(str(path))
        facts.write_text(json.dumps({"cpu_s": cost, "bytes": path.stat().st_size}))
    else:
        index.load_index(str(path), max_elements=len(rows))
    index.set_num_threads(1)

    def search(queries, ef):
        index.set_ef(ef)
        return index.knn_query(queries, K)[0].astype(np.int64)

    efs = [10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640, 960, 1280, 1920]
    return Engine("hnswlib, M = 16", search, efs), json.loads(facts.read_text())


def build_usearch(rows):
    """Builds usearch's graph of f16 vectors."""
    from usearch.index import Index

    start = time.process_time()
    index = Index(ndim=rows.shape[1], metric="ip", dtype="f16", connectivity=16, expansion_add=128)
    index.add(np.arange(len(rows)), np.asarray(rows), threads=os.cpu_count())
    cost = time.process_time() - start

    def search(queries, expansion):
        index.expansion_search = expansion
        found = index.search(queries, K, threads=1)
        return np.asarray(found.keys, np.int64).reshape(len(queries), -1)

    engine = Engine("usearch f16", search, [16, 32, 64, 128, 256, 512, 1024, 2048])
    return engine, {"cpu_s": cost, "bytes": index.memory_usage}


def build_faiss(rows, kind):
    """Builds one of FAISS's indexes."""
    import faiss

    width = rows.shape[1]
    faiss.omp_set_num_threads(1)
    start = time.process_time()
    flat = faiss.IndexFlatIP(width)
    n_lists = int(2 * len(rows) ** 0.5)
    if kind == "flat":
        index, settings = flat, [None]
    elif kind == "SQ8 + refine":
        base = faiss.IndexScalarQuantizer(width, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
        index, settings = faiss.IndexRefineFlat(base), [2, 4, 8]
    elif kind == "RaBitQ + refine":
        base = faiss.IndexRaBitQ(width, faiss.METRIC_INNER_PRODUCT)
        base.qb = 4
        index, settings = faiss.IndexRefineFlat(base), [4, 8, 16, 32, 64, 128, 256]
    else:
        index = faiss.IndexIVFScalarQuantizer(flat, width, n_lists, faiss.ScalarQuantizer.QT_8bit,
                                              faiss.METRIC_INNER_PRODUCT)
        settings = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256]
    chosen = np.sort(np.random.default_rng(7).choice(len(rows), min(len(rows), 40 * n_lists), False))
    if not index.is_trained:
        index.train(np.ascontiguousarray(rows[chosen]))
    for at in range(0, len(rows), 100000):
        index.add(np.ascontiguousarray(rows[at:at + 100000]))

    def search(queries, setting):
        if kind == "IVF, SQ8":
            index.nprobe = setting
        elif setting is not None:
            index.k_factor = setting
        return index.search(queries, K)[1]

    return Engine(f"FAISS {kind}", search, settings), {"cpu_s": time.process_time() - start, "bytes": None}


def bandwidth():
    """GB/s that one thread reads from memory: the sum of a gigabyte of whole numbers."""
    values = np.ones(1 << 27, np.int64)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        values.max()
        times.append(time.perf_counter() - start)
    return values.nbytes / min(times) / 1e9


def table(results, build):
    """Prints medians as a table."""
    lines = ["| engine | setting | recall@10 | batch, queries / CPU s | single, queries / CPU s "
             "| single, median / p99 us | build, CPU s |", "|---|---|---|---|---|---|---|"]
    for name, result in results.items():
        of = lambda key: statistics.median(round[key] for round in result["rounds"])
        cost = build.get(name)
        lines.append(
            f"| {name} | {result['setting']} | {result['recall']:.4f} | {1 / of('batch'):,.0f} "
            f"| {1 / of('single'):,.0f} | {of('median_us'):,.0f} / {of('p99_us'):,.0f} "
            f"| {cost and round(cost['cpu_s'], 1)} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("kind", choices=["clustered", "coarse", "views"])
    parser.add_argument("n", type=int)
    parser.add_argument("--work", required=True)
    parser.add_argument("--images", nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="engines: ours hnswlib usearch flat RaBitQ SQ8 IVF")
    arguments = parser.parse_args()
    work = Path(arguments.work)
    work.mkdir(exist_ok=True)
    name = f"{arguments.kind}-{arguments.n}"
    rows, queries, exact, paths = make(name, arguments)
    queries = np.asarray(queries)
    print(f"{name}: width {rows.shape[1]}, 10th neighbour at {exact[:, -1].mean():.3f}, "
          f"one thread reads {bandwidth():.1f} GB/s", flush=True)
    wants = lambda engine: not arguments.only or engine in arguments.only
    engines, build = [], {}
    if wants("ours"):
        gallery, facts = build_ours(paths[0], work, name)
        for options, label in (([], "m3ret"), (["--exact"], "m3ret, exact"),
                               (["--filter", "bucket=7"], "m3ret, 1 % pass a filter")):
            engines.append(Ours(gallery, paths[1], work, options, label))
            build[label] = facts
    builders = {"hnswlib": lambda: build_hnswlib(rows, work, name), "usearch": lambda: build_usearch(rows),
                "flat": lambda: build_faiss(rows, "flat"),
                "RaBitQ": lambda: build_faiss(rows, "RaBitQ + refine"),
                "SQ8": lambda: build_faiss(rows, "SQ8 + refine"), "IVF": lambda: build_faiss(rows, "IVF, SQ8")}
    for key, builder in builders.items():
        if wants(key):
            engine, facts = builder()
            engines.append(engine)
            build[engine.name] = facts
    results = {}
    for engine in engines:
        engine.choose(rows, queries, exact)
        results[engine.name] = {"setting": engine.setting, "recall": engine.recall, "rounds": []}
    for _ in range(arguments.rounds):
        for engine in engines:
            results[engine.name]["rounds"].append(engine.measure(queries))
    (work / f"{name}.json").write_text(json.dumps({"results": results, "build": build}, indent=1))
    print(table(results, build))


if __name__ == "__main__":
    main()
