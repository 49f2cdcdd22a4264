"""Cuts volumes of the cache into parts, as NIfTI, with nothing but Python's own library.

    python3 tools/demo/volumes.py CACHE

Of each volume come three: the whole, its lower half and its upper half (NAME-whole.nii, NAME-lower.nii,
NAME-upper.nii). What is there already stays.
"""

import gzip
import math
import pathlib
import plistlib
import struct
import sys
import tarfile

import sources

PARTS = {"whole": (0, 1), "lower": (0, 0.5), "upper": (0.5, 1)}
HEADER_BYTES = 348
DATA_BEGIN = 352
INT16 = 4
MILLIMETRES = 2
SCANNER_SPACE = 1


class Nifti:
    """A NIfTI-1 file in little-endian order, whose slowest axis runs from inferior to superior."""

    def __init__(self, content):
        self.header = bytearray(content[:HEADER_BYTES])
        if self.get("<i", 0) != HEADER_BYTES or self.header[344:347] != b"n+1":
            raise ValueError("not a little-endian NIfTI-1 file")
        if self.get("<h", 254) <= 0 or self.get("<3f", 280)[2] != 0 or self.get("<4f", 312)[2] <= 0:
            raise ValueError("its slices are not stacked from inferior to superior")
        self.shape = self.get("<3h", 42)
        begin = int(self.get("<f", 108)) or DATA_BEGIN
        self.slice_bytes = math.prod(self.shape[:2]) * self.get("<h", 72) // 8
        self.data = memoryview(content)[begin:begin + self.slice_bytes * self.shape[2]]
        if len(self.data) != self.slice_bytes * self.shape[2]:
            raise ValueError("cut short")

    def get(self, form, offset):
        """Reads a field of the header: one value, or several as a tuple."""
        values = struct.unpack_from(form, self.header, offset)
        return values[0] if len(values) == 1 else values

    def slices(self, begin, end):
        """Returns a file of some slices, at their place in space."""
        header = bytearray(self.header)
        struct.pack_into("<h", header, 46, end - begin)
        struct.pack_into("<f", header, 108, DATA_BEGIN)
        struct.pack_into("<h", header, 252, 0)  # the sform alone says where the slices lie
        for offset in (280, 296, 312):
            row = list(self.get("<4f", offset))
            row[3] += row[2] * begin
            struct.pack_into("<4f", header, offset, *row)
        data = self.data[begin * self.slice_bytes:end * self.slice_bytes]
        return bytes(header) + bytes(DATA_BEGIN - HEADER_BYTES) + data


def of_matrix(matrix, shape, spacing):
    """Makes a NIfTI file of int16 values [z, y, x].

    InVesalius keeps axial DICOM slices from inferior to superior, with their rows upside down: x runs to the
    patient's left, y to anterior. NIfTI's world runs to the right, so x counts down.
    """
    depth, height, width = shape
    dx, dy, dz = spacing
    header = bytearray(HEADER_BYTES)
    struct.pack_into("<i", header, 0, HEADER_BYTES)
    struct.pack_into("<8h", header, 40, 3, width, height, depth, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, INT16, 16)
    struct.pack_into("<8f", header, 76, 1, dx, dy, dz, 0, 0, 0, 0)
    struct.pack_into("<3f", header, 108, DATA_BEGIN, 1, 0)
    header[123] = MILLIMETRES
    struct.pack_into("<2h", header, 252, 0, SCANNER_SPACE)
    struct.pack_into("<4f", header, 280, -dx, 0, 0, dx * (width - 1) / 2)
    struct.pack_into("<4f", header, 296, 0, dy, 0, -dy * (height - 1) / 2)
    struct.pack_into("<4f", header, 312, 0, 0, dz, -dz * (depth - 1) / 2)
    header[344:348] = b"n+1\0"
    return bytes(header) + bytes(DATA_BEGIN - HEADER_BYTES) + matrix


def read_inv3(path):
    """Reads the volume of an InVesalius project, a tar of plists and raw matrices, as a NIfTI file."""
    with tarfile.open(path, "r:gz") as opened:
        members = {pathlib.PurePosixPath(member.name).name: member for member in opened if member.isfile()}
        project = plistlib.loads(opened.extractfile(members["main.plist"]).read())
        matrix = opened.extractfile(members[project["matrix"]["filename"]]).read()
    shape = project["matrix"]["shape"]
    if project["matrix"]["dtype"] != "int16" or len(matrix) != 2 * math.prod(shape):
        raise ValueError("not the int16 matrix that its plist describes")
    return of_matrix(matrix, shape, project["spacing"])


def read(path):
    """Reads a volume of the cache."""
    if path.suffix == ".inv3":
        return Nifti(read_inv3(path))
    with gzip.open(path) as file:
        return Nifti(file.read())


def part_path(cache, whole, part):
    """Says where a part of a volume lies."""
    return cache / f"{whole.path.split('.')[0]}-{part}.nii"


def main(cache):
    """Cuts every volume that is there."""
    cache = pathlib.Path(cache)
    for whole in sources.WHOLES:
        targets = {part: part_path(cache, whole, part) for part in PARTS}
        if not cache.joinpath(whole.path).exists() or all(target.exists() for target in targets.values()):
            continue
        volume = read(cache / whole.path)
        n_slices = volume.shape[2]
        for part, (begin, end) in PARTS.items():
            target = targets[part]
            unfinished = target.with_name(target.name + ".part")
            unfinished.write_bytes(volume.slices(int(begin * n_slices), int(end * n_slices)))
            unfinished.replace(target)
        print(f"  {whole.path}: {n_slices} slices, whole and as two halves")


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except KeyboardInterrupt:
        sys.exit(130)
