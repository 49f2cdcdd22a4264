"""Vectors for search.py: rows of a gallery, queries, and the exact best scores of each query."""

import csv
from pathlib import Path

import numpy as np

from search_engines import K

N_QUERIES, WIDTH = 2000, 768
CHUNK = 20000


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def chunks(n):
    """Yields a random generator, whether its rows are queries, and how many there are."""
    for seed, total in ((2, n), (3, N_QUERIES)):
        random = np.random.default_rng(seed)
        for start in range(0, total, CHUNK):
            yield random, seed == 3, min(CHUNK, total - start)


def clustered(n, rows_a_centre=100):
    """Rows around random centres."""
    noise = np.float32(0.365 / WIDTH**0.5)
    centres = unit(np.random.default_rng(1).standard_normal((max(1, n // rows_a_centre), WIDTH), np.float32))
    for random, is_query, n_rows in chunks(n):
        rows = random.standard_normal((n_rows, WIDTH), np.float32) * noise
        rows += centres[random.integers(0, len(centres), n_rows)]
        yield is_query, unit(rows)


def coarse(n):
    return clustered(n, 5000)


def latent(n):
    """Clusters in 64 dimensions, the largest first as 1, 1/2, 1/3, ..., seen through a random linear map; 5 % of a
    row's energy is noise in all 768 dimensions."""
    fixed, n_latent, n_clusters = np.random.default_rng(1), 64, 2000
    centres = fixed.standard_normal((n_clusters, n_latent), np.float32)
    spread = np.float32(0.5)
    to_width = fixed.standard_normal((n_latent, WIDTH), np.float32)
    weights = 1 / np.arange(1, n_clusters + 1)
    weights /= weights.sum()
    for random, is_query, n_rows in chunks(n):
        rows = centres[random.choice(n_clusters, n_rows, p=weights)]
        rows = rows + spread * random.standard_normal(rows.shape, np.float32)
        rows = unit(rows @ to_width)
        rows += np.float32((0.05 / WIDTH) ** 0.5) * random.standard_normal(rows.shape, np.float32)
        yield is_query, unit(rows)


def cloud(n):
    """One normal distribution: nothing but distances themselves tells rows apart."""
    for random, is_query, n_rows in chunks(n):
        yield is_query, unit(random.standard_normal((n_rows, WIDTH), np.float32))


GENERATORS = {"clustered": clustered, "coarse": coarse, "latent": latent, "cloud": cloud}


def thumbnail(image, random):
    """One view: a crop of 40 to 100 % of the area, perhaps flipped, at 32 x 32, without its mean."""
    share = random.uniform(0.4, 1.0) ** 0.5
    width, height = image.size
    w, h = width * share, height * share
    left, top = random.uniform(0, width - w), random.uniform(0, height - h)
    view = np.asarray(image.resize((32, 32), 2, (left, top, left + w, top + h)), np.float32)
    if random.random() < 0.5:
        view = view[:, ::-1]
    view = view.ravel() - view.mean()
    length = np.linalg.norm(view)
    return view / length if length > 0 else None


def views(n, folders, patients):
    """Yields chunks of thumbnails of real pictures; one picture in 25 gives the queries.

    Appends the number of each row's picture to `patients`: as in an archive, the gallery knows which
    images belong together.
    """
    from PIL import Image

    images = []
    for folder in map(Path, folders):
        for row in csv.DictReader((folder / "manifest.csv").open(newline="")):
            if row["dims"] == "2d" and row["path"].lower().endswith((".png", ".jpg", ".jpeg")):
                images.append(np.asarray(Image.open(folder / row["path"]).convert("L").resize((96, 96), 2)))
    order = np.random.default_rng(4).permutation(len(images))
    n_held = len(images) // 25
    for seed, total, chosen in ((5, n, order[n_held:]), (6, N_QUERIES, order[:n_held])):
        random = np.random.default_rng(seed)
        rows = []
        for idx in range(10 * total):
            view = thumbnail(Image.fromarray(images[chosen[idx % len(chosen)]]), random)
            if view is not None:
                rows.append(view)
                if seed == 5:
                    patients.append(idx % len(chosen))
            if len(rows) == min(CHUNK, total):
                yield seed == 6, np.stack(rows)
                total -= len(rows)
                rows = []
            if total == 0:
                break


def exact_scores(rows, queries):
    """The 10 best scores of each query, best first."""
    scores = np.full((len(queries), K), -9, np.float32)
    for start in range(0, len(rows), CHUNK):
        found = queries @ np.asarray(rows[start:start + CHUNK]).T
        found = np.concatenate([scores, np.partition(found, -K, 1)[:, -K:]], 1)
        scores = -np.sort(-found, 1)[:, :K]
    return scores


def make_vectors(name, arguments):
    """Writes rows and queries once, and the exact best scores of each query."""
    work = Path(arguments.work)
    paths = [work / f"{name}.{part}.npy" for part in ("rows", "queries", "exact")]
    if not all(path.exists() for path in paths):
        patients = []
        generator = GENERATORS.get(arguments.kind)
        made = generator(arguments.n) if generator else views(arguments.n, arguments.images, patients)
        rows, queries, at = None, [], 0
        for is_query, chunk in made:
            if is_query:
                queries.append(chunk)
                continue
            if rows is None:
                shape = (arguments.n, chunk.shape[1])
                rows = np.lib.format.open_memmap(paths[0], "w+", np.float32, shape)
            rows[at:at + len(chunk)] = chunk
            at += len(chunk)
        rows.flush()
        if patients:
            (work / f"{name}.patients.txt").write_text("\n".join(map(str, patients)))
        queries = np.concatenate(queries).astype(np.float32)
        np.save(paths[1], queries)
        np.save(paths[2], exact_scores(rows, queries))
    return [np.load(path, mmap_mode="r") for path in paths] + [paths]
