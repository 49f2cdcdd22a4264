"""Recomputes an evaluation of m3ret from its manifest and vectors, with numpy alone.

    python check_protocol.py OUT MANIFEST.csv VECTORS.npy [PIXELS_OUT]

OUT is a folder that `m3ret evaluate` wrote with the usual exclusions and relevance columns; VECTORS has a
row for each row of the manifest, NaN where there is no vector. Who is asked for what is derived from the
manifest anew, every gallery is sorted anew, and compared are: the queries that count, their values, means
(over queries, or over the classes of queries), chance, constant, maximum, skipped tasks, the means of
groups, the differences that can be resolved, and searches over all modalities. Equal scores take the mean over
their orders; scores are summed as m3ret sums them, so that the same ones are equal. PIXELS_OUT is the
evaluation of the model pixels that was made beside it. Ends with status 77 where a package is missing.
"""

import collections
import csv
import json
import math
import pathlib
import sys

try:
    import numpy as np
    import pyarrow.parquet
except ImportError as error:
    print(f"missing: {error}")
    sys.exit(77)

METRICS = ("map_at_r", "precision_at_5", "hit_at_1")
UNSEEN = {"MR", "MRI", "PT", "PET"}
LANES = 16
COLLAPSED_RANGE = np.float32(64 * 2.0 ** -23)
n_numbers = 0


def same(found, wanted, what, tolerance=1e-9):
    global n_numbers
    assert (found is None) == (wanted is None), (what, found, wanted)
    if found is not None:
        assert abs(found - wanted) <= tolerance, (what, found, wanted)
    n_numbers += 1


class Archive:
    def __init__(self, manifest, vectors):
        self.rows = list(csv.DictReader(manifest.open()))
        self.vectors = np.load(vectors).astype(np.float64)
        assert len(self.vectors) == len(self.rows), (len(self.vectors), len(self.rows))
        self.has = ~np.isnan(self.vectors).any(1)
        paths = [row["path"] for row in self.rows]
        self.place = np.empty(len(paths), int)
        self.place[sorted(range(len(paths)), key=lambda i: (paths[i].encode(), i))] = np.arange(len(paths))
        splits = [row.get("split") or "" for row in self.rows]
        alone = not any(splits)
        self.asks = [alone or split == "query" for split in splits]
        self.found = [alone or split == "gallery" for split in splits]

    def cell(self, i, name):
        return self.rows[i].get(name) or ""

    def labels(self, i, column):
        return frozenset(part.strip() for part in self.cell(i, column).split("|") if part.strip())

    def is_unseen(self, i):
        return self.cell(i, "modality").upper() in UNSEEN

    def real(self):
        return [i for i in range(len(self.rows)) if not self.cell(i, "source").startswith("drr-")]


def sides(archive, task):
    """The rows that ask and those that are found, and whether the same patient may be found."""
    kind, *rest = task.split("/")
    cell = archive.cell
    if kind in ("pair", "pair-disturbed"):
        has_pair = [i for i in range(len(archive.rows)) if cell(i, "pair_id")]
        disturbed = {cell(i, "modality") for i in has_pair if cell(i, "disturbed")}

        def of(modality):
            wants = kind == "pair-disturbed" and modality in disturbed
            return [i for i in has_pair if cell(i, "modality") == modality and bool(cell(i, "disturbed")) == wants]

        return of(split_pair(archive, rest[0])[0]), of(split_pair(archive, rest[0])[1]), True
    real = archive.real()
    if kind == "cross":
        one, other = split_pair(archive, rest[0])
        queries = [i for i in real if cell(i, "modality") == one]
        gallery = [i for i in real if cell(i, "modality") == other]
    else:
        column = "source" if kind == "within-source" else "modality"

        def name(i):
            return "-".join(filter(None, (cell(i, column), cell(i, "dims"))))

        queries = [i for i in real if cell(i, column) and name(i) == rest[0] and archive.is_unseen(i) == (kind == "unseen")]
        gallery = queries
    return [i for i in queries if archive.asks[i]], [i for i in gallery if archive.found[i]], False


def split_pair(archive, name):
    known = {archive.cell(i, "modality") for i in range(len(archive.rows))}
    return next((a, b) for a in sorted(known) for b in sorted(known) if f"{a}-{b}" == name)


def dots(vector, rows):
    """f32 dot products in 16 chains of fused multiply-adds that are added as a tree."""
    width = -len(vector) % LANES
    vector = np.pad(vector.astype(np.float32), (0, width)).astype(np.float64)
    rows = np.pad(rows.astype(np.float32), ((0, 0), (0, width))).astype(np.float64)
    sums = np.zeros((len(rows), LANES), np.float32)
    for start in range(0, len(vector), LANES):
        part = slice(start, start + LANES)
        # A product of two f32 is exact in f64.
        sums = (vector[part] * rows[:, part] + sums).astype(np.float32)
    while sums.shape[1] > 1:
        half = sums.shape[1] // 2
        sums = sums[:, :half] + sums[:, half:]
    return sums[:, 0] + np.float32(0)


def is_collapsed(archive, queries, gallery):
    """Whether all scores of a task are one number, but for rounding."""
    low, high = np.float32(np.inf), np.float32(-np.inf)
    for query in queries:
        scores = dots(archive.vectors[query], archive.vectors[[j for j in gallery if j != query]])
        if len(scores):
            low, high = min(low, scores.min()), max(high, scores.max())
    return bool(0 <= high - low < COLLAPSED_RANGE)


class Query:
    """A query's candidates, which of them are relevant, and how they are ranked."""

    def __init__(self, archive, i, gallery, column, finds_same):
        self.i = i
        own = archive.labels(i, column)
        patient = archive.cell(i, "patient_id")
        candidates = [
            j for j in gallery
            if j != i and (finds_same or not patient or archive.cell(j, "patient_id") != patient)
        ]
        self.candidates = candidates
        self.relevant = {j for j in candidates if own & archive.labels(j, column)}
        self.n, self.r = len(candidates), len(self.relevant)
        self.own = own

    def blocks(self, archive, collapsed):
        """Lists of candidates with one score, the best first."""
        if collapsed:
            return [self.candidates]
        scores = dots(archive.vectors[self.i], archive.vectors[self.candidates])
        by_score = collections.defaultdict(list)
        for j, score in zip(self.candidates, scores.tolist()):
            by_score[score].append(j)
        return [by_score[score] for score in sorted(by_score, reverse=True)]

    def share(self, blocks, k, is_counted):
        """The mean number of items that count among the first k, over k."""
        total, before = 0.0, 0
        for block in blocks:
            n_seen = min(max(k - before, 0), len(block))
            total += n_seen * sum(map(is_counted, block)) / len(block)
            before += len(block)
        return total / k

    def expected(self, blocks):
        """The mean of each metric over the orders of equal scores."""
        precisions, before, found = 0.0, 0, 0
        for block in blocks:
            n, r = len(block), len(self.relevant.intersection(block))
            for j in range(1, n + 1):
                # With j - 1 other items of the block before it.
                others = (j - 1) * (r - 1) / (n - 1) if n > 1 else 0.0
                if before + j <= self.r:
                    precisions += r / n * (found + 1 + others) / (before + j)
            before, found = before + n, found + r

        def is_relevant(j):
            return j in self.relevant

        return {
            "map_at_r": precisions / self.r,
            "precision_at_5": self.share(blocks, 5, is_relevant),
            "hit_at_1": self.share(blocks, 1, is_relevant),
        }

    def is_tied(self, blocks, cuts):
        """Whether a cut goes through a block that holds relevant items and others."""
        before = 0
        for block in blocks:
            is_mixed = 0 < len(self.relevant.intersection(block)) < len(block)
            if is_mixed and any(before < k < before + len(block) for k in (*cuts, self.r)):
                return True
            before += len(block)
        return False

    def value(self, ranking):
        """The metrics of a fixed ranking."""
        hits = np.array([j in self.relevant for j in ranking[: max(self.r, 5)]], float)
        precisions = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        return {
            "map_at_r": float((precisions * hits)[: self.r].sum() / self.r),
            "precision_at_5": float(hits[:5].sum() / 5),
            "hit_at_1": float(hits[0]),
        }

    def chance(self):
        n, r = self.n, self.r
        others = (r - 1) / (n - 1) if n > 1 else 0.0
        return {
            "map_at_r": sum(r / n * (1 + (i - 1) * others) / i for i in range(1, r + 1)) / r,
            "precision_at_5": min(5, n) / 5 * r / n,
            "hit_at_1": 1 - math.comb(n - r, 1) / n,
        }

    def maximum(self):
        return {"map_at_r": 1.0, "precision_at_5": min(5, self.r) / 5, "hit_at_1": 1.0}


def asked(archive, queries, gallery, column, finds_same):
    gallery = [j for j in gallery if archive.cell(j, column) and archive.has[j]]
    queries = [i for i in queries if archive.cell(i, column) and archive.has[i]]
    made = [Query(archive, i, gallery, column, finds_same) for i in sorted(queries, key=lambda i: archive.place[i])]
    return [query for query in made if 0 < query.r < query.n], gallery


def weights_of(queries, is_cross):
    if not is_cross:
        return np.full(len(queries), 1 / len(queries))
    counts = collections.Counter(query.own for query in queries)
    return np.array([1 / len(counts) / counts[query.own] for query in queries])


def constant(archive, queries, gallery, column, weights):
    sums = np.zeros((2, len(gallery)))
    for query, weight in zip(queries, weights):
        is_relevant = np.array([bool(query.own & archive.labels(j, column)) for j in gallery])
        sums[0] += weight * is_relevant
        sums[1] += weight * is_relevant / query.r
    sums = sums.round(9)
    best = dict.fromkeys(METRICS, -1.0)
    for first in (0, 1):
        order = sorted(range(len(gallery)), key=lambda g: (
            -sums[first][g], -sums[1 - first][g], archive.cell(gallery[g], column).encode(), archive.place[gallery[g]]))
        order = [gallery[g] for g in order]
        total = collections.Counter()
        for query, weight in zip(queries, weights):
            candidates = set(query.candidates)
            value = query.value([j for j in order if j in candidates])
            for metric in METRICS:
                total[metric] += weight * value[metric]
        for metric in METRICS:
            best[metric] = max(best[metric], total[metric])
    return best


def resolution(patients, weights, means, values, maxima):
    """Of one metric: expected, with values, and at most."""
    if len(set(patients)) < 5:
        return None
    deviations, ranges = collections.Counter(), collections.Counter()
    for i, (patient, weight) in enumerate(zip(patients, weights)):
        ranges[patient] += weight * maxima[i]
        if values is not None:
            deviations[patient] += weight * (values[i] - means[i])
    n = len(set(patients))
    expected = None
    if values is not None:
        expected = 1.96 * math.sqrt(n / (n - 1) * sum(x * x for x in deviations.values()))
    return {"expected": expected, "at_most": 1.96 * math.sqrt(sum(x * x for x in ranges.values()) / 4)}


def class_means(queries, is_cross, values):
    sums = collections.defaultdict(list)
    for query, value in zip(queries, values):
        sums[query.own if is_cross else 0].append(value)
    return [float(np.mean(sums[query.own if is_cross else 0])) for query in queries]


def check_resolution(result, patients, weights, per_metric, what):
    for metric in METRICS:
        means, values, maxima = per_metric[metric]
        wanted = resolution(patients, weights, means, values, maxima)
        found = result["resolution"].get(metric)
        assert (found is None) == (wanted is None), (what, metric)
        if wanted:
            same(found["expected"], wanted["expected"], (what, metric, "expected"))
            same(found["at_most"], wanted["at_most"], (what, metric, "at_most"))


def check_task(archive, task, per_query, pixels, ks):
    queries, gallery, finds_same = sides(archive, task["task"])
    column = task["relevance"]
    queries, gallery = asked(archive, queries, gallery, column, finds_same)
    what = task["task"]
    is_cross = what.startswith("cross/")
    assert task["averaged_over"] == ("query_classes" if is_cross else "queries"), what
    assert (task["n_queries"], task["n_gallery"]) == (len(queries), len(gallery)), (what, len(queries), len(gallery))
    if is_cross:
        unseen = any(modality.upper() in UNSEEN for modality in split_pair(archive, what.split("/")[1]))
        assert task["group"] == ("cross-unseen" if unseen else "cross"), what
    n_classes = len({query.own for query in queries})
    assert task["n_query_classes"] == n_classes and (not is_cross or n_classes > 1), what
    weights = weights_of(queries, is_cross)
    found = {row["row"]: row for row in per_query}
    assert len(found) == len(queries) == len(per_query), what
    # The range of scores is that of all who ask, whether or not they count.
    sided = sides(archive, task["task"])[0]
    asking = [i for i in sided if archive.cell(i, column) and archive.has[i]]
    collapsed = is_collapsed(archive, asking, gallery)
    assert task["is_collapsed"] == collapsed, (what, collapsed)
    blocks = [query.blocks(archive, collapsed) for query in queries]
    values = [query.expected(of_query) for query, of_query in zip(queries, blocks)]
    cuts = {*ks, 1, 5, 20}
    n_tied = sum(query.is_tied(of_query, cuts) for query, of_query in zip(queries, blocks))
    assert task["n_tied"] == n_tied, (what, task["n_tied"], n_tied)
    for query, value in zip(queries, values):
        row = found[query.i]
        assert (row["n_candidates"], row["n_relevant"]) == (query.n, query.r), (what, row["path"])
        for metric in METRICS:
            same(row[metric], value[metric], (what, row["path"], metric))
    numbers = constant(archive, queries, gallery, column, weights)
    of_pixels = pixels and {row["row"]: row for row in pixels}
    patients = [archive.cell(query.i, "patient_id") or f"row {query.i}" for query in queries]
    per_metric, maxima = {}, {}
    for metric in METRICS:
        def mean(of):
            return float(sum(weight * of(query)[metric] for query, weight in zip(queries, weights)))

        same(task["metrics"][metric]["value"], sum(w * v[metric] for w, v in zip(weights, values)), (what, metric))
        same(task["chance"][metric], mean(Query.chance), (what, metric, "chance"))
        maxima[metric] = mean(Query.maximum)
        same(task["maximum"][metric], maxima[metric], (what, metric, "maximum"))
        same(task["constant"][metric], numbers[metric], (what, metric, "constant"))
        reference = of_pixels and [of_pixels[query.i][metric] for query in queries]
        means = reference and class_means(queries, is_cross, reference)
        per_metric[metric] = (means, reference, [query.maximum()[metric] for query in queries])
    same(task["constant_share"], max(numbers[m] / maxima[m] for m in METRICS), (what, "constant_share"))
    check_resolution(task, patients, weights, per_metric, what)
    return patients, weights, per_metric


def check_groups(results, checked, pixels_results):
    tasks = {task["task"]: task for task in results["tasks"]}
    of_pixels = {task["task"]: task["metrics"]["precision_at_5"]["value"] for task in (pixels_results or {"tasks": []})["tasks"]}
    wanted = collections.defaultdict(list)
    for name, task in tasks.items():
        if (task["n_queries"] >= 20 and task["chance"]["precision_at_5"] <= 0.8
                and of_pixels.get(name, 0) < 0.98 and task["constant_share"] < 0.8):
            wanted[task["group"]].append(name)
    assert {group["group"]: group["tasks"] for group in results["groups"]} == wanted, "groups"
    for group in results["groups"]:
        names = group["tasks"]
        for metric in METRICS:
            mean = np.mean([tasks[name]["metrics"][metric]["value"] for name in names])
            same(group["metrics"][metric]["value"], mean, (group["group"], metric))
            for key in ("chance", "constant"):
                same(group[key][metric], np.mean([tasks[name][key][metric] for name in names]), (group["group"], metric, key))
        pooled = [checked[name] for name in names]
        patients = [patient for one in pooled for patient in one[0]]
        assert group["n_patients"] == len(set(patients)), group["group"]
        weights = [weight / len(names) for one in pooled for weight in one[1]]
        per_metric = {}
        for metric in METRICS:
            parts = [one[2][metric] for one in pooled]
            is_known = all(part[1] is not None for part in parts)
            per_metric[metric] = tuple(
                [x for part in parts for x in part[k]] if k == 2 or is_known else None for k in range(3))
        check_resolution(group, patients, weights, per_metric, group["group"])


def check_mixed(archive, results):
    real = [i for i in archive.real() if archive.cell(i, "modality")]
    for one in results["mixed"]:
        column = one["relevance"]
        asking, found = [i for i in real if archive.asks[i]], [i for i in real if archive.found[i]]
        queries, gallery = asked(archive, asking, found, column, False)
        asking = [i for i in asking if archive.cell(i, column) and archive.has[i]]
        collapsed = is_collapsed(archive, asking, gallery)
        rows = []
        for query in queries:
            def is_own(j):
                return archive.cell(j, "modality") == archive.cell(query.i, "modality")

            right = {j for j in query.relevant if not is_own(j)}
            if not right:
                continue
            blocks = query.blocks(archive, collapsed)
            own = [j for j in query.candidates if is_own(j)]
            seen = min(5, query.n) / 5
            rows.append((query.share(blocks, 5, lambda j: j in right), seen * len(right) / query.n,
                         query.share(blocks, 5, is_own), seen * len(own) / query.n))
        assert one["n_queries"] == len(rows), (column, one["n_queries"], len(rows))
        right, right_chance, own, own_chance = np.mean(rows, 0)
        found = one["right_of_other_modality_at_5"], one["own_modality_at_5"]
        for share, value, chance in zip(found, (right, own), (right_chance, own_chance)):
            same(share["value"], value, (column, "mixed"))
            same(share["chance"], chance, (column, "mixed chance"))


def read(out):
    by_task = collections.defaultdict(list)
    for row in pyarrow.parquet.read_table(out / "per_query.parquet").to_pylist():
        by_task[row["task"]].append(row)
    return json.loads((out / "results.json").read_text()), by_task


def main():
    out, manifest, vectors, *pixels_out = map(pathlib.Path, sys.argv[1:])
    archive = Archive(manifest, vectors)
    results, by_task = read(out)
    assert results["protocol"] == 3, results["protocol"]
    pixels_results, pixels = read(pixels_out[0]) if pixels_out else (None, {})
    if results["model"] == "pixels":
        pixels_results, pixels = results, by_task
    checked = {}
    for task in results["tasks"]:
        checked[task["task"]] = check_task(archive, task, by_task[task["task"]], pixels.get(task["task"]), results["config"]["k"])
    for skipped in results["skipped"]:
        queries, gallery, finds_same = sides(archive, skipped["task"])
        column = "pair_id" if finds_same else skipped["task"].split("/")[-1]
        queries, _ = asked(archive, queries, gallery, column, finds_same)
        is_one_class = skipped["task"].startswith("cross/") and len({query.own for query in queries}) == 1
        assert not queries or is_one_class, (skipped, len(queries))
    check_groups(results, checked, pixels_results)
    check_mixed(archive, results)
    print(f"{n_numbers} numbers of {len(checked)} tasks, {len(results['groups'])} groups and "
          f"{len(results['mixed'])} mixed searches agree; {len(results['skipped'])} skipped tasks")


main()
