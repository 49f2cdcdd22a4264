"""Compares an evaluation of m3ret with pytrec_eval, from its TREC files.

    python check_trec.py OUT

OUT is a folder that `m3ret evaluate` wrote. Every query of every task is compared where definitions
coincide: hit_at_k is success_k, precision_at_k is P_k, recall_at_k is recall_k, ndcg_at_k is ndcg_cut_k,
mrr_at_k is recip_rank of a run that ends at k, map_at_k is map_cut_k times R / min(R, k), as
trec_eval divides by R, and map_at_r is map_cut_R, for queries whose run is as long as R: evaluate with
a large cutoff (-k 1,5,10,1000) to compare them all. trec_eval measures the one order that a run lists, m3ret the
mean over all orders of equal scores; runs give equal scores neighbouring numbers, and queries with such
neighbours are counted and not compared. Ends with status 77 where a package is missing.
"""

import collections
import json
import pathlib
import sys

try:
    import numpy as np
    import pyarrow.parquet
    import pytrec_eval
except ImportError as error:
    print(f"missing: {error}")
    sys.exit(77)

KS = (1, 5, 10)


def read(path, value_at):
    table = collections.defaultdict(dict)
    for line in path.read_text().splitlines():
        words = line.split()
        table[words[0]][words[2]] = float(words[value_at])
    return table


def has_ties(scores):
    """Whether a run's scores, best first, have two that are next to each other as f32."""
    scores = np.array(sorted(scores, reverse=True), np.float32)
    return bool((np.nextafter(scores[:-1], np.float32(-np.inf)) == scores[1:]).any())


def main():
    out = pathlib.Path(sys.argv[1])
    rows = pyarrow.parquet.read_table(out / "per_query.parquet").to_pylist()
    results = json.loads((out / "results.json").read_text())
    stems = {task["task"]: task["trec"] for task in results["tasks"]}
    by_task = collections.defaultdict(list)
    for row in rows:
        by_task[row["task"]].append(row)
    n_numbers, n_short, n_tied = 0, 0, 0
    for task, queries in by_task.items():
        name = stems[task]
        run = read(out / "trec" / f"{name}.run", 4)
        qrels = {query: {item: int(grade) for item, grade in items.items()}
                 for query, items in read(out / "trec" / f"{name}.qrels", 3).items()}
        measures = {f"{family}.{','.join(map(str, KS))}" for family in ("success", "P", "recall", "ndcg_cut", "map_cut")}
        depths = ",".join(str(depth) for depth in sorted({row["n_relevant"] for row in queries}))
        at_r = pytrec_eval.RelevanceEvaluator(qrels, {f"map_cut.{depths}"}).evaluate(run)
        theirs = pytrec_eval.RelevanceEvaluator(qrels, measures | {"recip_rank"}).evaluate(run)
        assert len(queries) == len(theirs), (task, len(queries), len(theirs))
        for row in queries:
            other = theirs[f"q{row['row']}"]
            n_relevant = row["n_relevant"]
            if has_ties(run[f"q{row['row']}"].values()):
                n_tied += 1
                continue
            if len(run[f"q{row['row']}"]) >= min(n_relevant, row["n_candidates"]):
                wanted = at_r[f"q{row['row']}"][f"map_cut_{n_relevant}"]
                assert abs(row["map_at_r"] - wanted) < 1e-9, (task, row["path"], "map_at_r", row["map_at_r"], wanted)
                n_numbers += 1
            else:
                n_short += 1
            for k in KS:
                first = other["recip_rank"] if other["recip_rank"] >= 1 / k - 1e-9 else 0.0
                pairs = {
                    f"hit_at_{k}": other[f"success_{k}"],
                    f"precision_at_{k}": other[f"P_{k}"],
                    f"recall_at_{k}": other[f"recall_{k}"],
                    f"ndcg_at_{k}": other[f"ndcg_cut_{k}"],
                    f"map_at_{k}": other[f"map_cut_{k}"] * n_relevant / min(n_relevant, k),
                    f"mrr_at_{k}": first,
                }
                for metric, wanted in pairs.items():
                    assert abs(row[metric] - wanted) < 1e-9, (task, row["path"], metric, row[metric], wanted)
                    n_numbers += 1
    print(f"{n_numbers} numbers of {len(rows)} queries in {len(by_task)} tasks agree; "
          f"{n_short} queries have runs shorter than R, so their map_at_r was not compared; "
          f"{n_tied} queries have equal scores, and were not compared")


main()
