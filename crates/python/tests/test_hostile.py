"""Wrong and hostile inputs are errors of m3ret that say what is wanted; nothing panics, and no error names a patient."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT

import m3ret


class Strange:
    """Claims to be an array."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("Secret^Patient")


def closed() -> io.BytesIO:
    file = io.BytesIO(b"x")
    file.close()
    return file


def wide() -> np.ndarray:
    """Claims terabytes without having them."""
    return np.broadcast_to(np.float32(1), (1 << 20, 1 << 22))


HOSTILE: dict[str, Any] = {
    "nothing": None,
    "number": 3,
    "float": 2.5,
    "empty bytes": b"",
    "garbage": b"garbage" * 100,
    "closed file": closed(),
    "text file": io.StringIO("x"),
    "empty array": np.zeros((0, 5), np.float32),
    "no axes": np.float32(3),
    "one axis": np.zeros(5, np.float32),
    "five axes": np.zeros((1, 1, 1, 2, 2), np.float32),
    "volume without spacing": np.zeros((4, 5, 6), np.float32),
    "objects": np.array([[object(), object()]]),
    "texts": np.array([["a", "b"]]),
    "complex": np.ones((4, 4), complex),
    "dates": np.array([["2020-01-01"]], dtype="datetime64[D]"),
    "structured": np.zeros((4, 4), dtype=[("r", "u1"), ("g", "u1")]),
    "strange": Strange(),
    "dictionary": {"a": 1},
    "missing": "no/such/file.png",
    "missing in a list": ["no/such/file.png"],
    "folder of a file": __file__ + "/x",
    "a zero byte": "a\0b",
    "nested": [[1, 2], [3]],
    "module": io,
    "class": Strange,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_image_is_an_error(name: str, encoder: m3ret.Encoder) -> None:
    with pytest.raises((m3ret.M3retError, ValueError)) as raised:
        encoder.embed(HOSTILE[name])
    assert "Secret" not in str(raised.value) and "panic" not in repr(raised.value).lower()
    assert raised.value.__cause__ is None or name == "strange" or "Secret" not in str(raised.value.__cause__)


def test_an_error_of_a_volume_says_how_to_give_the_spacing(encoder: m3ret.Encoder) -> None:
    with pytest.raises(m3ret.MismatchError, match=r"spacing=\(D, H, W\) in mm.*from_array"):
        encoder.embed(np.zeros((4, 5, 6), np.float32))
    made = encoder.embed(np.random.default_rng(0).random((4, 50, 60)), spacing=(3, 1, 1))
    assert made.numpy().shape == (1, encoder.width)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_arrays_without_numbers_are_refused(value: float, encoder: m3ret.Encoder) -> None:
    with pytest.raises(m3ret.Refused) as raised:
        encoder.embed(np.full((64, 64), value, np.float32))
    assert raised.value.reason


def test_arrays_with_some_bad_values_never_give_bad_vectors(encoder: m3ret.Encoder) -> None:
    rng = np.random.default_rng(0)
    for value in (np.nan, np.inf, -np.inf, 1e38, -1e38):
        array = rng.random((64, 64)).astype(np.float32)
        array[rng.random((64, 64)) < 0.3] = value
        embeddings = encoder.embed(array, on_error="skip")
        assert np.isfinite(embeddings.numpy()).all()


def test_huge_claims_cost_nothing(encoder: m3ret.Encoder) -> None:
    with pytest.raises((m3ret.M3retError, MemoryError)):
        encoder.embed(wide())
    with pytest.raises(m3ret.Refused) as raised:
        m3ret.read(np.zeros((300, 300), np.uint8), limits={"max_voxels": 100})
    assert raised.value.reason == "limit_exceeded"
    with pytest.raises(m3ret.MismatchError, match="max_voxels"):
        m3ret.read(np.zeros((3, 3), np.uint8), limits={"max_pixels": 100})


@pytest.mark.parametrize(
    "arguments",
    [
        {"spacing": (1, 2)},
        {"spacing": (0, 1, 1)},
        {"spacing": (-1, 1, 1)},
        {"spacing": (np.nan, 1, 1)},
        {"spacing": (1, 1, 1, 1)},
        {"spacing": 3},
        {"spacing": None, "affine": np.zeros((4, 4))},
        {"spacing": None, "affine": np.full((4, 4), np.nan)},
        {"spacing": None, "affine": np.eye(3)},
        {"spacing": (1, 1, 1), "kind": "film"},
        {"spacing": (1, 1, 1), "unit": "mm"},
        {"spacing": (1, 1, 1), "space": "XYZ"},
        {"spacing": (1, 1, 1), "order": "XYZ"},
    ],
    ids=str,
)
def test_facts_that_do_not_fit_are_errors(arguments: dict[str, Any]) -> None:
    if arguments == {"spacing": (1, 2)}:
        m3ret.Volume.from_array(np.zeros((4, 5, 6)), **arguments)
        return
    with pytest.raises((m3ret.M3retError, TypeError)):
        m3ret.Volume.from_array(np.zeros((4, 5, 6)), **arguments)


def test_every_cut_of_a_file_is_an_error_or_an_image(encoder: m3ret.Encoder) -> None:
    whole = (ROOT / "testdata/dicom/rescale_integer.dcm").read_bytes()
    for n_bytes in range(0, len(whole), max(len(whole) // 150, 1)):
        try:
            m3ret.read(whole[:n_bytes])
        except m3ret.M3retError as error:
            assert "internal" not in str(error)


def test_attacks_are_refused(encoder: m3ret.Encoder) -> None:
    for path in sorted((ROOT / "testdata/attacks").rglob("*")):
        if path.is_file() and path.stat().st_size < 1 << 20:
            try:
                m3ret.read(path.read_bytes(), limits={"max_seconds": 5})
            except m3ret.M3retError as error:
                assert "internal" not in str(error)


def test_no_error_names_a_patient(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.Dataset()
    dataset.PatientName, dataset.PatientID = "Secret^Patient", "SECRET-7"
    dataset.PixelData = b"12"
    with pytest.raises(m3ret.M3retError) as raised:
        m3ret.read(dataset)
    assert "ecret" not in str(raised.value) and raised.value.__cause__ is None
    whole = pydicom.dcmread(ROOT / "testdata/dicom/rescale_integer.dcm")
    whole.PatientName, whole.PatientID = "Secret^Patient", "SECRET-7"
    whole.Rows = 60_000
    for source in (whole, [whole, whole]):
        with pytest.raises(m3ret.M3retError) as raised:
            m3ret.read(source)
        assert "ecret" not in str(raised.value).lower().replace("secret ", "")


def test_words_that_are_none_are_errors(encoder: m3ret.Encoder, pictures: Path, tmp_path: Path) -> None:
    for call in (
        lambda: m3ret.load("no-such-model"),
        lambda: m3ret.load("m3ret-tiny", precision="f64"),  # type: ignore[arg-type]
        lambda: m3ret.load("m3ret-tiny", threads=0),
        lambda: m3ret.load(3),  # type: ignore[arg-type]
        lambda: encoder.embed(pictures, on_error="ignore"),  # type: ignore[arg-type]
        lambda: m3ret.open(tmp_path / "nothing"),
        lambda: m3ret.open(pictures, cache=tmp_path, labels="words"),  # type: ignore[arg-type]
        lambda: m3ret.open(pictures, cache=tmp_path, include=["/etc/*"]),
        lambda: m3ret.evaluate(tmp_path / "nothing.csv"),
        lambda: m3ret.compare(tmp_path, tmp_path),
        lambda: m3ret.split(tmp_path / "nothing.csv", tmp_path / "out.csv"),
        lambda: m3ret.map(pictures, tmp_path / "map.html", color="nothing", cache=tmp_path),
        lambda: m3ret.check(tmp_path / "nothing"),
        lambda: m3ret.simulate(tmp_path / "nothing", tmp_path / "out"),
        lambda: m3ret.pretrain(tmp_path / "nothing.toml"),
        lambda: m3ret.load("pixels").save(tmp_path / "model"),
    ):
        with pytest.raises((m3ret.M3retError, TypeError)):
            call()


def test_a_damaged_model_is_an_error(tmp_path: Path) -> None:
    folder = m3ret.load(ROOT / "weights/m3ret-tiny").save(tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    with pytest.raises(m3ret.M3retError):
        m3ret.load(folder)


@pytest.mark.parametrize("threads", [0, -1, 513, 70_000])
def test_threads_that_no_machine_has_are_refused(tmp_path: Path, threads: int) -> None:
    vectors = np.eye(4, dtype=np.float32)
    index = m3ret.Index.build(tmp_path / "g.m3i", vectors)
    with pytest.raises(m3ret.MismatchError, match="threads"):
        index.search(vectors, 1, threads=threads)
    with pytest.raises(m3ret.MismatchError, match="threads"):
        m3ret.load("pixels", threads=threads)


def test_a_string_is_one_word_and_never_its_letters(tmp_path: Path) -> None:
    vectors = np.eye(20, dtype=np.float32)
    index = m3ret.Index.build(tmp_path / "g.m3i", vectors, columns={"patient_id": [1.0] * 10 + [2] * 10})
    index.remove("12")
    assert len(index) == 19 and "1" in index.rows()[0]
    with pytest.raises(m3ret.MismatchError, match="one for each row"):
        m3ret.Index.build(tmp_path / "h.m3i", vectors[:3], columns={"modality": "CTM"})
    with pytest.raises(m3ret.MismatchError, match="exclude"):
        index.search(vectors[:1], 3, exclude={"patientt_id": ["1"]})
    found = index.search(vectors[:1], 20, exclude={"patient_id": [1.0]}).ids[0]
    assert found and all(int(name) >= 10 for name in found)
    with pytest.raises(m3ret.MismatchError, match="no value"):
        index.search(vectors[:1], 3, filter={"patient_id": []})
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.npy", "b.npy"):
        np.save(folder / name, np.random.default_rng(len(name)).random((16, 16)))
    archive = m3ret.open(folder, model="pixels", cache=tmp_path / "cache", include="a.*")
    assert len(archive) == 1


def test_a_page_replaces_no_image(tmp_path: Path) -> None:
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(ord(name)).random((16, 16)))
    before = (tmp_path / "a.npy").read_bytes()
    answers = m3ret.open(tmp_path, model="pixels", cache=tmp_path.parent / "c").ask(tmp_path / "b.npy")
    other = tmp_path / "notes.txt"
    other.write_text("mine")
    for place in (tmp_path / "a.npy", other):
        with pytest.raises(m3ret.M3retError):
            answers.page(place)
    with pytest.raises(m3ret.M3retError):
        answers.page(tmp_path / "a.npy", force=True)
    assert (tmp_path / "a.npy").read_bytes() == before and other.read_text() == "mine"
    page = tmp_path / "page.html"
    assert answers.page(page) == page.read_text(encoding="utf-8")
    answers.page(page)


def test_places_are_chosen_as_numpy_does() -> None:
    images = [np.random.default_rng(seed).random((16, 16)) for seed in range(3)]
    vectors = m3ret.load("pixels").embed(images)
    for chosen in ([True, False, True], np.array([True, False, True]), [0, 2], slice(0, 3, 2)):
        part = vectors[chosen]
        assert part.paths == [vectors.paths[0], vectors.paths[2]]
        np.testing.assert_array_equal(part.numpy(), vectors.numpy()[[0, 2]])
    np.testing.assert_array_equal(vectors[np.int64(1)], vectors.numpy()[1])
    assert len(vectors[[]]) == 0


def test_what_failed_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    place = tmp_path / "g.m3i"
    for _ in range(2):
        with pytest.raises(m3ret.MismatchError):
            m3ret.Index.build(place, np.eye(3), ids=["a", "a", "b"])
    assert len(m3ret.Index.build(place, np.eye(3), ids=["a", "b", "c"])) == 3
    with pytest.raises(m3ret.MismatchError, match="k:"):
        m3ret.Index.open(place).search(np.eye(3), 2**31)


def test_vectors_of_images_are_joined_with_a_manifest_by_path(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines, files = ["path,modality,body_part,patient_id"], []
    for number in range(40):
        file = tmp_path / f"{number}.npy"
        picture = np.zeros((16, 16)) + rng.random((16, 16)) * 0.3
        picture[:8 if number % 2 else 16, :8] += 1
        np.save(file, picture)
        files.append(str(file))
        lines.append(f"{number}.npy,DX,{'chest' if number % 2 else 'head'},p{number}")
    manifest = tmp_path / "list.csv"
    manifest.write_text("\n".join(lines) + "\n")
    encoder = m3ret.load("pixels")
    shuffled = [files[place] for place in rng.permutation(40)]
    values = []
    for given in (files, shuffled):
        vectors = encoder.embed(given)
        vectors.model = "mine"
        result = m3ret.evaluate(manifest, vectors, exclude=(), resamples=100)
        tasks = result["mine"]["tasks"]
        values.append([(task["task"], task["metrics"]["hit_at_1"]["value"]) for task in tasks])
    assert values[0] == values[1] and values[0]


@pytest.mark.parametrize(
    "call",
    [
        lambda: m3ret.read("/nope"),
        lambda: m3ret.check("/nope"),
    ],
)
def test_a_place_that_is_not_there_is_a_file_error(call: Any) -> None:
    with pytest.raises(m3ret.FileError):
        call()


def test_numbers_out_of_range_and_masks_are_refused(tmp_path: Path) -> None:
    for call in (
        lambda: m3ret.simulate(tmp_path, tmp_path / "out", angles=[400]),
        lambda: m3ret.simulate(tmp_path, tmp_path / "out", window=(5, 1)),
        lambda: m3ret.split(tmp_path / "m.csv", tmp_path / "s.csv", query=-1.0),
        lambda: m3ret.dedup(tmp_path, near=float("nan")),
        lambda: m3ret.evaluate(tmp_path / "m.csv", []),
        lambda: m3ret.load("pixels").embed(np.ma.masked_array(np.ones((8, 8)), mask=np.eye(8))),
        lambda: m3ret.load("pixels").embed({"a": 1}),
        lambda: m3ret.Volume.from_array(np.ones((4, 4, 4)), spacing="123"),
        lambda: m3ret.Volume.from_array(np.ones((4, 4, 4)), spacing=(9, 9, 9), affine=np.eye(4)),
    ):
        with pytest.raises(m3ret.MismatchError):
            call()
