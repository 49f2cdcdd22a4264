"""Writes NIfTI files of every data type with nibabel, and what nibabel reads back from them.

usage: make_nifti.py FOLDER [--small]     (needs nibabel and numpy; --small: the committed fixtures)

Expected values are computed through nibabel's own reorientation (`as_closest_canonical`), never
through the code under test.
"""

import itertools
import sys

import nibabel as nib
import numpy as np
from expect import Expectations, spacing_of, to_lps_storage
from nibabel import nifti1, nifti2

SCALARS = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]
RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
RGBA = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1"), ("A", "u1")])
CLASSES = {
    ("1", "nii"): (nib.Nifti1Image, nifti1.Nifti1Header),
    ("1", "pair"): (nib.Nifti1Pair, nifti1.Nifti1PairHeader),
    ("2", "nii"): (nib.Nifti2Image, nifti2.Nifti2Header),
    ("2", "pair"): (nib.Nifti2Pair, nifti2.Nifti2PairHeader),
}
UNIT_MM = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
UNIT_S = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}


def numbers(rng, dtype, shape):
    """Values over the whole range of a type, with the awkward ones of floats."""
    dtype = np.dtype(dtype)
    if dtype.names:
        values = np.zeros(shape, dtype)
        for name in dtype.names:
            values[name] = rng.integers(0, 256, shape)
        return values
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values = rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
        values.flat[:2] = [limits.min, limits.max]
        if dtype.itemsize == 8:
            # Rounding to f64 first would lose the 1 that breaks the tie.
            values.flat[2] = 2**60 + 2**36 + 1
        return values
    values = rng.normal(0, 1000, shape).astype(dtype)
    values.flat[:5] = [-0.0, np.inf, -np.inf, np.nan, 1e-42]
    return values


def expected(path, units="mm", time_units=None, video=False):
    """Reads the file with nibabel and turns it into our axis order."""
    image = nib.load(path)
    coded = int(image.header["sform_code"]) or int(image.header["qform_code"])
    mm = UNIT_MM[units]
    zooms = [float(z) for z in image.header.get_zooms()]
    shape = image.shape + (1,) * (3 - len(image.shape))
    is_flat = shape[2] == 1
    if coded and not is_flat:
        array = np.asarray(nib.as_closest_canonical(image).dataobj)
        affine_ras = nib.as_closest_canonical(image).affine.copy()
        affine_ras[:3] *= mm
        array, affine = to_lps_storage(array, affine_ras)
    else:
        array = np.asarray(image.dataobj).reshape(shape)
        array = np.swapaxes(array, 0, 2)
        affine = None
        if coded:
            scaled = image.affine.copy()
            scaled[:3] *= mm
            affine = np.diag([-1, -1, 1, 1]) @ scaled
    spacing = spacing_of(affine) if affine is not None else [
        (zooms[i] * mm if i < len(zooms) else None) for i in (2, 1, 0)
    ]
    if array.dtype.names:
        array = np.stack([array[name] for name in "RGB"])
    else:
        array = array[None]
    array = array.astype(np.float32)
    if is_flat and array.ndim > 4 and array.shape[4] > 1:
        assert video
        step = zooms[3] * UNIT_S[time_units] if time_units else None
        array = np.moveaxis(array, 4, 1)[:, :, 0]
        spacing = [step, spacing[1], spacing[2]]
        return [{"values": array, "kind": "video", "affine": None, "spacing": spacing}]
    kind = "image" if is_flat else "volume"
    if is_flat:
        spacing = [None, spacing[1], spacing[2]]
    extra = array.shape[4:]
    volumes = []
    # Fortran order: t fastest.
    for index in itertools.product(*(range(n) for n in reversed(extra))):
        index = index[::-1]
        words = [f"{name}={i}" for name, i, n in zip("tuvw", index, extra) if n > 1]
        volumes.append(
            {
                "values": array[(...,) + index],
                "kind": kind,
                "part": ",".join(words) or None,
                "affine": affine,
                "spacing": spacing,
            }
        )
    return volumes


class Writer:
    def __init__(self, folder, small):
        self.out = Expectations(folder)
        self.small = small
        self.rng = np.random.default_rng(20)

    def write(self, name, dtype, shape, **options):
        """Writes one file; in small mode only the names that are marked."""
        if self.small and not options.pop("keep", False):
            return
        options.pop("keep", None)
        version = options.get("version", "1")
        is_pair = name.endswith((".hdr", ".hdr.gz"))
        image_class, header_class = CLASSES[version, "pair" if is_pair else "nii"]
        header = header_class(endianness=options.get("endian", "<"))
        header.set_data_dtype(np.dtype(dtype) if not isinstance(dtype, str) else dtype)
        values = numbers(self.rng, dtype, shape)
        image = image_class(values, None, header, dtype=header.get_data_dtype())
        header = image.header
        if (zooms := options.get("zooms")) is not None:
            header.set_zooms(zooms[: len(shape)])
        units, time_units = options.get("units", "mm"), options.get("time_units")
        header.set_xyzt_units(units, time_units)
        affine = options.get("affine", np.diag([-0.8, 0.7, 2.5, 1]) + OFFSET)
        sform, qform = options.get("sform", affine), options.get("qform", affine)
        header.set_sform(sform, options.get("sform_code", 1))
        if qform is not None:
            header.set_qform(qform, options.get("qform_code", 1), strip_shears=True)
        for text in options.get("extensions", []):
            header.extensions.append(nifti1.Nifti1Extension("comment", text))
        path = self.out.folder / name
        image.to_filename(path)
        if "scale" in options:
            patch_scale(path, version, options)
        self.out.add(name, expected(path, units, time_units, options.get("video", False)))


OFFSET = np.array([[0, 0, 0, 12.5], [0, 0, 0, -7.25], [0, 0, 0, 3.0], [0, 0, 0, 0]])


def patch_scale(path, version, options):
    """Sets scl_slope and scl_inter in the file: nibabel would rescale the stored values."""
    raw = bytearray(path.read_bytes())
    at, code = (112, "f4") if version == "1" else (176, "f8")
    scale = np.array(options["scale"], options.get("endian", "<") + code).tobytes()
    raw[at : at + len(scale)] = scale
    path.write_bytes(raw)


def rotation(x, y, z):
    """Rotation by three angles in degrees."""
    result = np.eye(3)
    for axis, angle in enumerate(np.radians([x, y, z])):
        c, s = np.cos(angle), np.sin(angle)
        i, j = [(1, 2), (2, 0), (0, 1)][axis]
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = c
        turn[i, j], turn[j, i] = -s, s
        result = turn @ result
    return result


def affine_of(matrix, sizes=(0.8, 0.7, 2.5)):
    affine = np.eye(4)
    affine[:3, :3] = matrix @ np.diag(sizes)
    return affine + OFFSET


def every_type(writer):
    shape = (4, 3, 2) if writer.small else (5, 4, 3)
    kept = {"u1_1le.nii", "i2_1be.nii.gz", "rgb_2le.nii", "f8_2be.nii", "rgba_1le.nii.gz"}
    for name, dtype in [(code, code) for code in SCALARS] + [("rgb", RGB), ("rgba", RGBA)]:
        for version, endian, ending in itertools.product("12", "<>", [".nii", ".nii.gz"]):
            file = f"{name}_{version}{'le' if endian == '<' else 'be'}{ending}"
            writer.write(
                file, dtype, shape, version=version, endian=endian, keep=file in kept
            )
        for version in "12":
            for ending in [".hdr", ".hdr.gz"]:
                file = f"{name}_pair{version}{ending}"
                keep = file == "i2_pair1.hdr"
                writer.write(file, dtype, shape, version=version, keep=keep)


def scaling(writer):
    scales = [(0.37, -12.5), (0, 3), (np.nan, 3), (1, -1024), (-2, 0), (np.inf, 0), (1, 0.1)]
    for dtype, (i, scale), version, endian in itertools.product(
        SCALARS, enumerate(scales), "12", "<>"
    ):
        name = f"scale{i}_{dtype}_{version}{'le' if endian == '<' else 'be'}.nii"
        keep = name in {"scale0_i2_1le.nii", "scale4_f4_1le.nii"}
        shape = (4, 3, 2) if writer.small else (5, 4, 3)
        writer.write(
            name, dtype, shape, scale=scale, version=version, endian=endian, keep=keep
        )


def dimensions(writer):
    writer.write("flat2.nii", "i2", (5, 4))
    writer.write("flat3.nii", "i2", (5, 4, 1), keep=True)
    writer.write("line.nii", "i2", (5,), zooms=(0.5,))
    writer.write("t.nii.gz", "i2", (4, 3, 2, 2), zooms=(1, 1, 1, 2), time_units="sec", keep=True)
    writer.write("t_be.nii", "f8", (5, 4, 3, 4), endian=">")
    writer.write("t1.nii", "i2", (5, 4, 3, 1))
    writer.write("tu.nii.gz", "u2", (5, 4, 3, 2, 3), version="2")
    writer.write("tuvw.nii", "u1", (3, 2, 2, 2, 1, 2, 2))
    writer.write("t_rgb.nii.gz", RGB, (5, 4, 3, 3))
    for units, i in [("sec", 1), ("msec", 2), ("usec", 3), (None, 4)]:
        writer.write(
            f"video{i}.nii.gz", "u1", (5, 4, 1, 6), zooms=(0.8, 0.7, 2.5, 40), time_units=units,
            video=True, keep=i == 2,
        )
    writer.write("video_rgb.nii", RGB, (5, 4, 1, 6), zooms=(1, 1, 1, 2), time_units="sec",
                 video=True)
    writer.write("large.nii.gz", "i2", (50, 41, 37))
    writer.write("large_f4.nii.gz", "f4", (50, 41, 37), endian=">")
    writer.write("large_f8.nii.gz", "f8", (50, 41, 37))
    writer.write("extended.nii", "i2", (5, 4, 3), extensions=[b"one", b"two" * 99])
    writer.write("extended.nii.gz", "i2", (5, 4, 3), extensions=[b"one"], version="2")


def orientations(writer):
    for order in itertools.permutations(range(3)):
        for signs in itertools.product([1, -1], repeat=3):
            matrix = np.zeros((3, 3))
            for axis, (to, sign) in enumerate(zip(order, signs)):
                matrix[to, axis] = sign
            name = "axes_" + "".join(map(str, order)) + "".join("+-"[s < 0] for s in signs)
            keep = name in {"axes_201-+-", "axes_120---"}
            writer.write(f"{name}.nii", "i2", (4, 3, 2), affine=affine_of(matrix), keep=keep)
            writer.write(
                f"q{name}.nii", "i2", (4, 3, 2), affine=affine_of(matrix), sform_code=0
            )
    for i, angles in enumerate([(12, 0, 0), (5, -20, 30), (80, 10, 0), (0, 170, 20), (31, 33, 9)]):
        for mirror in (1, -1):
            oblique = affine_of(rotation(*angles) @ np.diag([1, 1, mirror]))
            name = f"oblique{i}{'+-'[mirror < 0]}"
            writer.write(f"{name}.nii", "i2", (4, 3, 2), affine=oblique, keep=name == "oblique1+")
            writer.write(f"q{name}.nii", "i2", (4, 3, 2), affine=oblique, sform_code=0,
                         keep=name == "oblique1-")
            writer.write(f"q2{name}.nii", "i2", (4, 3, 2), affine=oblique, sform_code=0,
                         version="2", endian=">")
            other = affine_of(rotation(3, 2, 1))
            writer.write(f"both{name}.nii", "i2", (4, 3, 2), sform=other, qform=oblique)
            writer.write(f"s0{name}.nii", "i2", (4, 3, 2), sform=oblique, qform_code=0)
    sheared = affine_of(np.array([[1, 0.2, 0], [0, 1, 0.1], [0, 0, 1]]))
    writer.write("sheared.nii", "i2", (4, 3, 2), affine=sheared, qform=None)
    writer.write("none.nii", "i2", (4, 3, 2), sform_code=0, qform_code=0, keep=True)
    for units in UNIT_MM:
        writer.write(f"unit_{units}.nii", "i2", (4, 3, 2), units=units)
        writer.write(f"unit_{units}_none.nii", "i2", (4, 3, 2), units=units, sform_code=0,
                     qform_code=0, zooms=(0.8, 0.7, 2.5))


def main():
    writer = Writer(sys.argv[1], "--small" in sys.argv)
    every_type(writer)
    scaling(writer)
    dimensions(writer)
    orientations(writer)
    writer.out.close()


if __name__ == "__main__":
    main()
