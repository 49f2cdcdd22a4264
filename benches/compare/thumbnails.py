"""Makes the baseline of raw pixels without m3ret, for `m3ret evaluate --embeddings`.

    python thumbnails.py MANIFEST.csv OUT.npy
    m3ret evaluate MANIFEST.csv --embeddings thumbnails=OUT.npy --out OUT

Each row becomes the 32 x 32 mean of areas of its central slice or frame, grey, with the mean removed and
unit length; rows that cannot be read are NaN. planes.py says how images are read, and what that needs.
"""

import csv
import pathlib
import sys

import numpy as np
import planes
from PIL import Image


def grey(plane):
    return plane.mean(-1) if plane.ndim == 3 else plane


def main():
    manifest, out = map(pathlib.Path, sys.argv[1:])
    rows = list(csv.DictReader(manifest.open()))
    vectors = np.full((len(rows), 1024), np.nan, np.float32)
    for vector, row in zip(vectors, rows):
        try:
            plane = grey(planes.read(manifest.parent / row["path"]))
            image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
        except Exception as error:
            print(f"{row['path']}: {type(error).__name__}")
            continue
        values = np.asarray(image.resize((32, 32), Image.BOX), np.float64).ravel()
        values -= values.mean()
        if np.linalg.norm(values) > 0:
            vector[:] = values / np.linalg.norm(values)
    np.save(out, vectors)


main()
