"""What all cases share: data sets, writing them, and the list of what is expected."""

import io
import json
import pathlib
import zlib

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite, write_file_meta_info

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG = "1.2.840.10008.1.2.2"
UNCOMPRESSED = "1.2.840.10008.1.2.1.98"
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"
RLE = "1.2.840.10008.1.2.5"
SC_IMAGE = "1.2.840.10008.5.1.4.1.1.7"


def uid(*numbers):
    """A fixed identifier: 2.25 is the root of UUIDs, these are none of anybody's."""
    return "2.25." + ".".join(str(n + 1) for n in numbers)


def rng(name):
    """Random numbers that depend on the case alone."""
    return np.random.default_rng(list(name.encode()))


def image(rows, columns, allocated, **fields):
    """An image pixel module. `stored`, `high`, `signed`, `samples`, `photometric`, `planar`."""
    ds = Dataset()
    ds.SOPClassUID = SC_IMAGE
    ds.SOPInstanceUID = uid(1, 1)
    ds.StudyInstanceUID = uid(1)
    ds.SeriesInstanceUID = uid(1, 2)
    ds.Modality = fields.get("modality", "OT")
    ds.SamplesPerPixel = fields.get("samples", 1)
    ds.PhotometricInterpretation = fields.get("photometric", "MONOCHROME2")
    if fields.get("planar") is not None:
        ds.PlanarConfiguration = fields["planar"]
    ds.Rows, ds.Columns = rows, columns
    ds.BitsAllocated = allocated
    ds.BitsStored = fields.get("stored", allocated)
    ds.HighBit = fields.get("high", ds.BitsStored - 1)
    ds.PixelRepresentation = int(fields.get("signed", 0))
    if "frames" in fields:
        ds.NumberOfFrames = fields["frames"]
    return ds


def pixels(ds, raw, vr=None):
    """Adds native or encapsulated pixels; an odd length is padded, as the standard asks."""
    vr = vr or ("OW" if ds.BitsAllocated > 8 else "OB")
    ds.add_new(0x7FE00010, vr, bytes(raw) + b"\0" * (len(raw) % 2))
    return ds


def encapsulated(ds, frames, pieces=1, has_table=True):
    """Adds compressed frames, each cut into `pieces` fragments."""
    pixels(ds, encapsulate(frames, fragments_per_frame=pieces, has_bot=has_table), "OB")
    ds["PixelData"].is_undefined_length = True
    return ds


def to_bytes(ds, syntax=EXPLICIT, meta=True):
    """The file's bytes. `meta` False leaves preamble and file meta out."""
    body = io.BytesIO()
    dcmwrite(body, ds, implicit_vr=syntax == IMPLICIT, little_endian=syntax != BIG)
    if not meta:
        return body.getvalue()
    file_meta = FileMetaDataset()
    file_meta.TransferSyntaxUID = syntax
    file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    file_meta.ImplementationClassUID = uid(0)
    out = io.BytesIO()
    out.write(b"\0" * 128 + b"DICM")
    # Not `enforce_file_format`: it refuses transfer syntaxes younger than pydicom.
    write_file_meta_info(out, file_meta)
    content = body.getvalue()
    if syntax == DEFLATED:
        content = raw_deflate(content)
    return out.getvalue() + content


def raw_deflate(raw):
    """RFC 1951, without zlib's head and check sum; padded to an even length."""
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = coder.compress(raw) + coder.flush()
    return packed + b"\0" * (len(packed) % 2)


def planes(array, channels=1):
    """[D, H, W] or [D, H, W, 3] -> f32 [C, D, H, W]."""
    array = np.asarray(array)
    return np.moveaxis(array[..., None], -1, 0) if channels == 1 else np.moveaxis(array, -1, 0)


class Cases:
    """Writes files and remembers what a reader must find."""

    def __init__(self, out):
        self.out = pathlib.Path(out)
        self.rows = []
        self.n_values = 0

    def expect(self, values, tolerance=0.0, **more):
        """One Volume: its values [C, D, H, W] and what else is to be checked of it."""
        values = np.ascontiguousarray(values, dtype="<f4")
        name = f"{self.n_values}.f32"
        self.n_values += 1
        values.tofile(self.out / name)
        return {"values": name, "shape": list(values.shape), "tolerance": tolerance, **more}

    def file(self, name, content, *volumes, refused=None, needs=None, ship=False):
        """One file: the Volumes in it, or the reason code with which it must be refused."""
        path = self.out / f"{name}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else to_bytes(content))
        self.rows.append({
            "name": name, "path": path.name, "is_archive": False, "needs": needs, "ship": ship,
            "objects": [{"volumes": list(volumes), "refused": refused}], "skipped": [],
        })

    def archive(self, name, files, objects, skipped=(), root=None, ship=False):
        """A folder: {relative path: bytes}, the objects in it, and the codes of skipped files."""
        for path, content in files.items():
            path = self.out / name / path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else to_bytes(content))
        self.rows.append({
            "name": name, "path": root or name, "is_archive": True, "needs": None, "ship": ship,
            "objects": objects, "skipped": sorted(skipped),
        })

    def finish(self):
        (self.out / "index.json").write_text(json.dumps(self.rows, indent=1) + "\n")


def read_back(content):
    """pydicom's own reading, for the rows that it supports."""
    return pydicom.dcmread(io.BytesIO(content), force=True)
