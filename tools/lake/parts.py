"""Parts of a run, as `m3ret embed --shard` leaves them, made of given vectors."""

import hashlib
import json
import pathlib

import blake3
import numpy
import pyarrow
import pyarrow.parquet

FINGERPRINT = "external:lake-test:{width}"


def mixture(n_rows, width, seed, n_clusters=2000, n_latent=64, spread=0.45):
    """Unit vectors in clusters of very different size, as embeddings are: Zipf-weighted centres in few dimensions."""
    shared = numpy.random.default_rng(20)
    basis = shared.standard_normal((n_latent, width)).astype(numpy.float32) / numpy.sqrt(n_latent)
    centres = shared.standard_normal((n_clusters, n_latent)).astype(numpy.float32)
    weights = 1 / numpy.arange(1, n_clusters + 1)
    random = numpy.random.default_rng(seed)
    chosen = random.choice(n_clusters, n_rows, p=weights / weights.sum())
    latent = centres[chosen] + spread * random.standard_normal((n_rows, n_latent)).astype(numpy.float32)
    vectors = latent @ basis + 0.02 * random.standard_normal((n_rows, width)).astype(numpy.float32)
    return (vectors / numpy.linalg.norm(vectors, axis=1, keepdims=True)).astype(numpy.float32)


def write(folder, vectors, ids, columns, n_parts, run):
    """Deals rows to parts, the first rows to the first one."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True)
    width = vectors.shape[1]
    whole = {"n_items": len(ids), "paths": hashlib.blake2b(run.encode(), digest_size=16).hexdigest()}
    for part, rows in enumerate(numpy.array_split(numpy.arange(len(ids)), n_parts)):
        flat = pyarrow.array(vectors[rows].reshape(-1))
        lists = pyarrow.ListArray.from_arrays(numpy.arange(0, len(flat) + 1, width, dtype=numpy.int32), flat)
        cells = {name: pyarrow.array([values[row] for row in rows], pyarrow.string()) for name, values in columns.items()}
        table = pyarrow.table({"path": pyarrow.array([ids[row] for row in rows], pyarrow.string()), **cells, "embedding": lists})
        table = table.replace_schema_metadata({"model": "lake-test", "fingerprint": FINGERPRINT.format(width=width), "precision": "f32"})
        path = folder / f"{part}-of-{n_parts}.parquet"
        pyarrow.parquet.write_table(table, path, compression="none", use_dictionary=list(cells), row_group_size=65536)
        content = path.read_bytes()
        mark = {"format": 1, "m3ret": "test", "shard": part, "n_shards": n_parts, "whole": whole, "n_rows": len(rows), "n_embedded": len(rows),
                "n_refused": 0, "model": "lake-test", "fingerprint": FINGERPRINT.format(width=width), "precision": "f32", "width": width,
                "n_bytes": len(content), "blake3": blake3.blake3(content).hexdigest()}
        path.with_suffix(".done").write_text(json.dumps(mark))
    return folder
