"""Every way into m3ret gives the numbers of the command line, bit for bit."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REAL, ROOT, run

import m3ret

NIFTI = sorted(REAL.glob("*.nii.gz"))
PICTURES = sorted(REAL.glob("*.jpg")) + sorted(REAL.glob("*.png"))


def by_command(path: Path, folder: Path) -> np.ndarray:
    """Embeds a file or folder by the command line."""
    out = folder / "vectors.npy"
    words = ["--model", ROOT / "weights/m3ret-tiny", "--out", out, "--json", "--force"]
    # Images may be refused, such as videos without ffmpeg.
    run("embed", path, *words, is_good=False)
    return np.load(out)


def same(a: Any, b: Any) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    return a.shape == b.shape and a.dtype == b.dtype == np.float32 and a.tobytes() == b.tobytes()


def same_image(a: m3ret.Volume, b: m3ret.Volume) -> bool:
    affines = (a.affine is None) == (b.affine is None) and (
        a.affine is None or np.array_equal(a.affine, b.affine)
    )
    return (
        same(a.numpy(), b.numpy())
        and affines
        and a.spacing == b.spacing
        and a.reasons == b.reasons
        and a.kind == b.kind
    )


def test_a_folder_embeds_as_the_command_line_does(encoder: m3ret.Encoder, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for file in NIFTI + PICTURES:
        shutil.copy(file, folder)
    expected = by_command(folder, tmp_path)
    assert same(encoder.embed(folder), expected)
    assert same(encoder.embed(sorted(folder.iterdir())), expected)
    assert encoder.embed(folder).fingerprint == encoder.fingerprint


def test_a_manifest_embeds_as_the_command_line_does(encoder: m3ret.Encoder, tmp_path: Path) -> None:
    expected = by_command(REAL / "manifest.csv", tmp_path)
    embeddings = encoder.embed(REAL / "manifest.csv", on_error="skip")
    assert same(embeddings, expected[~np.isnan(expected[:, 0])])


def test_precisions_are_those_of_the_command_line(tmp_path: Path) -> None:
    for precision in ("f32", "bf16", "int8"):
        out = tmp_path / f"{precision}.npy"
        words = ["--model", ROOT / "weights/m3ret-tiny", "--out", out, "--json", "--precision", precision]
        run("embed", PICTURES[0], *words)
        model = m3ret.load(ROOT / "weights/m3ret-tiny", precision=precision)
        assert same(model.embed(PICTURES[0]), np.load(out)), precision


@pytest.mark.parametrize("path", NIFTI + PICTURES, ids=lambda path: path.name)
def test_bytes_and_volumes_embed_as_files(path: Path, encoder: m3ret.Encoder) -> None:
    expected = encoder.embed(path)
    assert same(encoder.embed(path.read_bytes()), expected)
    with open(path, "rb") as file:
        assert same(encoder.embed(file), expected)
    assert same(encoder.embed(m3ret.read(path)), expected)
    assert same(encoder.embed(bytearray(path.read_bytes())), expected)


@pytest.mark.parametrize("path", NIFTI, ids=lambda path: path.name)
def test_nibabel_images_are_read_as_their_files(path: Path, encoder: m3ret.Encoder) -> None:
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.load(path)
    [by_path], [by_image] = m3ret.read(path), m3ret.read(image)
    assert same_image(by_path, by_image)
    assert same(encoder.embed(image), encoder.embed(path))


def test_nibabel_images_of_arrays_are_read_as_nibabel_saves_them(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    rng = np.random.default_rng(1)
    affine = np.array([[0, -1.5, 0, 10], [2, 0, 0.1, -3], [0, 0, -2.5, 7], [0, 0, 0, 1.0]])
    for dtype in (np.uint8, np.int16, np.float32, np.float64, np.int32):
        array = (rng.random((9, 7, 5)) * 100).astype(dtype)
        for kind in (nibabel.Nifti1Image, nibabel.Nifti2Image):
            image = kind(array, affine, dtype=dtype)
            nibabel.save(image, tmp_path / "a.nii")
            [by_path], [by_image] = m3ret.read(tmp_path / "a.nii"), m3ret.read(image)
            assert same_image(by_path, by_image), (dtype, kind)
            # The generic way, for formats that are no NIfTI.
            generic = m3ret.Volume.from_array(
                array, spacing=None, affine=by_file(tmp_path / "a.nii"), space="RAS", order="WHD"
            )
            assert same(generic.numpy(), by_path.numpy()) and np.array_equal(generic.affine, by_path.affine)


def by_file(path: Path) -> np.ndarray:
    import nibabel

    return nibabel.load(path).affine


def test_images_of_simpleitk_are_read_as_their_files(encoder: m3ret.Encoder, tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    for path in NIFTI:
        image = sitk.ReadImage(str(path))
        file = tmp_path / "a.mha"
        sitk.WriteImage(image, str(file))
        image = sitk.ReadImage(str(file))
        [by_path], [by_image] = m3ret.read(file), m3ret.read(image)
        assert same_image(by_path, by_image), path.name
        assert same(encoder.embed(image), encoder.embed(file))
    picture = sitk.GetImageFromArray(np.arange(48 * 40, dtype=np.uint8).reshape(48, 40) % 200)
    picture.SetSpacing((0.5, 0.25))
    sitk.WriteImage(picture, str(tmp_path / "b.mha"))
    assert same_image(m3ret.read(tmp_path / "b.mha")[0], m3ret.read(picture)[0])
    colour = sitk.GetImageFromArray(np.arange(48 * 40 * 3, dtype=np.uint8).reshape(48, 40, 3), isVector=True)
    sitk.WriteImage(colour, str(tmp_path / "c.mha"))
    assert same_image(m3ret.read(tmp_path / "c.mha")[0], m3ret.read(colour)[0])


def test_images_of_simpleitk_embed_as_the_nifti_they_were_read_from(encoder: m3ret.Encoder) -> None:
    sitk = pytest.importorskip("SimpleITK")
    for path in NIFTI:
        assert same(encoder.embed(sitk.ReadImage(str(path))), encoder.embed(path)), path.name


def dicom_files() -> list[Path]:
    """Files of testdata that hold one readable image."""
    files = sorted((ROOT / "testdata" / "dicom").rglob("*.dcm"))
    return [file for file in files if not m3ret.check(file).refused]


def test_data_sets_of_pydicom_embed_as_their_files(encoder: m3ret.Encoder) -> None:
    pydicom = pytest.importorskip("pydicom")
    n_equal = 0
    for path in dicom_files():
        try:
            dataset = pydicom.dcmread(path)
            image = m3ret.read(dataset)
        except (pydicom.errors.InvalidDicomError, m3ret.M3retError):
            continue
        assert same_image(m3ret.read(path)[0], image[0]), path.name
        n_equal += 1
        if n_equal <= 5:
            expected = encoder.embed(path, on_error="skip")
            assert same(encoder.embed(dataset, on_error="skip"), expected)
    assert n_equal > 5


@pytest.fixture(scope="session")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one CT series of 12 slices, made with pydicom."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    folder = tmp_path_factory.mktemp("series")
    rng = np.random.default_rng(2)
    body = rng.integers(-900, 1200, (12, 64, 64)).cumsum(axis=1) % 1500 - 500
    for idx in range(12):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"1.2.3.{idx + 1}"
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, f"1.2.3.{idx + 1}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.4", "1.2.5"
        dataset.PatientID, dataset.PatientName = "SECRET-7", "Secret^Patient"
        dataset.Modality, dataset.BodyPartExamined = "CT", "CHEST"
        dataset.Rows, dataset.Columns = 64, 64
        dataset.PixelSpacing, dataset.SliceThickness = [0.8, 0.8], 2.5
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient = [-20, -30, 2.5 * idx]
        dataset.InstanceNumber = idx + 1
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
        dataset.PixelRepresentation = 1
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
        dataset.PixelData = body[idx].astype("<i2").tobytes()
        # The order of names is not that of positions.
        dataset.save_as(folder / f"{(idx * 5) % 12:02}.dcm", enforce_file_format=True)
    return folder


def test_a_list_of_data_sets_is_a_series(series: Path, encoder: m3ret.Encoder, tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    datasets = [pydicom.dcmread(path) for path in sorted(series.iterdir())]
    assert same_image(m3ret.read(series)[0], m3ret.read(datasets)[0])
    expected = by_command(series, tmp_path)
    assert same(encoder.embed(datasets), expected)
    assert same(encoder.embed(datasets[::-1]), expected), "the order does not matter"
    assert same(encoder.embed([datasets, series]), np.concatenate([expected, expected]))
    assert m3ret.read(datasets)[0].shape == (1, 12, 64, 64)


def test_arrays_embed_as_the_same_array_in_a_file(encoder: m3ret.Encoder, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for dtype in ("u1", "i2", "<f4", ">f4", "f8", ">i4", "?", "f2", "u8"):
        array = (rng.random((50, 61)) * 200).astype(dtype)
        np.save(tmp_path / "a.npy", array)
        expected = by_command(tmp_path / "a.npy", tmp_path)
        assert same(encoder.embed(array), expected), dtype
        assert same(encoder.embed([array, np.asfortranarray(array)])[0:1], expected), dtype
    array = (rng.random((40, 50)) * 200).astype(np.float32)
    expected = encoder.embed(np.ascontiguousarray(array[::-2, ::3]))
    assert same(encoder.embed(array[::-2, ::3]), expected), "strides may be negative"


def test_pictures_of_pillow_embed_as_their_files(encoder: m3ret.Encoder) -> None:
    image = pytest.importorskip("PIL.Image")
    for path in (path for path in PICTURES if path.suffix == ".png"):
        assert same(encoder.embed(image.open(path)), encoder.embed(path)), path.name
        assert same(encoder.embed(np.asarray(image.open(path))), encoder.embed(path)), path.name


def test_volumes_of_arrays_embed_as_volumes_of_files(encoder: m3ret.Encoder) -> None:
    for path in NIFTI:
        [volume] = m3ret.read(path)
        made = m3ret.Volume.from_array(volume.numpy(), spacing=None, affine=volume.affine)
        assert same(made.numpy(), volume.numpy())
        assert same(encoder.embed(made), encoder.embed(path))


def without_places(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Removes what names files: the command line shortens names, and images in memory have others."""
    told = json.loads(json.dumps(answers))
    for answer in told:
        answer.pop("query")
        for hit in answer["hits"]:
            hit.pop("file")
    return told


def test_answers_are_those_of_the_command_line(series: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    queries = tmp_path / "queries"
    queries.mkdir()
    named = [NIFTI[0], NIFTI[3], PICTURES[0], PICTURES[-1]]
    outside = [Path(shutil.copy(path, queries)) for path in named] + [series]
    words = ["-d", REAL, "--cache", cache, "--json", "-k", "6"]
    words += [word for path in outside for word in ("-i", path)]
    told = run("search", *words)
    archive = m3ret.open(REAL, cache=cache)
    by_path = archive.ask(outside, k=6)
    assert without_places(by_path.answers) == without_places(told)
    in_memory: list[Any] = [path.read_bytes() for path in outside[:4]]
    in_memory.append([__import__("pydicom").dcmread(path) for path in sorted(series.iterdir())])
    by_bytes = archive.ask(in_memory, k=6)
    assert without_places(by_bytes.answers) == without_places(told)
    volumes = [m3ret.read(path)[0] for path in outside]
    by_volume = archive.ask(volumes, k=6)
    assert without_places(by_volume.answers) == without_places(told)
    nibabel = pytest.importorskip("nibabel")
    by_nibabel = archive.ask([nibabel.load(path) for path in outside[:2]], k=6)
    assert without_places(by_nibabel.answers) == [
        {**answer, "query_row": idx} for idx, answer in enumerate(without_places(told)[:2])
    ]
    # Of a file of the archive, its own row is left out and its labels are those of the manifest.
    [inside] = run("search", "-d", REAL, "--cache", cache, "--json", "-k", "6", "-i", NIFTI[0])
    [volume] = m3ret.read(NIFTI[0])
    assert without_places(archive.ask(volume, k=6).answers) == without_places([inside])
    assert archive.ask(volume, k=6).scores.dtype == np.float32


def test_evaluations_are_those_of_the_command_line(pictures: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    rows = ["path,patient_id,modality,dims,body_part,finding,split"]
    for idx, path in enumerate(sorted(pictures.iterdir())):
        split = "query" if idx % 3 == 0 else "gallery"
        rows.append(f"{path},p{idx},US,2d,chest,{'abc'[idx % 5 % 3]},{split}")
    manifest.write_text("\n".join(rows) + "\n")
    words = ["--model", "m3ret-tiny", "--json", "--relevance", "finding"]
    [told] = run("evaluate", manifest, *words, "--out", tmp_path / "cli", is_good=False)
    how: dict[str, Any] = {"relevance": ["finding"]}
    mine = m3ret.evaluate(manifest, "m3ret-tiny", out=tmp_path / "python", **how)
    assert mine["m3ret-tiny"] == told and told["tasks"]
    assert mine.folders["m3ret-tiny"] == tmp_path / "python" and mine.rows()
    embeddings = m3ret.load("m3ret-tiny", precision="f32").embed(manifest)
    by_vectors = m3ret.evaluate(manifest, {"m3ret-tiny": embeddings}, **how)
    assert by_vectors["m3ret-tiny"]["tasks"] == told["tasks"]
    m3ret.evaluate(manifest, "hog", out=tmp_path / "hog", **how)
    [line] = run("compare", tmp_path / "python", tmp_path / "hog", "--json", is_good=False)
    assert m3ret.compare(tmp_path / "python", tmp_path / "hog") == line


def test_checks_splits_and_duplicates_are_those_of_the_command_line(tmp_path: Path) -> None:
    told = run("check", REAL, "--json", is_good=False)
    report = m3ret.check(REAL)
    assert report.reports == told[:-1] and report.summary == told[-1]["summary"]
    [summary] = run("split", REAL / "manifest.csv", "--out", tmp_path / "a.csv", "--json", "--cache", tmp_path, "--overwrite", is_good=False)
    mine = m3ret.split(REAL / "manifest.csv", tmp_path / "b.csv", cache=tmp_path, overwrite=True)
    assert {**mine, "out": ""} == {**summary["summary"], "out": ""}
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    pairs = run("dedup", REAL, "--json", "--cache", tmp_path, is_good=False)[:-1]
    mine_pairs = m3ret.dedup(REAL, cache=tmp_path)
    assert [{**pair, "files": 0} for pair in mine_pairs] == [{**pair, "files": 0} for pair in pairs]


def test_simulated_radiographs_are_those_of_the_command_line(tmp_path: Path) -> None:
    told = run("simulate", "radiographs", NIFTI[0], "--out", tmp_path / "a", "--json", "--hounsfield", "all", is_good=False)
    results, summary = m3ret.simulate(NIFTI[0], tmp_path / "b", hounsfield=True)
    assert len(results) == len(told) - 1
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "b").iterdir())
    for name in (name for name in files if name.endswith(".png")):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert summary["n_radiographs"] == told[-1]["summary"]["n_radiographs"]


def test_an_open_buffer_is_read_from_where_it_stands(encoder: m3ret.Encoder) -> None:
    buffer = io.BytesIO(PICTURES[0].read_bytes())
    assert same(encoder.embed(buffer), encoder.embed(PICTURES[0]))
