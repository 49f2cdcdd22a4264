"""Galleries of plain vectors."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import m3ret


def unit(n: int, width: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((n, width))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


def best(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    scores = queries.astype(np.float64) @ vectors.astype(np.float64).T
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def test_a_search_unpacks_and_finds_what_numpy_finds(tmp_path: Path) -> None:
    vectors = unit(500, 32)
    index = m3ret.Index.build(tmp_path / "a.m3i", vectors, numbers="f32")
    queries = unit(20, 32, seed=1)
    scores, ids = index.search(queries, k=7, exact=True)
    assert [[int(id) for id in row] for row in ids] == best(vectors, queries, 7).tolist()
    assert scores.shape == (20, 7) and scores.dtype == np.float32
    assert np.allclose(scores[3, 0], queries[3] @ vectors[int(ids[3][0])], atol=1e-6)
    for other in (queries.astype(np.float64), queries.astype(">f4"), np.asfortranarray(queries)):
        assert np.array_equal(index.search(other, k=7, exact=True).scores, scores)
    padded = np.zeros((40, 32), np.float32)
    padded[::2] = queries
    assert np.array_equal(index.search(padded[::2], k=7, exact=True).scores, scores)
    assert index.search(queries[0]).ids[0][:7] == ids[0]
    assert np.isnan(index.search(queries[:1], k=600).scores[0, 500:]).all()


def test_rows_have_columns_that_filter_group_and_exclude(tmp_path: Path) -> None:
    vectors = unit(60, 8)
    columns = {
        "modality": ["CT", "MR", "US"] * 20,
        "patient_id": [f"P{row // 3}" for row in range(60)],
        "site": ["a", "b"] * 30,
    }
    names = [f"row {row}" for row in range(60)]
    index = m3ret.Index.build(tmp_path / "a.m3i", vectors, ids=names, columns=columns, encoder="mine")
    assert index.model == "mine" and len(index) == 60 and "site" in index.columns
    found = index.search(vectors[:3], k=60, filter={"modality": ["CT", "US"], "site": "a"}, exact=True)
    wanted = {name for row, name in enumerate(names) if row % 3 != 1 and row % 2 == 0}
    assert set(found.ids[0]) == wanted
    assert set(index.search(vectors[:1], k=60, filter="modality!=MR", exact=True).ids[0]) == {
        name for row, name in enumerate(names) if row % 3 != 1
    }
    grouped = index.search(vectors[:1], k=60, group_by="patient_id", exact=True)
    assert len(grouped.ids[0]) == 20
    others = index.search(vectors[:2], k=60, exclude={"patient_id": ["P0", "P5"]}, exact=True)
    assert not {"row 0", "row 1", "row 2"} & set(others.ids[0])
    assert not {"row 15", "row 16", "row 17"} & set(others.ids[1])
    assert index.cells(["row 1", "nobody"], "modality") == ["MR", ""]
    assert "P0" not in index.cells(["row 0"], "patient_id"), "patients are stored as hashes"
    for file in (tmp_path / "a.m3i").iterdir():
        assert b"P17" not in file.read_bytes()
    with pytest.raises(m3ret.MismatchError, match="describes people"):
        m3ret.Index.build(tmp_path / "b.m3i", vectors, columns={"PatientName": names})
    assert not (tmp_path / "b.m3i").exists()


def test_rows_come_and_go(tmp_path: Path) -> None:
    vectors = unit(30, 16)
    index = m3ret.Index.build(tmp_path / "a.m3i", vectors[:20], numbers="f32")
    index.add(vectors[20:], ids=[f"new {row}" for row in range(10)])
    assert len(index) == 30 and index.search(vectors[25], k=1).ids == [["new 5"]]
    index.remove(["new 5", "3"])
    assert len(index) == 28 and index.search(vectors[25], k=1).ids != [["new 5"]]
    index.compact()
    assert index.verify()["is_good"] and index.stats()["n_items"] == 28
    ids, stored = index.rows()
    assert len(ids) == 28 and stored.shape == (28, 16)
    with pytest.raises(m3ret.MismatchError):
        index.remove(["nobody"])
    with pytest.raises(m3ret.MismatchError):
        index.add(vectors[:1], ids=["0"])
    again = m3ret.Index.open(tmp_path / "a.m3i")
    assert len(again) == 28


def test_embeddings_go_into_an_index_of_their_model_only(pictures: Path, tmp_path: Path) -> None:
    encoder = m3ret.load("hog")
    embeddings = encoder.embed(pictures)
    index = m3ret.Index.build(tmp_path / "a.m3i", embeddings)
    assert index.fingerprint == encoder.fingerprint and len(index) == 40
    scores, ids = index.search(embeddings[:3], k=1)
    assert [row[0] for row in ids] == embeddings.ids[:3] and np.allclose(scores, 1, atol=1e-3)
    other = m3ret.load("random:tiny").embed(pictures / "00.npy")
    with pytest.raises(m3ret.MismatchError, match="wanted those of hog"):
        index.search(other)
    with pytest.raises(m3ret.MismatchError):
        index.add(other)


@pytest.mark.parametrize(
    "vectors",
    [
        np.zeros((3, 4), np.float32),
        np.full((3, 4), np.nan, np.float32),
        np.full((3, 4), np.inf, np.float32),
        np.ones((3, 4), np.float32),
        np.ones((3, 0), np.float32),
        np.ones((2, 3, 4), np.float32),
        np.array([["a"]]),
        np.array([[object()]]),
        np.array([[1 + 2j]]),
        [[1.0], [1.0, 2.0]],
        None,
        "words",
        7,
    ],
    ids=str,
)
def test_vectors_that_are_none_are_errors(vectors: Any, tmp_path: Path) -> None:
    with pytest.raises((m3ret.M3retError, TypeError)):
        m3ret.Index.build(tmp_path / "a.m3i", vectors)
    index = m3ret.Index.build(tmp_path / "b.m3i", unit(5, 4))
    with pytest.raises((m3ret.M3retError, TypeError)):
        index.search(vectors)


@pytest.mark.parametrize("k", [0, -1, 1.5, "3", None, True, 1 << 70])
def test_numbers_of_hits_that_are_none_are_errors(k: Any, tmp_path: Path) -> None:
    index = m3ret.Index.build(tmp_path / "b.m3i", unit(5, 4))
    with pytest.raises(m3ret.MismatchError):
        index.search(unit(1, 4), k=k)


def test_places_without_a_gallery_are_errors(tmp_path: Path) -> None:
    with pytest.raises(m3ret.M3retError):
        m3ret.Index.open(tmp_path / "nothing.m3i")
    (tmp_path / "file").write_text("x")
    with pytest.raises(m3ret.M3retError):
        m3ret.Index.open(tmp_path / "file")
    index = m3ret.Index.build(tmp_path / "a.m3i", unit(50, 4))
    with pytest.raises(m3ret.MismatchError):
        m3ret.Index.build(tmp_path / "a.m3i", unit(5, 4))
    segment = max(index.path.iterdir(), key=lambda file: file.stat().st_size)
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 255
    segment.write_bytes(content)
    report = m3ret.Index.open(tmp_path / "a.m3i").verify()
    assert not report["is_good"] and report["findings"]
    segment.unlink()
    with pytest.raises(m3ret.DamagedError):
        m3ret.Index.open(tmp_path / "a.m3i")


def test_another_thread_ticks_during_a_long_search(tmp_path: Path) -> None:
    index = m3ret.Index.build(tmp_path / "a.m3i", unit(20_000, 128))
    queries = unit(2_000, 128, seed=1)
    n_ticks, is_over = 0, threading.Event()

    def tick() -> None:
        nonlocal n_ticks
        while not is_over.is_set():
            n_ticks += 1
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    began = time.monotonic()
    index.search(queries, k=10, exact=True)
    seconds = time.monotonic() - began
    is_over.set()
    thread.join()
    print(f"{n_ticks} ticks in {seconds:.2f} s of search")
    assert n_ticks > 100 * seconds


def test_several_threads_search_at_the_same_time(tmp_path: Path) -> None:
    vectors = unit(2_000, 32)
    index = m3ret.Index.build(tmp_path / "a.m3i", vectors)
    wrong: list[int] = []

    def search(first: int) -> None:
        for row in range(first, first + 50):
            if index.search(vectors[row], k=1).ids != [[str(row)]]:
                wrong.append(row)

    threads = [threading.Thread(target=search, args=(start,)) for start in range(0, 400, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_progress_is_a_callable_as_tqdm_is(tmp_path: Path) -> None:
    index = m3ret.Index.build(tmp_path / "a.m3i", unit(100, 8))
    told: list[Any] = []

    class Bar:
        def __init__(self, total: int, desc: str) -> None:
            told.append((total, desc))

        def update(self, n: int) -> None:
            told.append(n)

        def close(self) -> None:
            told.append("closed")

    index.search(unit(5, 8), progress=Bar)
    assert told[0] == (5, "searching") and sum(n for n in told if isinstance(n, int)) == 5
    assert told[-1] == "closed"

    class Broken(Bar):
        def update(self, n: int) -> None:
            raise RuntimeError("a bar that breaks")

    with pytest.raises(RuntimeError, match="a bar that breaks"):
        index.search(unit(5, 8), progress=Broken)
