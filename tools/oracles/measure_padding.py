"""Measure how much padding changes the vector of an image.

    python measure_padding.py M3RET OUT VOLUME.nii.gz... [-- RADIOGRAPH.png...]

Writes DICOM files in groups that differ in nothing but what lies outside the field of view, embeds
them with `M3RET embed`, and prints for each group the cosine to the plain image:

- of CT slices, the middle one of each volume, outside the largest circle: air of -1000 HU (plain);
  -2000 stated as PixelPaddingValue; -2000 that is not stated; the least true value; and what was
  there (original). The same again with three voxels of -2500 HU inside, as beside metal.
- of radiographs, a border of an eighth of each side: the least true value (plain); 0 stated as
  PixelPaddingValue; 0 that is not stated.

What is not stated cannot be told from pixels: it shows what stating it changes. `least` is how a
window looks that counts padding as the darkest tissue. Slices are listed apart if less than 0.5 % of
their circle is air (-950 HU): there the plain image is another picture, whose window starts at air.

Needs numpy, nibabel, pydicom and Pillow.
"""

import pathlib
import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

AIR, PADDING = -1000, -2000


def write(path, stored, padding=None, **elements):
    """Writes one image of 16 bits; `padding` is its PixelPaddingValue."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = elements["SOPClassUID"]
    meta.MediaStorageSOPInstanceUID = generate_uid()
    ds = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.Rows, ds.Columns = stored.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    ds.PixelRepresentation = int(stored.dtype == np.int16)
    for name, value in elements.items():
        setattr(ds, name, value)
    if padding is not None:
        ds.add_new(0x00280120, "SS" if ds.PixelRepresentation else "US", padding)
    ds.PixelData = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    ds.save_as(path, enforce_file_format=True)


def ct_group(folder, name, volume):
    image = nib.load(volume)
    grid = np.asarray(image.dataobj, np.float32)
    hu = np.rint(np.rot90(grid[..., grid.shape[2] // 2])).clip(-1024, 32_000).astype(np.int16)
    rows, columns = hu.shape
    y, x = np.ogrid[:rows, :columns]
    y, x = (y + 0.5) / rows * 2 - 1, (x + 0.5) / columns * 2 - 1
    outside = x * x + y * y > 1
    elements = dict(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.2",
        Modality="CT",
        RescaleSlope="1",
        RescaleIntercept="0",
        PixelSpacing=["1", "1"],
        ImagePositionPatient=["0", "0", "0"],
        ImageOrientationPatient=["1", "0", "0", "0", "1", "0"],
    )

    def variant(word, value, padding=None):
        write(folder / f"{name}.{word}.dcm", np.where(outside, value, hu).astype(np.int16), padding, **elements)

    variant("plain", AIR)
    variant("stated", PADDING, PADDING)
    variant("unstated", PADDING)
    variant("least", hu[~outside].min())
    write(folder / f"{name}.original.dcm", hu, **elements)
    has_air = np.percentile(hu[~outside], 0.5) <= -950
    hu[rows // 2, columns // 2 : columns // 2 + 3] = -2500
    variant("streak-plain", AIR)
    variant("streak-stated", PADDING, PADDING)
    variant("streak-least", hu[~outside].min())
    return "CT with air" if has_air else "CT without air"


def dx_group(folder, name, radiograph):
    grey = np.asarray(Image.open(radiograph).convert("L"), np.uint16)
    stored = 1000 + 10 * grey
    rows, columns = stored.shape
    inside = np.zeros(stored.shape, bool)
    inside[rows // 8 : rows - rows // 8, columns // 8 : columns - columns // 8] = True
    elements = dict(SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1", Modality="DX", ImagerPixelSpacing=["0.2", "0.2"])

    def variant(word, value, padding=None):
        write(folder / f"{name}.{word}.dcm", np.where(inside, stored, value).astype(np.uint16), padding, **elements)

    variant("plain", stored[inside].min())
    variant("stated", 0, 0)
    variant("unstated", 0)
    return "DX"


def main():
    m3ret, out, *paths = sys.argv[1:]
    out = pathlib.Path(out)
    shutil.rmtree(out, ignore_errors=True)
    (out / "files").mkdir(parents=True)
    split = paths.index("--") if "--" in paths else len(paths)
    stem = lambda path: pathlib.Path(path).name.split(".")[0]
    groups = []
    for idx, path in enumerate(paths):
        if path != "--":
            write_group = ct_group if idx < split else dx_group
            groups.append((write_group(out / "files", stem(path), path), stem(path)))
    vectors = out / "vectors.npy"
    subprocess.run([m3ret, "embed", "--model", "m3ret-tiny", "-o", vectors, out / "files"], check=True, capture_output=True)
    rows = np.load(vectors)
    listing = (out / "vectors.npy.rows.csv").read_text().splitlines()[1:]
    at = {line.split(".dcm")[0].split("/")[-1].strip('"'): rows[i] for i, line in enumerate(listing)}
    pairs = [("plain", "unstated"), ("plain", "stated"), ("plain", "least")]
    pairs += [("original", "unstated"), ("original", "stated")]
    pairs += [("streak-plain", "streak-stated"), ("streak-plain", "streak-least")]
    print("| images | n | pair | mean | median | least |\n|---|---|---|---|---|---|")
    for kind in sorted({kind for kind, _ in groups}):
        names = [name for group, name in groups if group == kind]
        for plain, other in pairs:
            if f"{names[0]}.{other}" in at:
                cosines = [float(at[f"{name}.{plain}"] @ at[f"{name}.{other}"]) for name in names]
                found = f"{np.mean(cosines):.4f} | {np.median(cosines):.4f} | {min(cosines):.4f}"
                print(f"| {kind} | {len(names)} | {plain}, {other} | {found} |")


main()
