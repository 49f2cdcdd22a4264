"""Galleries of plain vectors, and what is found in them."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator, Literal, Sequence, Union

from . import _m3ret
from ._encoder import Embeddings
from ._errors import MismatchError
from ._progress import Progress, Watch
from ._volume import reading
from ._words import cell, cells, words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Filter = Union[Mapping[str, Union[str, Sequence[str]]], Sequence[str], str]


_MAX_HITS = 1 << 20
"""Most hits of a query."""
_MAX_SCORES = 1 << 28
"""Most hits of all queries together: a gigabyte of scores."""


class Hits:
    """What was found for each query: ``scores, ids = index.search(q)``."""

    def __init__(self, scores: NDArray[np.float32], ids: list[list[str]]) -> None:
        self.scores = scores
        """float32 ``[n, k]``, the best first; NaN where there are fewer hits."""
        self.ids = ids
        """Ids of the hits of each query, the best first."""

    def __iter__(self) -> Iterator[Any]:
        return iter((self.scores, self.ids))

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self) -> list[dict[str, Any]]:
        """Returns one dictionary for each hit."""
        found = []
        for query, ids in enumerate(self.ids):
            for rank, id in enumerate(ids):
                score = float(self.scores[query, rank])
                found.append({"query": query, "rank": rank + 1, "id": id, "score": score})
        return found

    def to_arrow(self) -> Any:
        """Returns a table of pyarrow with one row for each hit."""
        from ._table import hits_table

        return hits_table(self)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def to_pandas(self) -> Any:
        """Returns a data frame of pandas with one row for each hit."""
        import pandas

        return pandas.DataFrame(self.rows())

    def _repr_html_(self) -> str:
        lines = ["<table><tr><th>query</th><th>rank</th><th>score</th><th>id</th></tr>"]
        for row in self.rows()[:100]:
            cells = (row["query"], row["rank"], f"{row['score']:.4f}", html.escape(row["id"]))
            lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
        return "".join(lines) + "</table>"

    def __repr__(self) -> str:
        n = sum(len(ids) for ids in self.ids)
        return f"Hits({len(self)} queries, {n} hits)"


class Index:
    """A gallery of unit vectors with ids and columns, kept in a folder."""

    def __init__(self, _index: _m3ret.Index) -> None:
        self._index = _index

    @staticmethod
    def open(path: str | os.PathLike[str]) -> Index:
        """Opens a gallery. Raises ``DamagedError`` or ``M3retError`` if it is none."""
        return Index(_m3ret.Index(os.fspath(path)))

    @staticmethod
    def build(
        path: str | os.PathLike[str],
        emb: Any,
        *,
        ids: Sequence[str] | None = None,
        columns: Mapping[str, Sequence[Any]] | None = None,
        numbers: Literal["f16", "f32"] = "f16",
        normalize: bool = False,
        encoder: str | None = None,
        progress: Progress = False,
    ) -> Index:
        """Makes a gallery of vectors in a new folder.

        ``emb`` is ``Embeddings`` or an array ``[n, width]`` of any type and layout; of an array, ``encoder`` names the model
        that made it. ``ids`` are one for each row: by default paths, or the numbers of the rows. ``columns`` have one cell
        for each row; columns that identify people (``patient_id``) are stored as keyed hashes, and such that describe
        people are refused. ``numbers="f16"`` halves the space; scores change by about 1e-4. ``normalize`` scales vectors to
        length 1, which must be asked for.

        Raises ``MismatchError`` if lengths differ, an id comes twice, a vector has no length 1, or something is there.
        """
        rows = _rows(emb, ids, columns, normalize, encoder)
        with Watch(progress, "building") as watch:
            return Index(_m3ret.Index.build(os.fspath(path), rows, numbers, watch))

    def add(
        self,
        emb: Any,
        ids: Sequence[str] | None = None,
        columns: Mapping[str, Sequence[Any]] | None = None,
        *,
        normalize: bool = False,
        progress: Progress = False,
    ) -> None:
        """Adds vectors of the same model; when this returns, they survive a power cut. All are added, or none.

        Raises ``MismatchError`` as ``build``, or for vectors of another model; ``LockedError``.
        """
        if not isinstance(emb, Embeddings) and ids is None:
            ids = [str(len(self) + row) for row in range(len(emb))]
        rows = _rows(emb, ids, columns, normalize, None)
        if not isinstance(emb, Embeddings) or not emb.fingerprint:
            rows["fingerprint"], rows["model"] = self.fingerprint, self.model
        with Watch(progress, "adding") as watch:
            self._index.add(rows, watch)

    def remove(self, ids: Sequence[str]) -> None:
        """Removes rows by id. Raises ``MismatchError`` if an id is not there; nothing is removed then."""
        self._index.remove(words("ids", ids))

    def compact(self, *, progress: Progress = False) -> None:
        """Writes the gallery again without removed rows, and measures how to search it."""
        with Watch(progress, "compacting") as watch:
            self._index.compact(watch)

    def verify(self) -> dict[str, Any]:
        """Reads every byte; returns ``is_good``, ``n_rows``, ``n_bytes`` and ``findings``."""
        is_good, n_rows, n_bytes, findings = self._index.verify()
        return {"is_good": is_good, "n_rows": n_rows, "n_bytes": n_bytes, "findings": findings}

    def stats(self) -> dict[str, Any]:
        """Describes the gallery as ``m3ret index stats --json`` does; measures its recall."""
        stats: dict[str, Any] = json.loads(self._index.stats())
        return stats

    def __len__(self) -> int:
        return len(self._index)

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(self._index.path)

    @property
    def width(self) -> int:
        """Number of values of a vector."""
        return self._index.width

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return self._index.columns

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the model that made the vectors."""
        return self._index.fingerprint

    @property
    def model(self) -> str:
        """Name of the model that made the vectors."""
        return self._index.model

    def rows(self) -> tuple[list[str], NDArray[np.float32]]:
        """Returns all ids, and the vectors as they are stored, float32 ``[n, width]``."""
        return self._index.rows()

    def cells(self, ids: Sequence[str], column: str) -> list[str]:
        """Returns the cells of a column for ids; empty where nothing is known."""
        return self._index.cells(words("ids", ids), column)

    def search(
        self,
        q: Any,
        k: int = 10,
        *,
        filter: Filter | None = None,
        exclude: Mapping[str, Sequence[Any]] | None = None,
        group_by: str | None = None,
        exact: bool = False,
        normalize: bool = False,
        threads: int | None = None,
        progress: Progress = False,
    ) -> Hits:
        """Finds the ``k`` most similar rows of each query.

        ``q`` is ``Embeddings`` or an array ``[n, width]`` or ``[width]``, converted once to float32. ``filter`` is
        ``{"modality": "CT"}``, ``{"modality": ["CT", "MR"]}`` or ``["modality!=MR"]``; ``exclude`` has for columns the value
        of each query that its hits must not have; of rows with one value in ``group_by`` only the best is a hit.
        ``exact=True`` scores every vector.

        Scores are cosines, the higher the more similar; equal scores are in ascending order of ids.

        Raises ``MismatchError`` if a query has another width or not length 1, or a column or value is not there.
        """
        if isinstance(q, Embeddings) and q.fingerprint and q.fingerprint != self.fingerprint:
            raise MismatchError(
                f"queries: found vectors of {q.model} ({q.fingerprint}), wanted those of {self.model} ({self.fingerprint})"
            )
        reading(threads=threads)
        queries = _matrix(q, normalize)
        left_out = _columns(exclude)
        unknown = [name for name, _ in left_out if name not in self.columns]
        if unknown:
            raise MismatchError(f"exclude: found the column {unknown[0]}, wanted one of {', '.join(self.columns) or 'none'}")
        arguments = {
            "k": _at_least_1("k", k),
            "filter": filter_words(filter),
            "exclude": left_out,
            "group_by": group_by,
            "exact": exact,
            "threads": threads,
        }
        for name, cells in left_out:
            if len(cells) != len(queries):
                raise MismatchError(f"exclude {name}: found {len(cells)} values, wanted {len(queries)}, one for each query")
        if _at_least_1("k", k) * len(queries) > _MAX_SCORES:
            raise MismatchError(f"k: found {k} for {len(queries)} queries, wanted at most {_MAX_SCORES} hits together")
        if progress is False:
            return Hits(*self._index.search(queries, arguments, None))
        with Watch(progress, "searching") as watch:
            return Hits(*self._index.search(queries, arguments, watch))

    def __repr__(self) -> str:
        return f"Index({str(self.path)!r}, {len(self)} x {self.width}, {self.model!r})"


def _at_least_1(name: str, k: Any) -> int:
    if isinstance(k, bool) or not hasattr(k, "__index__") or not 1 <= k.__index__() <= _MAX_HITS:
        raise MismatchError(f"{name}: found {k!r}, wanted a whole number from 1 to {_MAX_HITS}")
    return int(k.__index__())


def _columns(given: Mapping[str, Sequence[Any]] | None) -> list[tuple[str, list[str]]]:
    """Returns columns with their cells."""
    if given is None:
        return []
    names = list(given.keys())
    if any(not isinstance(name, str) or not name for name in names):
        raise MismatchError("columns: found a name that is no word")
    return [(name, cells(f"the column {name}", given[name])) for name in names]


def filter_words(filter: Filter | None) -> list[str]:
    """Returns conditions as the command line writes them."""
    if filter is None:
        return []
    if isinstance(filter, str):
        return [filter]
    if not isinstance(filter, Mapping):
        return words("filter", filter)
    conditions = []
    for column, values in filter.items():
        is_one = isinstance(values, str) or not isinstance(values, Iterable)
        values = [cell(value) for value in ([values] if is_one else values)]
        if not values:
            raise MismatchError(f"filter {column}: found no value, wanted one or more; no image passes none")
        conditions += [f"{column}={value}" for value in values]
    return conditions


def _matrix(x: Any, normalize: bool) -> NDArray[np.float32]:
    """Returns vectors as float32 ``[n, width]`` in C order, without a copy where they are so already."""
    import numpy as np

    from ._volume import _plain_array

    array = _plain_array(x.numpy() if isinstance(x, Embeddings) else x)
    if array.ndim == 1:
        array = array[np.newaxis]
    if array.ndim != 2 or array.shape[1] == 0:
        raise MismatchError(f"found an array of shape {array.shape}, wanted vectors [n, width]")
    matrix = np.ascontiguousarray(array, dtype=np.float32)
    if normalize and len(matrix):
        lengths = np.linalg.norm(matrix.astype(np.float64), axis=1, keepdims=True)
        if not np.all(np.isfinite(lengths)) or np.any(lengths == 0):
            raise MismatchError("found a vector that is zero or not finite, which cannot be scaled to length 1")
        matrix = (matrix / lengths).astype(np.float32)
    return matrix


def _rows(
    emb: Any,
    ids: Sequence[str] | None,
    columns: Mapping[str, Sequence[Any]] | None,
    normalize: bool,
    encoder: str | None,
) -> dict[str, Any]:
    matrix = _matrix(emb, normalize)
    model, fingerprint, precision = encoder or "unnamed", "", "unknown"
    if isinstance(emb, Embeddings) and emb.fingerprint:
        model, fingerprint, precision = emb.model, emb.fingerprint, emb.precision
    if ids is None:
        named = isinstance(emb, Embeddings) and len(emb.paths) == len(matrix)
        ids = emb.ids if named else [str(row) for row in range(len(matrix))]
    names = [cell(id) for id in ids]
    if len(names) != len(matrix):
        raise MismatchError(f"ids: found {len(names)}, wanted {len(matrix)}, one for each vector")
    return {
        "vectors": matrix,
        "ids": names,
        "columns": _columns(columns),
        "model": model,
        "fingerprint": fingerprint or f"external:{model}:{matrix.shape[1]}",
        "precision": precision,
    }
