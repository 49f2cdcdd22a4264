"""What a reader must return for a file, written beside the file for the Rust tests."""

import json
import pathlib

import numpy as np


class Expectations:
    """Collects files with their volumes, and writes `expected.json` at the end."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.rows = []

    def add(self, file, volumes):
        """`volumes` are dicts with values [C, D, H, W], kind, part, affine (LPS, W H D), spacing."""
        row = {"file": file, "volumes": []}
        for index, volume in enumerate(volumes):
            values = np.ascontiguousarray(volume["values"], dtype="<f4")
            npy = f"{file}.{index}.npy"
            np.save(self.folder / npy, values)
            affine = volume.get("affine")
            row["volumes"].append(
                {
                    "npy": npy,
                    "shape": list(values.shape),
                    "kind": volume["kind"],
                    "part": volume.get("part"),
                    "affine": None if affine is None else np.asarray(affine)[:3].tolist(),
                    "spacing": volume.get("spacing", [None] * 3),
                    "codes": volume.get("codes", []),
                }
            )
        self.rows.append(row)

    def close(self):
        text = json.dumps(self.rows, indent=None).replace('{"file"', '\n{"file"')
        (self.folder / "expected.json").write_text(text + "\n")
        print(f"{len(self.rows)} files in {self.folder}")


def to_lps_storage(array_ras, affine_ras):
    """RAS+ array [x, y, z, ...] and affine -> [z, y, x, ...] growing to S, P, L, affine LPS."""
    flipped = array_ras[::-1, ::-1]
    nx, ny = array_ras.shape[:2]
    flip = np.array([[-1, 0, 0, nx - 1], [0, -1, 0, ny - 1], [0, 0, 1, 0], [0, 0, 0, 1]], float)
    affine = np.diag([-1, -1, 1, 1]) @ affine_ras @ flip
    return np.swapaxes(flipped, 0, 2), affine


def spacing_of(affine):
    """Lengths of the columns in the order D, H, W."""
    w, h, d = (float(np.linalg.norm(affine[:3, i])) for i in range(3))
    return [d, h, w]


def canonical(array, affine_lps):
    """[x, y, z, ...] with an LPS affine -> our storage order [z, y, x, ...] and its LPS affine.

    The axes are found by nibabel (which thinks in RAS), not by the code under test.
    """
    import nibabel as nib

    ras = np.diag([-1, -1, 1, 1]) @ np.asarray(affine_lps, float)
    orientation = nib.orientations.io_orientation(ras)
    turned = nib.orientations.apply_orientation(array, orientation)
    moved = ras @ nib.orientations.inv_ornt_aff(orientation, array.shape[:3])
    return to_lps_storage(turned, moved)
