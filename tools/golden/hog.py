"""Writes the golden case c11_hog: histograms of oriented gradients and losses on them, by numpy in float64.

    python tools/golden/hog.py --seed 0 --out testdata/golden     (needs numpy and safetensors)

Written from the formulas in docs/models.md and docs/pretraining.md, without our program. Where the program finds the
two bins of a gradient by rounding down, this gives every bin its triangle of weights. Seed 0 has fixed sizes, every
other seed draws some; a test reads sizes and tolerances from the .json file.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

BINS = 9
LUMA = np.array([0.299, 0.587, 0.114])
DESCRIPTOR_EPS, TARGET_EPS, PIXEL_EPS = 0.05, 1e-4, 1e-6


def picture(rng, shape):
    """Draws bytes [C, D, H, W]: waves, a disc, an exactly flat half, noise and hard edges."""
    channels, depth, height, width = shape
    c, z, y, x = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    along, across, turn = rng.uniform(0.05, 0.4, 3)
    values = 0.5 + 0.3 * np.sin(along * x + 0.2 * z + c) * np.cos(across * y + turn * z)
    disc = (y - height / 2) ** 2 + (x - width / 3) ** 2 < (height / 4) ** 2
    values = np.where(disc, values * 0.4 + 0.5, values)
    values += rng.normal(0, 0.02, shape)
    values[..., : height // 8, :] = 0.25
    values[..., -height // 8 :, width // 2 :] = 1.0
    return (np.clip(values, 0, 1) * 255).round().astype(np.uint8)


def grey(values):
    """[C, D, H, W] -> [D, H, W]."""
    return values[0] if len(values) == 1 else np.tensordot(LUMA, values, 1)


def cells(plane, height, width, eps):
    """[H, W] -> [H / height, W / width, 9], each cell divided by sqrt(h.h + eps)."""
    wide = np.pad(plane, 1, mode="edge")
    gx = (wide[1:-1, 2:] - wide[1:-1, :-2]) / 2
    gy = (wide[2:, 1:-1] - wide[:-2, 1:-1]) / 2
    place = np.mod(np.arctan2(gy, gx), np.pi) * BINS / np.pi
    distance = np.abs(place[..., None] - np.arange(BINS))
    distance = np.minimum(distance, BINS - distance)
    bins = np.hypot(gx, gy)[..., None] * np.maximum(0, 1 - distance)
    rows, columns = plane.shape[0] // height, plane.shape[1] // width
    h = bins.reshape(rows, height, columns, width, BINS).sum(axis=(1, 3))
    return h / np.sqrt((h**2).sum(-1, keepdims=True) + eps)


def descriptor(values):
    """[C, D, 64, 64] -> the unit vector [576]; of a constant object zeros."""
    planes = grey(values)
    total = np.zeros(576)
    for s in range(4):
        plane = planes[int((s + 0.5) / 4 * len(planes))]
        if np.ptp(plane) >= 1e-5:
            total += cells(plane, 8, 8, DESCRIPTOR_EPS).ravel() / 4
    length = np.linalg.norm(total)
    return total / length if length > 0 else total


def targets(values, patch):
    """[C, D, H, W] -> [N, 36], patches in (z, y, x) order."""
    pd, ph, pw = patch
    planes = grey(values)
    slabs = planes[:, None] if len(planes) == 1 else planes.reshape(-1, pd, *planes.shape[1:])
    rows = []
    for slab in slabs:
        h = cells(slab.mean(0), ph // 2, pw // 2, TARGET_EPS)
        for y in range(0, len(h), 2):
            for x in range(0, h.shape[1], 2):
                rows.append(h[y : y + 2, x : x + 2].ravel())
    return np.stack(rows)


def pixel_targets(values, patch):
    """[C, D, H, W] -> [N, P], channel fastest, each patch with mean 0 and unbiased variance 1."""
    pd, ph, pw = patch
    if values.shape[1] == 1:
        values = values.repeat(pd, 1)
    c, d, h, w = values.shape
    cut = values.reshape(c, d // pd, pd, h // ph, ph, w // pw, pw).transpose(1, 3, 5, 2, 4, 6, 0)
    cut = cut.reshape(-1, pd * ph * pw * c)
    variance = cut.var(1, ddof=1, keepdims=True)
    return (cut - cut.mean(1, keepdims=True)) / np.sqrt(variance + PIXEL_EPS)


def both_loss(predicted, wanted, n_pixels):
    """Mean squared error of the first n_pixels columns plus that of the others, with its gradient."""
    difference = predicted - wanted
    parts = difference[:, :n_pixels], difference[:, n_pixels:]
    gradient = np.concatenate([2 * part / part.size for part in parts], 1)
    return sum((part**2).mean() for part in parts), gradient


def check_gradient(rng, predicted, wanted, n_pixels):
    """Compares the gradient with a difference of losses along a random direction."""
    way = rng.normal(size=predicted.shape)
    step = 1e-5
    above, below = (both_loss(predicted + sign * step * way, wanted, n_pixels)[0] for sign in (1, -1))
    _, gradient = both_loss(predicted, wanted, n_pixels)
    assert abs((above - below) / (2 * step) - (gradient * way).sum()) < 1e-8


def make(seed):
    rng = np.random.default_rng(seed)

    def drawn(usual, *choices):
        return usual if seed == 0 else int(rng.choice(choices))

    tensors, sizes = {}, {"descriptors": [], "targets": []}
    for channels, depth in [(1, 1), (3, 1), (1, drawn(16, 8, 12, 20)), (3, 2), (1, 3)]:
        name = f"descriptor.{len(sizes['descriptors'])}"
        picture_ = picture(rng, (channels, depth, 64, 64))
        if depth == 3:
            picture_[:, 1] = 77  # a constant plane between others
        tensors[f"{name}.image"] = picture_
        tensors[f"{name}.wanted"] = descriptor(picture_ / 255).astype(np.float32)
        sizes["descriptors"].append({"shape": [channels, depth, 64, 64]})
    for channels, depth, patch in [
        (1, 1, [4, 8, 8]),
        (3, 1, [1, 8, 8]),
        (1, 1, [4, 16, 16]),
        (3, 8, [4, 8, 8]),
        (1, drawn(2, 4, 6), [2, drawn(4, 2, 6, 12), drawn(8, 4, 10)]),
    ]:
        name = f"target.{len(sizes['targets'])}"
        shape = [channels, depth, patch[1] * drawn(3, 2, 4), patch[2] * drawn(2, 3, 5)]
        tensors[f"{name}.image"] = picture(rng, shape)
        tensors[f"{name}.wanted"] = targets(tensors[f"{name}.image"] / 255, patch).astype(np.float32)
        sizes["targets"].append({"shape": shape, "patch": patch})

    shape, patch = [3, 1, 8, 4 * drawn(3, 2, 5)], [2, 4, 4]
    image = picture(rng, shape)
    pixels, gradients = pixel_targets(image / 255, patch), targets(image / 255, patch)
    wanted = np.concatenate([pixels, gradients], 1)
    predicted = rng.normal(0, 0.5, wanted.shape).astype(np.float32)
    loss, slope = both_loss(predicted.astype(np.float64), wanted, pixels.shape[1])
    check_gradient(rng, predicted.astype(np.float64), wanted, pixels.shape[1])
    tensors |= {
        "both.image": image,
        "both.predicted": predicted,
        "both.target": wanted.astype(np.float32),
        "both.gradient": slope.astype(np.float32),
    }
    sizes["both"] = {"shape": shape, "patch": patch, "loss": loss}
    # f32 against f64: sums over at most 128 pixels, divided by at least sqrt(0.05) in a descriptor and 0.01 in a target,
    # so that roundings of 1e-8 grow to 1e-6. Pixel targets divide by deviations of a few hundredths.
    sizes["tolerance"] = {
        "descriptor": {"atol": 2e-6, "rtol": 1e-5},
        "target": {"atol": 2e-5, "rtol": 1e-5},
        "loss": {"atol": 1e-6, "rtol": 1e-5},
        "gradient": {"atol": 1e-6, "rtol": 1e-4},
    }
    sizes["seed"] = seed
    sizes["numpy"] = np.__version__
    return tensors, sizes


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    tensors, sizes = make(arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, arguments.out / "c11_hog.safetensors")
    (arguments.out / "c11_hog.json").write_text(json.dumps(sizes, indent=1) + "\n")


if __name__ == "__main__":
    main()
