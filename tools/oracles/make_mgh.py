"""Write MGH files and what nibabel reads from them.

    python make_mgh.py OUT [--small]

Writes OUT/*.mgh, OUT/*.mgz, OUT/*.npy and OUT/expected.json. --small writes the few files kept in
testdata/.
"""

import itertools
import sys

import nibabel as nib
import numpy as np

from expect import Expectations, canonical, spacing_of

TYPES = {"u1": np.uint8, "i2": np.int16, "i4": np.int32, "f4": np.float32, "u2": np.uint16}
OFFSET = np.array([12.5, -7.25, 31.0])


def rotation(x, y, z):
    angles = np.radians([x, y, z])
    c, s = np.cos(angles), np.sin(angles)
    rx = np.array([[1, 0, 0], [0, c[0], -s[0]], [0, s[0], c[0]]])
    ry = np.array([[c[1], 0, s[1]], [0, 1, 0], [-s[1], 0, c[1]]])
    rz = np.array([[c[2], -s[2], 0], [s[2], c[2], 0], [0, 0, 1]])
    return rz @ ry @ rx


def affine_of(matrix, zooms=(0.8, 0.7, 2.5)):
    affine = np.eye(4)
    affine[:3, :3] = matrix @ np.diag(zooms)
    affine[:3, 3] = OFFSET
    return affine


def exact_affine(image):
    """nibabel's affine in f64: it multiplies the header's numbers in f32."""
    header = image.header
    axes = np.asarray(header["Mdc"], float).T * np.asarray(header["delta"], float)
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = np.asarray(header["Pxyz_c"], float) - axes @ header["dims"][:3] / 2
    assert np.allclose(affine, image.affine, rtol=1e-5, atol=1e-4)
    return affine


class Writer:
    def __init__(self, folder, small):
        self.out = Expectations(folder)
        self.small = small
        self.rng = np.random.default_rng(20)

    def write(self, name, code, shape, matrix=np.diag([-1.0, -1.0, 1.0]), keep=False):
        if self.small and not keep:
            return
        dtype = np.dtype(TYPES[code])
        if dtype.kind == "f":
            values = self.rng.normal(0, 100, shape).astype(dtype)
        else:
            limits = np.iinfo(dtype)
            values = self.rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
        path = self.out.folder / name
        nib.MGHImage(values, affine_of(matrix)).to_filename(path)
        self.expect(name)

    def expect(self, name):
        """Everything comes from what nibabel reads back, rounded to f32 by the format itself."""
        image = nib.load(self.out.folder / name)
        array = np.asarray(image.dataobj)
        array = array.reshape((array.shape + (1, 1))[:4])
        affine = np.diag([-1, -1, 1, 1]) @ exact_affine(image)
        volumes = []
        is_flat = array.shape[2] == 1
        if is_flat:
            spacing = [None, *spacing_of(affine)[1:]]
            frames = np.moveaxis(array[:, :, 0], 2, 0).swapaxes(1, 2)
            video = len(frames) > 1
            volumes.append({
                "values": frames[None], "kind": "video" if video else "image",
                "affine": None if video else affine, "spacing": spacing,
            })
        else:
            for t in range(array.shape[3]):
                values, turned = canonical(array[..., t], affine)
                part = f"t={t}" if array.shape[3] > 1 else None
                volumes.append({
                    "values": values[None], "kind": "volume", "affine": turned, "part": part,
                    "spacing": spacing_of(turned),
                })
        self.out.add(name, volumes)


def main():
    writer = Writer(sys.argv[1], "--small" in sys.argv)
    for code in TYPES:
        for extension in ("mgh", "mgz"):
            keep = (code, extension) in {("i2", "mgh"), ("f4", "mgz"), ("u1", "mgz")}
            writer.write(f"{code}.{extension}", code, (5, 4, 3), keep=keep)
    for order in itertools.permutations(range(3)):
        for signs in itertools.product([1, -1], repeat=3):
            matrix = np.zeros((3, 3))
            for axis, (to, sign) in enumerate(zip(order, signs)):
                matrix[to, axis] = sign
            name = "axes_" + "".join(map(str, order)) + "".join("+-"[s < 0] for s in signs)
            writer.write(f"{name}.mgh", "i2", (4, 3, 2), matrix)
    for i, angles in enumerate([(12, 0, 0), (5, -20, 30), (80, 10, 0), (0, 170, 20), (31, 33, 9)]):
        writer.write(f"oblique{i}.mgz", "i2", (4, 3, 2), rotation(*angles), keep=i == 1)
    writer.write("frames.mgz", "i2", (4, 3, 2, 3), keep=True)
    writer.write("flat.mgz", "u1", (5, 4, 1))
    writer.write("film.mgh", "u1", (5, 4, 1, 6))
    writer.write("large.mgz", "i2", (50, 41, 37))
    writer.write("large_f4.mgz", "f4", (50, 41, 37, 2))
    writer.out.close()


if __name__ == "__main__":
    main()
