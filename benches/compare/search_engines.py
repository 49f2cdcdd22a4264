"""The engines that search.py compares; each gives row numbers for queries at a setting."""

import json
import os
import subprocess
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parents[1] / "target"))
EXAMPLES = TARGET / "release" / "examples"
K, N_SINGLE = 10, 300


def recall(found, rows, queries, exact):
    """Share of the 10 best that were found; a row with an equal score is as good."""
    n_good = 0
    for query, best, ids in zip(queries, exact, found):
        ids = np.unique(ids[ids >= 0])
        n_good += min(K, int((np.asarray(rows[ids]) @ query >= best[-1] - 2e-6).sum()))
    return n_good / (K * len(queries))


def anonymous_mb():
    """MB of anonymous pages that this process holds."""
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return 0.0


class Engine:
    """Something that searches: `search(queries, setting)` gives row numbers.

    `groups` is a list of lists of settings; within a list, each setting costs more than those before it, so that the
    first one that reaches the recall ends the list.
    """

    def __init__(self, name, search, groups):
        self.name, self.search, self.groups = name, search, groups
        self.has_reached, self.setting, self.recall = False, None, 0.0

    @property
    def settings(self):
        for group in self.groups:
            self.has_reached = False
            for setting in group:
                yield setting
                if self.has_reached:
                    break

    def note(self, _setting, has_reached):
        self.has_reached = has_reached


class Ours:
    """m3ret, by its example program."""

    def __init__(self, gallery, paths, work, options, name):
        self.name, self.gallery, self.queries, self.work, self.options = name, gallery, paths[1], work, options
        self.setting = " ".join(options) or "default"

    def run(self, *more):
        command = [EXAMPLES / "search_speed", self.gallery, self.queries, *self.options, *more]
        environment = os.environ | {"RAYON_NUM_THREADS": "1"}
        return json.loads(subprocess.run(list(map(str, command)), env=environment, check=True,
                                         capture_output=True, text=True).stdout)

    def choose(self, rows, queries, exact):
        out = self.work / "found.i64"
        facts = self.run("--batch", len(queries), "--rounds", 1, "--out", out)
        self.mb = facts["rss_anonymous_mib"]
        # The best rows that pass a filter are others; tests compare them with the exact scan.
        found = np.fromfile(out, np.int64).reshape(-1, K)
        self.recall = float("nan") if "--filter" in self.options else recall(found, rows, queries, exact)

    def measure(self):
        batch = self.run("--batch", 2000, "--rounds", 1)
        single = self.run("--batch", 1, "--n", N_SINGLE, "--rounds", 1)
        return {"batch": batch["cpu_s"] / batch["n_queries"], "single": single["cpu_s"] / N_SINGLE,
                "median_us": single["latency_us_median"], "p99_us": single["latency_us_p99"]}


def ours(paths, work, name, recalls):
    """Builds a gallery on one thread, or takes the one there, and returns it as engines."""
    gallery, facts = work / f"{name}.m3i", work / f"{name}.m3i.json"
    if not gallery.exists():
        patients = work / f"{name}.patients.txt"
        command = [EXAMPLES / "make_gallery", gallery, paths[0]] + ([patients] if patients.exists() else [])
        environment = os.environ | {"RAYON_NUM_THREADS": "1"}
        out = subprocess.run(list(map(str, command)), env=environment, check=True, capture_output=True, text=True)
        facts.write_text(out.stdout)
    made = [(["--recall", wanted], f"m3ret, recall {wanted}") for wanted in recalls]
    made += [(["--exact"], "m3ret, exact"), (["--filter", "bucket=7"], "m3ret, 1 % pass a filter"),
             (["--filter", "tenth=7"], "m3ret, 10 % pass a filter")]
    every = [Ours(gallery, paths, work, options, label) for options, label in made]
    for engine in every:
        engine.build_s = json.loads(facts.read_text())["cpu_s"]
    return every


def hnswlib(rows, work, name):
    """Building is slow, so the index is kept with its cost."""
    import hnswlib as library

    path, facts = work / f"{name}.hnsw", work / f"{name}.hnsw.json"
    index = library.Index("ip", rows.shape[1])
    cost = None
    if path.exists():
        index.load_index(str(path), max_elements=len(rows))
        cost = json.loads(facts.read_text())["cpu_s"]
    else:
        index.init_index(len(rows), M=16, ef_construction=200, random_seed=1)
        index.set_num_threads(1)
        start = time.process_time()
        for at in range(0, len(rows), 50000):
            index.add_items(np.ascontiguousarray(rows[at:at + 50000]), np.arange(at, min(at + 50000, len(rows))))
        cost = time.process_time() - start
        index.save_index(str(path))
        facts.write_text(json.dumps({"cpu_s": cost}))
    index.set_num_threads(1)

    def search(queries, ef):
        index.set_ef(ef)
        return index.knn_query(queries, K)[0].astype(np.int64)

    efs = [15, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640, 960, 1280, 1920, 3840]
    return Engine("hnswlib, M = 16", search, [efs]), cost


def scann(rows, work, name):
    """A tree of leaves, anisotropic codes of 4 bits for 2 dimensions, and exact scores at the end."""
    import scann as library

    rows = np.ascontiguousarray(rows)
    n_leaves = int(2 * len(rows) ** 0.5)
    builder = library.scann_ops_pybind.builder(rows, K, "dot_product")
    builder = builder.tree(num_leaves=n_leaves, num_leaves_to_search=10, training_sample_size=len(rows))
    builder = builder.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(100)
    builder.set_n_training_threads(1)
    index = builder.build()

    def search(queries, setting):
        leaves, n_reordered = setting
        if len(queries) == 1:
            found = index.search(queries[0], K, pre_reorder_num_neighbors=n_reordered, leaves_to_search=leaves)[0]
            return np.asarray(found, np.int64)[None]
        found = index.search_batched(queries, K, pre_reorder_num_neighbors=n_reordered, leaves_to_search=leaves)[0]
        return np.asarray(found, np.int64)

    leaves = [n for n in (5, 8, 12, 18, 27, 40, 60, 90, 135, 200, 300, n_leaves) if n <= n_leaves]
    return Engine("ScaNN", search, [[(n, depth) for n in leaves] for depth in (50, 100, 200, 400, 1600)]), None


def vsag(rows, work, name):
    """HGraph: 8-bit codes in the graph, exact scores at the end."""
    import pyvsag

    options = {"dtype": "float32", "metric_type": "ip", "dim": rows.shape[1],
               "index_param": {"base_quantization_type": "sq8", "max_degree": 32, "ef_construction": 200,
                               "use_reorder": True, "precise_quantization_type": "fp32", "build_thread_count": 1}}
    index = pyvsag.Index("hgraph", json.dumps(options))
    # It takes no array that cannot be written to, as a mapped one.
    index.build(np.array(rows), np.arange(len(rows), dtype=np.int64), len(rows), rows.shape[1])

    def search(queries, ef):
        parameters = json.dumps({"hgraph": {"ef_search": ef}})
        found = [index.knn_search(query, K, parameters)[0] for query in queries]
        return np.asarray([np.resize(np.asarray(ids, np.int64), K) for ids in found])

    efs = [15, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640, 960, 1500]
    return Engine("VSAG HGraph", search, [efs]), None


def svs(rows, work, name):
    """Vamana on the vectors themselves: codes of LVQ and LeanVec are not in the public build."""
    import svs as library

    parameters = library.VamanaBuildParameters(alpha=0.95, graph_max_degree=64, window_size=128)
    index = library.Vamana.build(parameters, np.array(rows), library.DistanceType.MIP, num_threads=1)

    def search(queries, window):
        index.search_window_size = window
        return np.asarray(index.search(queries, K)[0], np.int64)

    windows = [12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024]
    return Engine("SVS Vamana, f32", search, [windows]), None


def faiss_index(rows, text, groups):
    """An inverted index of FAISS with exact scores at the end."""
    import faiss

    faiss.omp_set_num_threads(1)
    n_lists, width = int(2 * len(rows) ** 0.5), rows.shape[1]
    if text == "RaBitQ":
        # The factory of version 1.15.1 crashes for this one. The parts must live as long as the index.
        flat = faiss.IndexFlatIP(width)
        base = faiss.IndexIVFRaBitQ(flat, width, n_lists, faiss.METRIC_INNER_PRODUCT)
        base.qb = 4
        index = faiss.IndexRefineFlat(base)
        parts = (flat, base)
    else:
        parts = ()
        index = faiss.index_factory(width, text, faiss.METRIC_INNER_PRODUCT)
    chosen = np.sort(np.random.default_rng(7).choice(len(rows), min(len(rows), 40 * n_lists), False))
    index.train(np.ascontiguousarray(rows[chosen]))
    for at in range(0, len(rows), 100000):
        index.add(np.ascontiguousarray(rows[at:at + 100000]))

    def search(queries, setting, _parts=parts):
        n_probe, index.k_factor = setting
        faiss.downcast_index(index.base_index).nprobe = n_probe
        return index.search(queries, K)[1]

    return Engine("FAISS IVF, " + text.split(",")[-2:][0] + ", refined", search, groups), None


def faiss_groups(factors):
    probes = (2, 4, 6, 9, 13, 20, 30, 45, 70, 100, 150, 220, 320)
    return [[(n, factor) for n in probes] for factor in factors]


def faiss_rabitq(rows, work, name):
    return faiss_index(rows, "RaBitQ", faiss_groups((10, 30, 100)))


def faiss_pq(rows, work, name):
    text = f"IVF{int(2 * len(rows) ** 0.5)},PQ{rows.shape[1] // 4}x4fs,RFlat"
    return faiss_index(rows, text, faiss_groups((5, 10, 30, 100)))


BUILDERS = {"scann": scann, "vsag": vsag, "svs": svs, "hnswlib": hnswlib, "rabitq": faiss_rabitq, "pq": faiss_pq}


def built(build, rows, work, name):
    """Builds an engine and says what that took."""
    memory, start = anonymous_mb(), time.process_time()
    engine, kept_cost = build(rows, work, name)
    engine.build_s = time.process_time() - start if kept_cost is None else kept_cost
    engine.mb = anonymous_mb() - memory
    return engine
