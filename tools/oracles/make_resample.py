"""Writes testdata/resample/pillow.json: grids resampled by Pillow, percentiles by numpy; and
testdata/resample/filters.json: planes of 0..1 resized by the filters that public models ask for.

Run: python tools/oracles/make_resample.py   (needs numpy and pillow; fixed seed, same file every time)
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

OUT = Path(__file__).resolve().parents[2] / "testdata" / "resample" / "pillow.json"


def resize(plane, height, width):
    """Resizes [H, W] f32 by Pillow's antialiased bilinear filter."""
    image = Image.fromarray(plane.astype(np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def resample(grid, sides):
    """Resamples [D, H, W]: each plane by Pillow, then D as the height of a D x (H * W) picture."""
    depth, height, width = sides
    planes = np.stack([resize(plane, height, width) for plane in grid])
    deep = resize(planes.reshape(len(planes), -1), depth, height * width)
    return deep.reshape(sides)


def filtered():
    """Resizes planes by each filter; what leaves 0..1 is clamped at the end."""
    rng = np.random.default_rng(6)
    cases = []
    for name in ["BILINEAR", "BICUBIC", "LANCZOS"]:
        for start, sides in [([9, 7], [4, 3]), ([5, 6], [11, 13]), ([16, 3], [5, 8]), ([8, 12], [8, 5]), ([1, 1], [3, 2])]:
            plane = np.round(rng.uniform(0, 1, start), 3).astype(np.float32)
            image = Image.fromarray(plane).resize(sides[::-1], Image.Resampling[name])
            wanted = np.clip(np.asarray(image), 0, 1)
            cases.append({
                "filter": name,
                "from": start,
                "to": sides,
                "values": [float(f"{v:.3g}") for v in plane.ravel()],
                "wanted": [float(f"{v:.8g}") for v in wanted.ravel()],
            })
    return cases


def main():
    rng = np.random.default_rng(5)
    cases = []
    for start, sides in [
        ([1, 9, 7], [1, 4, 3]),
        ([1, 5, 6], [1, 11, 13]),
        ([1, 16, 3], [1, 5, 8]),
        ([1, 3, 16], [1, 8, 5]),
        ([6, 8, 10], [4, 3, 7]),
        ([3, 4, 4], [8, 9, 9]),
        ([9, 4, 5], [2, 8, 8]),
        ([1, 1, 40], [1, 1, 3]),
    ]:
        grid = rng.uniform(-1000, 3000, start).astype(np.float32)
        cases.append({
            "from": start,
            "to": sides,
            "values": [round(float(v), 2) for v in grid.ravel()],
        })
        rounded = np.array(cases[-1]["values"], np.float32).reshape(start)
        cases[-1]["wanted"] = [float(f"{v:.8g}") for v in resample(rounded, sides).ravel()]
    percentiles = []
    for values in [
        rng.integers(-1024, 3000, 301).astype(np.float32),
        np.round(rng.normal(0, 1e-3, 200), 7).astype(np.float32),
        np.array([5], np.float32),
        np.repeat(np.float32([0, 1, 2]), [197, 2, 1]),
    ]:
        low, high = np.percentile(values.astype(np.float64), [0.5, 99.5])
        percentiles.append({"values": [float(v) for v in values], "wanted": [low, high]})
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps({"resampled": cases, "percentiles": percentiles}) + "\n")
    OUT.with_name("filters.json").write_text(json.dumps(filtered()) + "\n")


if __name__ == "__main__":
    main()
