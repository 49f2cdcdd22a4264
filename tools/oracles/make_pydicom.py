"""Write what pydicom reads of every pixel-bearing file that it and pydicom-data ship.

    python make_pydicom.py OUT

OUT/index.json lists the files; OUT/N.f32 holds the expected values: little-endian f32, [C, D, H, W],
after the modality LUT or the dose scaling, padding as the darkest true value, palettes and YBR as RGB,
MONOCHROME1 not inverted.
"""

import json
import pathlib
import sys
import warnings

import numpy as np
import pydicom
from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

PIXELS = (0x7FE00010, 0x7FE00008, 0x7FE00009)
# JPEG baseline and extended: decoders may differ by rounding.
J2K = "1.2.840.10008.1.2.4.91"
LOSSY_JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")


def candidates():
    roots = [pathlib.Path(pydicom.__file__).parent / "data"]
    try:
        import data_store  # the package pydicom-data

        roots.append(pathlib.Path(data_store.__path__[0]))
    except ImportError:
        pass
    for root in roots:
        for path in sorted(root.rglob("*")):
            if path.is_file() and path.suffix not in (".py", ".pyc", ".json", ".txt", ".md"):
                yield path


def expected(ds):
    array = pixel_array(ds)
    if ds.PhotometricInterpretation == "PALETTE COLOR":
        array = apply_color_lut(array, ds)
        is_big = not ds.file_meta.TransferSyntaxUID.is_little_endian
        if is_big and "RedPaletteColorLookupTableData" in ds and array.dtype.itemsize == 2:
            # pydicom 3.0 takes plain tables of big-endian files as little endian: the same picture
            # stored both ways (OBXXXX1A.dcm, OBXXXX1A_expb.dcm) shows it.
            array = array.byteswap()
    elif ds.SamplesPerPixel == 1:
        stored = array
        array = apply_modality_lut(array, functional_rescale(ds) or ds)
        if "DoseGridScaling" in ds:
            array = stored * float(ds.DoseGridScaling)
        array = without_padding(array, stored, ds)
    array = array.astype(np.float32)
    n_frames = int(ds.get("NumberOfFrames", 1) or 1)
    is_colour = ds.PhotometricInterpretation == "PALETTE COLOR" or ds.SamplesPerPixel == 3
    shape = (n_frames, ds.Rows, ds.Columns) + ((3,) if is_colour else (1,))
    return np.moveaxis(array.reshape(shape), -1, 0)


def without_padding(array, stored, ds):
    """The darkest true value in place of padding, which pydicom leaves as it is."""
    if "PixelPaddingValue" not in ds or ds.PhotometricInterpretation not in ("MONOCHROME1", "MONOCHROME2"):
        return array
    ends = sorted([int(ds.PixelPaddingValue), int(ds.get("PixelPaddingRangeLimit", ds.PixelPaddingValue))])
    is_padding = (ends[0] <= stored) & (stored <= ends[1])
    if not is_padding.any() or is_padding.all():
        return array
    darkest = np.max if ds.PhotometricInterpretation == "MONOCHROME1" else np.min
    return np.where(is_padding, darkest(array[~is_padding]), array)


def functional_rescale(ds):
    """The rescale of an enhanced object, which apply_modality_lut does not look for."""
    for groups in ds.get("SharedFunctionalGroupsSequence", []):
        for item in groups.get("PixelValueTransformationSequence", []):
            return item
    return None


def canonical(array, ds):
    """Stored frames of an enhanced object in the order SPL: D to superior, H to posterior, W to left."""
    groups = ds.get("PerFrameFunctionalGroupsSequence")
    if not groups or array.shape[1] < 2 or "PlanePositionSequence" not in groups[0]:
        return array
    shared = ds.SharedFunctionalGroupsSequence[0]
    holder = shared if "PlaneOrientationSequence" in shared else groups[0]
    w, h = np.reshape(np.float64(holder.PlaneOrientationSequence[0].ImageOrientationPatient), (2, 3))
    positions = np.float64([g.PlanePositionSequence[0].ImagePositionPatient for g in groups])
    normal = np.cross(w, h)
    array = array[:, np.argsort(positions @ normal)]
    axes = np.stack([normal, h, w])  # rows: D, H, W as LPS vectors
    nearest = np.abs(axes).argmax(axis=1)
    array = np.transpose(array, [0] + [1 + int(np.flatnonzero(nearest == a)[0]) for a in (2, 1, 0)])
    for axis, patient in enumerate((2, 1, 0)):
        column = axes[np.flatnonzero(nearest == patient)[0], patient]
        if column < 0:
            array = np.flip(array, axis=axis + 1)
    return array


def tolerance(ds):
    """Irreversible JPEG 2000 is arithmetic in floats, which no two decoders round alike: one stored unit."""
    if ds.file_meta.TransferSyntaxUID in LOSSY_JPEG:
        return 3.0
    if ds.file_meta.TransferSyntaxUID != J2K:
        return 0.0
    return 1.01 * abs(float(ds.get("RescaleSlope", 1)))


def main(out):
    warnings.simplefilter("ignore")
    out.mkdir(parents=True, exist_ok=True)
    index = []
    for path in candidates():
        try:
            ds = pydicom.dcmread(path, force=True)
            has_pixels = any(tag in ds for tag in PIXELS)
        except Exception:
            continue
        if not has_pixels:
            continue
        row = {"path": str(path), "name": path.name}
        try:
            array = np.ascontiguousarray(canonical(expected(ds), ds), dtype="<f4")
            row["shape"] = list(array.shape)
            row["values"] = f"{len(index)}.f32"
            row["tolerance"] = tolerance(ds)
            array.tofile(out / row["values"])
        except Exception as error:
            row["error"] = type(error).__name__
        index.append(row)
    (out / "index.json").write_text(json.dumps(index, indent=1))
    print(f"{len(index)} files, {sum('values' in row for row in index)} decoded by pydicom {pydicom.__version__}")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
