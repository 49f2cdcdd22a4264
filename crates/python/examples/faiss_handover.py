"""Vectors of m3ret in an index of faiss, handed over through Arrow, and back.

    python faiss_handover.py FOLDER
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa

import m3ret


def matrix(table: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Returns the vectors of a table without a copy: float32 [n, width]."""
    column = table["embedding"].combine_chunks()
    values = column.flatten().to_numpy(zero_copy_only=True)
    shaped: np.ndarray[Any, np.dtype[np.float32]] = values.reshape(len(table), -1)
    return shaped


def main(folder: Path, model: str) -> None:
    embeddings = m3ret.load(model).embed(folder, on_error="skip")
    # Everything that speaks Arrow's C stream takes it: pyarrow, polars, DuckDB.
    table = pa.table(embeddings)
    vectors = matrix(table)
    theirs = faiss.IndexFlatIP(embeddings.width)
    theirs.add(vectors)
    distances, rows = theirs.search(vectors[:5], 3)

    with tempfile.TemporaryDirectory() as place:
        ours = m3ret.Index.build(Path(place) / "index.m3i", embeddings, numbers="f32")
        scores, ids = ours.search(embeddings[:5], k=3, exact=True)
    difference = float(np.abs(scores - distances).max())
    print(f"{len(table)} vectors; largest difference of scores to faiss: {difference:.1e}")
    print("nearest by faiss:", [table["path"][int(row)].as_py() for row in rows[0]])
    print("nearest by m3ret:", ids[0])
    assert difference < 1e-5


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "m3ret-tiny")
