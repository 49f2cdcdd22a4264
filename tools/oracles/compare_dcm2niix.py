"""Compares the volumes of m3ret with those of dcm2niix on folders of DICOM files.

    python3 tools/oracles/compare_dcm2niix.py M3RET FOLDER...

Every folder below the given ones that holds files itself is one input. For each, both programs convert it,
and number of volumes, shape, spacing and the box from the first to the last voxel are compared. One line an
input: `equal`, `differs` with what differs, or `dcm2niix made none`. Needs dcm2niix, nibabel and numpy.
"""

import collections
import json
import pathlib
import subprocess
import sys
import tempfile

import nibabel
import numpy as np

TOLERANCE_MM = 1e-2


def box(affine, shape):
    """Lowest and highest corner of the voxel centres, whatever the order of the axes."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij")).reshape(3, -1)
    points = affine[:3, :3] @ corners + affine[:3, 3:]
    return np.r_[points.min(axis=1), points.max(axis=1)]


def of_dcm2niix(folder):
    """Each volume as shape, spacing (both along R, A, S) and box in LPS millimetres."""
    with tempfile.TemporaryDirectory() as out:
        command = ["dcm2niix", "-b", "n", "-z", "n", "-d", "0", "-f", "%s_%p_%e_%r", "-o", out, str(folder)]
        subprocess.run(command, capture_output=True, check=False)
        volumes = []
        for path in sorted(pathlib.Path(out).glob("*.nii")):
            image = nibabel.load(path)
            if not image.affine[:3, :3].any(axis=0).all():
                continue  # a spacing of 0: no place in the patient
            image = nibabel.as_closest_canonical(image)
            shape = image.shape[:3] + (1,) * (3 - len(image.shape[:3]))
            affine = np.diag([-1, -1, 1, 1]) @ image.affine
            n_times = int(np.prod(image.shape[3:], dtype=int))
            spacing = np.linalg.norm(image.affine[:3, :3], axis=0)
            volumes += [(shape, spacing, box(affine, shape))] * n_times
        return volumes


def of_m3ret(program, folder):
    """The same of m3ret, whose axes are D, H, W."""
    run = subprocess.run([program, "inspect", "--json", str(folder)], capture_output=True, text=True, check=False)
    volumes, refused = [], collections.Counter()
    for line in run.stdout.splitlines():
        record = json.loads(line)
        if record.get("format") != "dicom":
            continue
        if "shape" not in record:
            refused.update(record.get("reason_codes", []))
            continue
        _, depth, height, width = record["shape"]
        affine = record.get("affine")
        place = None if affine is None else box(np.array(affine), (width, height, depth))
        spacing = [s if s is not None else np.nan for s in record["spacing"]][::-1]
        volumes.append(((width, height, depth), np.array(spacing), place))
    return volumes, refused


def compare(ours, theirs):
    if len(ours) != len(theirs):
        return f"{len(ours)} volumes, dcm2niix has {len(theirs)}"
    key = lambda volume: (volume[0], tuple(np.nan_to_num(np.round(volume[2], 1))) if volume[2] is not None else ())
    for one, other in zip(sorted(ours, key=key), sorted(theirs, key=key)):
        if one[0] != other[0]:
            return f"shape {one[0]}, dcm2niix has {other[0]}"
        # The thickness of a single slice is a matter of taste.
        axes = slice(0, 3) if one[0][2] > 1 else slice(0, 2)
        if not np.allclose(one[1][axes], other[1][axes], rtol=1e-3, atol=1e-4):
            return f"spacing {np.round(one[1], 4)}, dcm2niix has {np.round(other[1], 4)}"
        if one[2] is None:
            return "no place in the patient"
        if not np.allclose(one[2], other[2], atol=TOLERANCE_MM):
            return f"box {np.round(one[2], 2)}, dcm2niix has {np.round(other[2], 2)}"
    return None


def main():
    program, roots = sys.argv[1], sys.argv[2:]
    folders = sorted(
        {path.parent for root in roots for path in pathlib.Path(root).rglob("*") if path.is_file()}
    )
    counts = collections.Counter()
    for folder in folders:
        ours, refused = of_m3ret(program, folder)
        if not ours and not refused:
            continue
        theirs = of_dcm2niix(folder)
        name = "/".join(folder.parts[-3:])
        if not theirs:
            counts["dcm2niix made none"] += 1
            print(f"-        {name}: dcm2niix made none; m3ret {len(ours)}")
            continue
        difference = compare(ours, theirs)
        counts["equal" if difference is None else "differs"] += 1
        if difference is None:
            print(f"equal    {name}: {len(ours)} volumes")
        else:
            also = "".join(f", refused as {code}" for code in refused)
            print(f"differs  {name}: {difference}{also}")
    print(dict(counts))


if __name__ == "__main__":
    main()
