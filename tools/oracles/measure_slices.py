"""Measures whether a picture of one slice finds its volume and its level (docs/search.md, "Slices of volumes").

    python3 measure_slices.py OUT --m3ret PROGRAM MANIFEST [MANIFEST ...]

Takes every CT and MR volume of the manifests that is a NIfTI file of at least 8 slices, and of each one slice at a
random level, across the axis that is sampled most coarsely: as it is (`raw`), and as a picture of 8 bits in a window,
turned by up to 5 degrees, cut by up to a tenth at each side and noisy (`disturbed`). Both are looked for among all
volumes, with and without vectors of slices. Needs numpy, nibabel and Pillow.
"""

import argparse
import csv
import json
import pathlib
import subprocess

import nibabel
import numpy as np
from PIL import Image


def volumes_of(manifests):
    for manifest in manifests:
        for row in csv.DictReader(open(manifest, newline="")):
            path = manifest.parent / row["path"]
            if row["dims"] != "3d" or row["modality"] not in ("CT", "MR") or ".nii" not in path.name:
                continue
            image = nibabel.load(path)
            if len(image.shape) != 3 or min(image.shape) < 8:
                continue
            # Axes to the left, to the back and to the head, as m3ret turns them.
            turned = nibabel.as_closest_canonical(image)
            array = np.asarray(turned.dataobj, np.float32)[::-1, ::-1]
            yield path, row, array, np.array(turned.header.get_zooms()[:3], float)


def slice_of(array, spacing, rng):
    """Rows and columns of a slice, head or front up, and its level as a share of the volume."""
    wide, high, deep = spacing
    axis = 2
    if max(wide, high) > 1.5 * deep:
        axis = 1 if high > wide else 0
    n = array.shape[axis]
    index = int(rng.integers(n))
    cut = np.take(array, index, axis)
    picture = cut.T if axis == 2 else cut.T[::-1]
    return picture, (index + 0.5) / n, spacing[axis] * n


def disturbed(picture, rng):
    low, high = np.percentile(picture, [2, 99.5])
    grey = np.clip((picture - low) / max(high - low, 1e-6), 0, 1) * 255
    image = Image.fromarray(grey.astype(np.uint8))
    image = image.rotate(rng.uniform(-5, 5), Image.BILINEAR)
    width, height = image.size
    left, top, right, bottom = rng.uniform(0, 0.1, 4)
    image = image.crop((int(left * width), int(top * height), width - int(right * width), height - int(bottom * height)))
    noisy = np.asarray(image, np.float32) + rng.normal(0, 6, (image.size[1], image.size[0]))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def asked(program, gallery, queries):
    command = [program, "search", "-d", gallery, "-i", queries, "-k", "10", "--json"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [json.loads(line) for line in lines]


def interval(outcomes, rng):
    means = [np.mean(rng.choice(outcomes, len(outcomes))) for _ in range(2000)]
    return np.percentile(means, [2.5, 97.5])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--m3ret", default="m3ret")
    parser.add_argument("manifests", nargs="+", type=pathlib.Path)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    given.out.mkdir(parents=True, exist_ok=True)
    rows, queries = [], []
    for number, (path, row, array, spacing) in enumerate(volumes_of([m.resolve() for m in given.manifests])):
        rows.append({"path": path, "modality": row["modality"], "patient_id": row["patient_id"]})
        picture, level, extent = slice_of(array, spacing, rng)
        raw, changed = given.out / f"{number}-raw.npy", given.out / f"{number}-disturbed.png"
        np.save(raw, np.ascontiguousarray(picture))
        disturbed(picture, rng).save(changed)
        for kind, file in (("raw", raw), ("disturbed", changed)):
            queries.append({"path": file.resolve(), "modality": row["modality"], "kind": kind,
                            "volume": str(path), "level": level, "extent": extent})
    for name, table, columns in (("volumes", rows, ["path", "modality", "patient_id"]),
                                 ("queries", queries, ["path", "modality"])):
        with open(given.out / f"{name}.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(table)
    for views in ("projections", "projections,slices"):
        gallery = given.out / f"{views.replace(',', '-')}.m3i"
        command = [given.m3ret, "index", "build", gallery, given.out / "volumes.csv", "--views", views]
        if not gallery.exists():
            subprocess.run(command, check=True, capture_output=True)
        answers = asked(given.m3ret, gallery, given.out / "queries.csv")
        for kind in ("raw", "disturbed"):
            for modality in ("CT", "MR"):
                found, errors = [], []
                for query, answer in zip(queries, answers):
                    if query["kind"] != kind or query["modality"] != modality:
                        continue
                    # A volume that holds several images has a part in its id.
                    ranks = [hit["rank"] for hit in answer["hits"] if hit["file"].endswith(query["volume"])]
                    found.append(ranks[:1] == [1])
                    first = answer["hits"][0] if answer["hits"] else {}
                    if found[-1] and (first.get("view") or "").startswith("slice "):
                        at, n = map(int, first["view"].removeprefix("slice ").split("/"))
                        errors.append(abs((at - 0.5) / n - query["level"]) * query["extent"])
                low, high = interval(np.array(found, float), rng)
                level = f", level off by {np.median(errors):.1f} mm (90 %: {np.percentile(errors, 90):.1f})" if errors else ""
                print(f"{views}: {kind} {modality}: hit_at_1 {np.mean(found):.3f} [{low:.3f}, {high:.3f}], n {len(found)}{level}")


if __name__ == "__main__":
    main()
