"""Tables of vectors and hits for Arrow. pyarrow is imported when a table is asked for, and is not needed otherwise."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._encoder import Embeddings
    from ._index import Hits


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise ImportError("tables need pyarrow: pip install pyarrow") from error
    return pyarrow


def _vectors(embeddings: Embeddings, is_fixed: bool) -> Any:
    import numpy as np

    pa = _pyarrow()
    array = embeddings.numpy()
    values = pa.array(np.ascontiguousarray(array).reshape(-1))
    if is_fixed:
        return pa.FixedSizeListArray.from_arrays(values, array.shape[1])
    offsets = np.arange(0, array.size + 1, max(array.shape[1], 1), dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def vectors_table(embeddings: Embeddings, is_fixed: bool = True) -> Any:
    """Returns ``path``, ``part`` and ``embedding``, with what made the vectors as metadata."""
    pa = _pyarrow()
    metadata = {
        "model": embeddings.model,
        "fingerprint": embeddings.fingerprint,
        "precision": embeddings.precision,
    }
    names = ["path", "part", "embedding"]
    columns = [
        pa.array(embeddings.paths, pa.string()),
        pa.array(embeddings.parts, pa.string()),
        _vectors(embeddings, is_fixed),
    ]
    table = pa.Table.from_arrays(columns, names)
    return table.replace_schema_metadata({key: value for key, value in metadata.items() if value})


def one_batch(table: Any) -> Any:
    """Returns all rows of a table as one batch."""
    pa = _pyarrow()
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], table.schema)


def write_vectors(embeddings: Embeddings, path: str | os.PathLike[str]) -> None:
    """Writes vectors as Parquet."""
    from pyarrow import parquet

    parquet.write_table(vectors_table(embeddings, is_fixed=False), os.fspath(path))


def hits_table(hits: Hits) -> Any:
    """Returns one row for each hit: ``query``, ``rank``, ``id``, ``score``, and what an archive knows of it."""
    pa = _pyarrow()
    return pa.Table.from_pylist(hits.rows())
