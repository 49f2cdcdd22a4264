"""Ten things that researchers do with faiss and open_clip, written with m3ret.

    python ten_things.py          runs the ten with m3ret on testdata/real, and counts lines of code

The functions ``theirs_N`` are the same steps with open_clip, faiss, pydicom, nibabel, pandas and scikit-learn. They are
counted, not run: their weights would have to be downloaded.
"""
# mypy: ignore-errors

from __future__ import annotations

import inspect
import sys
import tempfile
from pathlib import Path

import m3ret

ROOT = Path(__file__).resolve().parents[3]


def ours_1(images, work):
    """embed a folder of mixed formats"""
    return m3ret.load().embed(images, on_error="skip")


def theirs_1(images, work):
    model, _, preprocess = open_clip.create_model_and_transforms("ViT-B-32", pretrained="laion2b_s34b_b79k")
    model.eval()
    vectors, paths = [], []
    for path in sorted(Path(images).iterdir()):
        if path.name.endswith(".nii.gz"):
            array = np.asanyarray(nib.load(path).dataobj)
            array = array[..., array.shape[2] // 2].T
        elif path.suffix == ".dcm":
            dataset = pydicom.dcmread(path)
            array = apply_rescale(dataset.pixel_array, dataset)
        elif path.suffix in (".png", ".jpg"):
            array = np.asarray(Image.open(path).convert("L"))
        else:
            continue
        low, high = np.percentile(array, [0.5, 99.5])
        picture = Image.fromarray((np.clip((array - low) / (high - low), 0, 1) * 255).astype(np.uint8)).convert("RGB")
        with torch.no_grad():
            vector = model.encode_image(preprocess(picture)[None])
        vectors.append(torch.nn.functional.normalize(vector, dim=1).numpy())
        paths.append(str(path))
    return np.concatenate(vectors), paths


def ours_2(images, work):
    """make an index that survives a power cut"""
    return m3ret.Index.build(work / "index.m3i", ours_1(images, work))


def theirs_2(images, work):
    vectors, paths = theirs_1(images, work)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    faiss.write_index(index, str(work / "index.faiss.tmp"))
    os.replace(work / "index.faiss.tmp", work / "index.faiss")
    (work / "paths.json.tmp").write_text(json.dumps(paths))
    os.replace(work / "paths.json.tmp", work / "paths.json")
    return index, paths


def ours_3(images, work):
    """search by image"""
    return m3ret.open(images, cache=work).ask(images / "dcm-qa-ct-00005.nii.gz", k=3)


def theirs_3(images, work):
    index, paths = theirs_2(images, work)
    vector = embed_one(images / "dcm-qa-ct-00005.nii.gz")
    distances, rows = index.search(vector, 3)
    return distances, [paths[row] for row in rows[0]]


def ours_4(images, work):
    """search among CT only"""
    return m3ret.open(images, cache=work).ask(images / "dcm-qa-ct-00005.nii.gz", k=3, filter={"modality": "CT"})


def theirs_4(images, work):
    index, paths = theirs_2(images, work)
    table = pd.read_csv(images / "manifest.csv").set_index("path")
    allowed = [row for row, path in enumerate(paths) if table.modality.get(Path(path).name) == "CT"]
    parameters = faiss.SearchParameters(sel=faiss.IDSelectorBatch(allowed))
    vector = embed_one(images / "dcm-qa-ct-00005.nii.gz")
    distances, rows = index.search(vector, 3, params=parameters)
    return distances, [paths[row] for row in rows[0]]


def ours_5(images, work):
    """leave out hits of the same patient"""
    return m3ret.open(images, cache=work).ask(images / "dcm-qa-ct-00005.nii.gz", k=3, exclude="same_patient")


def theirs_5(images, work):
    index, paths = theirs_2(images, work)
    table = pd.read_csv(images / "manifest.csv").set_index("path")
    patients = [table.patient_id.get(Path(path).name) for path in paths]
    own = table.patient_id["dcm-qa-ct-00005.nii.gz"]
    allowed = [row for row, patient in enumerate(patients) if patient != own]
    parameters = faiss.SearchParameters(sel=faiss.IDSelectorBatch(allowed))
    distances, rows = index.search(embed_one(images / "dcm-qa-ct-00005.nii.gz"), 3, params=parameters)
    return distances, [paths[row] for row in rows[0]]


def ours_6(images, work):
    """find copies"""
    return m3ret.dedup(images, cache=work)


def theirs_6(images, work):
    index, paths = theirs_2(images, work)
    limits, distances, rows = index.range_search(index.reconstruct_n(0, index.ntotal), 0.98)
    pairs = []
    for row in range(index.ntotal):
        for place in range(limits[row], limits[row + 1]):
            if rows[place] > row:
                pairs.append((paths[row], paths[rows[place]], distances[place]))
    return pairs


def ours_7(images, work):
    """add and remove images"""
    index = m3ret.Index.open(work / "index.m3i")
    index.add(m3ret.load().embed(images / "drr-totalseg-00001.png"), ids=["new"])
    index.remove(["new"])
    return index


def theirs_7(images, work):
    index, paths = theirs_2(images, work)
    mapped = faiss.IndexIDMap2(index)
    mapped.add_with_ids(embed_one(images / "drr-totalseg-00001.png"), np.array([10_000]))
    mapped.remove_ids(np.array([10_000]))
    faiss.write_index(mapped, str(work / "index.faiss.tmp"))
    os.replace(work / "index.faiss.tmp", work / "index.faiss")
    return mapped


def ours_8(images, work):
    """draw a map"""
    return m3ret.map(images, work / "map.html", cache=work)


def theirs_8(images, work):
    vectors, paths = theirs_1(images, work)
    points = TSNE(metric="cosine", perplexity=5, init="random").fit_transform(vectors)
    figure = plotly.express.scatter(x=points[:, 0], y=points[:, 1], hover_name=paths)
    figure.write_html(work / "map.html")
    return work / "map.html"


def ours_9(images, work):
    """split by patient without leaks"""
    return m3ret.split(images / "manifest.csv", work / "split.csv", overwrite=True, cache=work)


def theirs_9(images, work):
    table = pd.read_csv(images / "manifest.csv")
    groups = list(table.patient_id)
    for a, b, _ in theirs_6(images, work):
        of = {path: row for row, path in enumerate(table.path)}
        one, other = of[Path(a).name], of[Path(b).name]
        groups = [groups[one] if group == groups[other] else group for group in groups]
    splitter = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    _, queries = next(splitter.split(table, table.modality, groups))
    table["split"] = ["query" if row in set(queries) else "gallery" for row in range(len(table))]
    table.to_csv(work / "split.csv", index=False)
    return table


def ours_10(images, work):
    """see why two images match"""
    archive = m3ret.open(images, cache=work)
    return archive.explain(archive.ask(images / "totalseg-00007.nii.gz", k=2), hit=0)


def theirs_10(images, work):
    tokens = []
    model, _, preprocess = open_clip.create_model_and_transforms("ViT-B-32", pretrained="laion2b_s34b_b79k")
    model.visual.output_tokens = True
    for path in (images / "a.png", images / "b.png"):
        with torch.no_grad():
            _, patches = model.visual(preprocess(Image.open(path).convert("RGB"))[None])
        tokens.append(torch.nn.functional.normalize(patches[0], dim=1))
    cosines = tokens[0] @ tokens[1].T
    best = cosines.max(dim=1)
    order = best.values.argsort(descending=True)[:20]
    return [(int(row), int(best.indices[row]), float(best.values[row])) for row in order]


def n_lines(function) -> int:
    """Counts lines of code without the head and the docstring."""
    lines = inspect.getsource(function).splitlines()[1:]
    return sum(1 for line in lines if line.strip() and not line.strip().startswith('"""'))


def main() -> None:
    images, n_ours, n_theirs = ROOT / "testdata/real", 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, 11):
            ours, theirs = globals()[f"ours_{number}"], globals()[f"theirs_{number}"]
            result = ours(images, Path(folder))
            n_ours, n_theirs = n_ours + n_lines(ours), n_theirs + n_lines(theirs)
            print(f"| {number} | {ours.__doc__} | {n_lines(ours)} | {n_lines(theirs)} | {type(result).__name__} |")
    print(f"| | all | {n_ours} | {n_theirs} | |")


if __name__ == "__main__":
    sys.exit(main())
