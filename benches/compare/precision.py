"""How far bf16 and int8 move embeddings of real images, and what that does to retrieval.

Embeds a sample of a manifest in f32, bf16 and int8 with one model, and prints the cosine of every
vector to its f32 twin (smallest and median), the same after the mean f32 vector is removed from all
(vectors of an untrained network are all alike, which flatters the first), and hit@1 by
modality + body_part among the other patients' items, with its change in points.

Run from the repository root, in a Python with numpy:
    cargo build --release -p m3ret-cli
    python benches/compare/precision.py MANIFEST.csv [--model random:base] [--n 240]
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", Path(__file__).parents[2] / "target"))
PRECISIONS = ["f32", "bf16", "int8"]


def sample(manifest, n_rows, dims):
    """Rows of every modality and body part in turn, so that small groups are kept whole."""
    with open(manifest, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["dims"] in dims]
    groups = {}
    for row in rows:
        groups.setdefault((row["modality"], row["body_part"]), []).append(row)
    rng = np.random.default_rng(0)
    for group in groups.values():
        rng.shuffle(group)
    turns = range(max(map(len, groups.values())))
    mixed = [group[turn] for turn in turns for group in groups.values() if turn < len(group)]
    return mixed[:n_rows]


def embed(binary, model, precision, rows, folder):
    """One vector a row, NaN where the object was refused."""
    table, out = folder / "sample.csv", folder / f"{precision}.npy"
    with open(table, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    command = [binary, "embed", table, "--model", model, "--precision", precision, "--out", out]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if not out.exists():
        sys.exit(f"{binary} embed failed: {done.stderr}")
    return np.load(out)


def cosines(ours, reference):
    products = (ours * reference).sum(1)
    return products / np.linalg.norm(ours, axis=1) / np.linalg.norm(reference, axis=1)


def hits(vectors, rows):
    """For each row with a relevant item of another patient: is the nearest such item relevant?"""
    labels = np.array([f"{row['modality']} {row['body_part']}" for row in rows])
    patients = np.array([row["patient_id"] or f"row {i}" for i, row in enumerate(rows)])
    scores = vectors @ vectors.T
    is_other = patients[:, None] != patients[None, :]
    is_relevant = (labels[:, None] == labels[None, :]) & is_other
    nearest = np.where(is_other, scores, -np.inf).argmax(1)
    return is_relevant[np.arange(len(rows)), nearest][is_relevant.any(1)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", default="random:base")
    parser.add_argument("--n", type=int, default=240, help="objects to embed")
    parser.add_argument("--dims", nargs="+", default=["2d", "3d"])
    parser.add_argument("--binary", default=TARGET / "release" / "m3ret")
    options = parser.parse_args()

    rows = sample(options.manifest, options.n, options.dims)
    for row in rows:
        row["path"] = str((options.manifest.parent / row["path"]).resolve())
    with tempfile.TemporaryDirectory() as folder:
        vectors = np.array([embed(options.binary, options.model, p, rows, Path(folder))
                            for p in PRECISIONS])  # [precision, row, width]
    is_there = np.isfinite(vectors).all((0, 2))
    if not is_there.any():
        sys.exit("nothing could be embedded")
    rows = [row for row, there in zip(rows, is_there) if there]
    vectors = vectors[:, is_there]
    reference = vectors[0]
    mean = reference.mean(0)
    reference_hits = hits(reference, rows)
    print(f"{options.model}, {len(rows)} objects, {len(reference_hits)} queries\n")
    print("| precision | cosine, smallest | median | mean removed, smallest | median "
          "| hit@1 | change, points | queries that changed |\n|---|---|---|---|---|---|---|---|")
    for precision, ours in zip(PRECISIONS, vectors):
        plain, centred = cosines(ours, reference), cosines(ours - mean, reference - mean)
        found = hits(ours, rows)
        hit, change = "none", "none"  # without a query there is nothing to say
        if len(found):
            hit = f"{found.mean():.3f}"
            change = f"{100 * (found.mean() - reference_hits.mean()):+.2f}"
        print(f"| {precision} | {plain.min():.5f} | {np.median(plain):.5f} | {centred.min():.4f} "
              f"| {np.median(centred):.4f} | {hit} | {change} "
              f"| {(found != reference_hits).sum()} |")


if __name__ == "__main__":
    main()
