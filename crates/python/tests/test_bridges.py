"""Tables, tensors, examples and folders of models."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import REAL, ROOT

import m3ret

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NIFTI = sorted(REAL.glob("*.nii.gz"))


def example(name: str, *words: object) -> str:
    program = [sys.executable, str(EXAMPLES / name), *map(str, words)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_embeddings_are_arrays_tensors_and_tables(encoder: m3ret.Encoder, tmp_path: Path) -> None:
    embeddings = encoder.embed(REAL / "kermany16-00010.jpg"), encoder.embed(NIFTI)
    picture, volumes = embeddings
    assert np.asarray(volumes) is volumes.numpy() and np.from_dlpack(volumes).base is not None
    assert volumes[1].shape == (192,) and len(volumes[1:3]) == 2 and volumes[[0, 2]].paths[1] == volumes.paths[2]
    assert np.allclose(np.linalg.norm(volumes, axis=1), 1, atol=1e-5)
    pa = pytest.importorskip("pyarrow")
    table = pa.table(volumes)
    assert table.column_names == ["path", "part", "embedding"] and len(table) == len(NIFTI)
    assert table.schema.metadata[b"fingerprint"].decode() == encoder.fingerprint
    back = table["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, 192)
    assert np.array_equal(back, volumes.numpy())
    assert pa.record_batch(volumes).num_rows == len(NIFTI)
    assert pa.schema(volumes).names == ["path", "part", "embedding"]
    pytest.importorskip("pandas")
    assert list(volumes.to_pandas().columns) == ["path", "part", "embedding"]
    volumes.to_parquet(tmp_path / "vectors.parquet")
    from conftest import run

    archive = m3ret.open(REAL, cache=tmp_path / "cache")
    [answer] = run("search", "-d", REAL, "--cache", tmp_path / "cache", "--embeddings", tmp_path / "vectors.parquet", "--json")[:1]
    assert answer["hits"][0]["score"] == pytest.approx(1.0, abs=1e-6) and len(archive) > 0
    assert len(picture) == 1


def test_polars_takes_embeddings_through_arrow(encoder: m3ret.Encoder) -> None:
    polars = pytest.importorskip("polars")
    pytest.importorskip("pyarrow")
    frame = polars.DataFrame(encoder.embed(NIFTI[:2]))
    assert frame.shape == (2, 3)


def test_tensors_are_embedded_as_arrays(encoder: m3ret.Encoder) -> None:
    torch = pytest.importorskip("torch")
    array = np.random.default_rng(0).random((60, 50)).astype(np.float32)
    expected = encoder.embed(array).numpy()
    tensor = torch.from_numpy(array)
    for other in (tensor, tensor.clone().requires_grad_(), tensor.T.contiguous().T):
        assert np.array_equal(encoder.embed(other), expected)
    half = tensor.to(torch.bfloat16)
    assert np.array_equal(encoder.embed(half), encoder.embed(half.float()))
    assert torch.from_dlpack(encoder.embed(array)).shape == (1, 192)
    [volume] = m3ret.read(NIFTI[0])
    assert np.array_equal(torch.from_dlpack(volume).numpy(), volume.numpy())


def test_the_module_of_torch_gives_the_same_vectors(encoder: m3ret.Encoder) -> None:
    pytest.importorskip("torch")
    told = example("torch_m3ret.py", ROOT / "weights/m3ret-tiny", *NIFTI, *sorted(REAL.glob("*.jpg")))
    differences = [float(line.split()[-1]) for line in told.splitlines()]
    print(f"torch: largest difference {max(differences):.1e}")
    assert len(differences) > 5 and max(differences) < 1e-5
    assert len((EXAMPLES / "torch_m3ret.py").read_text().splitlines()) <= 120


def test_vectors_go_to_faiss_through_arrow() -> None:
    pytest.importorskip("faiss")
    pytest.importorskip("pyarrow")
    assert "largest difference" in example("faiss_handover.py", REAL)


def test_monai_embeds_what_it_loads() -> None:
    try:
        import monai  # noqa: F401
    except ImportError:
        pytest.skip("MONAI is not installed")
    told = example("monai_transform.py", NIFTI[0], NIFTI[3])
    assert all(float(line.split()[-1]) == 0 for line in told.splitlines() if "difference" in line)


def test_a_model_goes_through_a_folder(encoder: m3ret.Encoder, tmp_path: Path) -> None:
    folder = encoder.save(tmp_path / "mine")
    again = m3ret.load(folder)
    assert again.name == "mine" and again.fingerprint == encoder.fingerprint
    assert np.array_equal(again.embed(NIFTI[0]), encoder.embed(NIFTI[0]))
    assert m3ret.Encoder.from_pretrained(folder).fingerprint == encoder.fingerprint
    with pytest.raises(m3ret.MismatchError):
        encoder.save(folder)
    assert {file.name for file in folder.iterdir()} >= {"config.json", "model.safetensors"}


def test_answers_explain_themselves_and_have_pictures(tmp_path: Path) -> None:
    archive = m3ret.open(REAL, cache=tmp_path)
    answers = archive.ask(NIFTI[0], k=3)
    why = archive.explain(answers, hit=1)
    assert why is not None and why["score"] == pytest.approx(float(answers.scores[0, 1]), abs=0.2)
    in_memory = archive.ask(NIFTI[0].read_bytes(), k=4)
    assert archive.explain(in_memory, hit=0) is not None
    picture = in_memory.picture(0)
    assert picture is not None and picture.startswith(b"\x89PNG") and answers.picture(0, 2) is not None
    assert answers.picture(0, 99) is None
    page = answers._repr_html_()
    assert page.count("<img") == 4 and "<script" not in page
    assert "</html>" in answers.page(tmp_path / "page.html") and (tmp_path / "page.html").is_file()
    assert answers.view and answers.relation[0] and len(answers.agreement) == 1
    with pytest.raises(m3ret.MismatchError):
        archive.explain(answers, query=3)
    with pytest.raises(m3ret.MismatchError):
        archive.explain(answers, hit=30)
    assert m3ret.map(REAL, tmp_path / "map.html", cache=tmp_path).stat().st_size > 10_000


def test_several_threads_ask_one_archive(pictures: Path, tmp_path: Path) -> None:
    archive = m3ret.open(pictures, cache=tmp_path, model="random:tiny")
    paths = sorted(pictures.iterdir())
    expected = [archive.ask(path, k=3).ids for path in paths]
    found: dict[int, list[list[str]]] = {}

    def ask(first: int) -> None:
        for idx in range(first, first + 10):
            found[idx] = archive.ask(paths[idx].read_bytes(), k=4).ids

    threads = [threading.Thread(target=ask, args=(start,), daemon=True) for start in (0, 10, 20, 30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    # A query in memory finds itself first.
    assert [found[idx][0][1:] for idx in range(40)] == [ids[0] for ids in expected]


def test_the_tutorial_runs(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(ROOT / "docs/tutorial.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(ROOT)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("text/html" in output.get("data", {}) for output in outputs)
