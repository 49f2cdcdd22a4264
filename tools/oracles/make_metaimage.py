"""Writes MetaImage files with SimpleITK (and by hand what it cannot write), and what they mean.

usage: make_metaimage.py FOLDER [--small]     (needs SimpleITK, nibabel and numpy)
"""

import itertools
import sys
import zlib

import numpy as np
import SimpleITK as sitk
from expect import Expectations, canonical, spacing_of
from make_nifti import SCALARS, numbers, rotation

SIZES = np.array([0.8, 0.7, 2.5])
ORIGIN = np.array([12.5, -7.25, 3.0])
NAMES = {"u1": "MET_UCHAR", "i2": "MET_SHORT", "f4": "MET_FLOAT"}


def expected(image, codes=()):
    """What SimpleITK says about an image it has read."""
    array = sitk.GetArrayFromImage(image)  # [z, y, x] or [z, y, x, c]
    n_channels = image.GetNumberOfComponentsPerPixel()
    dims = image.GetDimension()
    if n_channels == 1:
        array = array[..., None]
    array = array[..., :3].astype(np.float32)
    spacing = image.GetSpacing()
    if dims == 2 or (dims == 3 and image.GetSize()[2] == 1):
        affine = None
        if dims == 3:
            affine = affine_of(image)
        values = np.moveaxis(array.reshape((1,) + array.shape[-3:]), -1, 0)
        return [{"values": values, "kind": "image", "affine": affine,
                 "spacing": [None, spacing[1], spacing[0]], "codes": list(codes)}]
    if dims == 4 and image.GetSize()[2] == 1:
        return [{"values": np.moveaxis(array[:, 0], -1, 0), "kind": "video",
                 "spacing": [None, spacing[1], spacing[0]], "codes": list(codes)}]
    parts = array if dims == 4 else array[None]
    volumes = []
    for index, part in enumerate(parts):
        values, affine = canonical(part.transpose(2, 1, 0, 3), affine_of(image))
        volumes.append({"values": np.moveaxis(values, -1, 0), "kind": "volume", "affine": affine,
                        "spacing": spacing_of(affine), "codes": list(codes),
                        "part": f"t={index}" if len(parts) > 1 else None})
    return volumes


def affine_of(image):
    """The LPS affine, by asking ITK where voxels lie."""
    point = image.TransformIndexToPhysicalPoint
    zero = [0] * image.GetDimension()
    affine = np.eye(4)
    affine[:3, 3] = point(zero)[:3]
    for axis in range(3):
        step = zero.copy()
        step[axis] = 1
        affine[:3, axis] = np.subtract(point(step)[:3], affine[:3, 3])
    return affine


class Writer:
    def __init__(self, folder, small):
        self.out = Expectations(folder)
        self.small = small
        self.rng = np.random.default_rng(22)

    def write(self, name, array, direction=None, compress=False, keep=False, vector=False):
        if self.small and not keep:
            return
        dims = array.ndim - int(vector)
        if dims == 4:
            image = sitk.JoinSeries([sitk.GetImageFromArray(part, isVector=vector) for part in array])
        else:
            image = sitk.GetImageFromArray(array, isVector=vector)
        if dims >= 3:
            turn = np.eye(dims)
            turn[:3, :3] = np.eye(3) if direction is None else direction
            image.SetDirection(turn.ravel().tolist())
            image.SetOrigin([*ORIGIN, *[0] * (dims - 3)])
            image.SetSpacing([*SIZES, *[1] * (dims - 3)])
        else:
            image.SetSpacing(SIZES[:2].tolist())
        path = str(self.out.folder / name)
        sitk.WriteImage(image, path, useCompression=compress)
        codes = ["alpha_dropped"] if vector and array.shape[-1] == 4 else []
        self.out.add(name, expected(sitk.ReadImage(path), codes))

    def by_hand(self, name, lines, payload, files=(), keep=False, ask=True, volumes=None):
        if self.small and not keep:
            return
        path = self.out.folder / name
        path.write_bytes("".join(f"{line}\n" for line in lines).encode() + payload)
        for file, content in files:
            (self.out.folder / file).write_bytes(content)
        self.out.add(name, volumes or expected(sitk.ReadImage(str(path))))


def written(writer):
    for code in SCALARS:
        values = numbers(writer.rng, code, (2, 3, 4))
        for ending, compress in itertools.product(["mha", "mhd"], [False, True]):
            name = f"{code}_{'zlib' if compress else 'raw'}.{ending}"
            keep = name in {"i2_raw.mha", "u1_zlib.mha", "f4_raw.mhd", "u2_zlib.mhd"}
            writer.write(name, values, compress=compress, keep=keep)
    values = numbers(writer.rng, "i2", (2, 3, 4))
    for order in itertools.permutations(range(3)):
        for signs in itertools.product([1, -1], repeat=3):
            matrix = np.zeros((3, 3))
            for axis, (to, sign) in enumerate(zip(order, signs)):
                matrix[to, axis] = sign
            name = "axes_" + "".join(map(str, order)) + "".join("+-"[s < 0] for s in signs)
            writer.write(f"{name}.mha", values, matrix, keep=name == "axes_120-+-")
    for i, angles in enumerate([(12, 0, 0), (5, -20, 30), (80, 10, 0), (0, 170, 20)]):
        writer.write(f"oblique{i}.mha", values, rotation(*angles), keep=i == 1)
    for n, code in itertools.product([3, 4], ["u1", "u2"]):
        colour = numbers(writer.rng, code, (2, 3, 4, n))
        writer.write(f"colour{n}_{code}.mha", colour, vector=True, keep=(n, code) == (4, "u1"))
        writer.write(f"colour{n}_{code}_flat.mha", colour[0], vector=True)
        writer.write(f"colour{n}_{code}_zlib.mha", colour, rotation(80, 10, 0), True, vector=True)
    writer.write("image.mha", values[0], keep=True)
    writer.write("slice.mha", values[:1], rotation(12, 0, 0))
    writer.write("series.mha", numbers(writer.rng, "i2", (3, 2, 3, 4)), rotation(80, 10, 0),
                 keep=True)
    writer.write("video.mha", numbers(writer.rng, "i2", (3, 1, 3, 4)))


def header(shape, code="i2", local="LOCAL", **more):
    lines = ["ObjectType = Image", f"NDims = {len(shape)}"]
    lines += [f"{key} = {value}" for key, value in more.items()]
    lines += ["DimSize = " + " ".join(map(str, shape)), f"ElementType = {NAMES[code]}"]
    return lines + [f"ElementDataFile = {local}"]


def by_hand(writer):
    values = writer.rng.integers(-9999, 9999, (2, 3, 4)).astype("<i2")
    raw = values.tobytes()
    turn = {"TransformMatrix": "1 0 0 0 1 0 0 0 1", "ElementSpacing": "0.8 0.7 2.5"}
    shape = values.shape[::-1]
    big = values.astype(">i2").tobytes()
    for key in ["BinaryDataByteOrderMSB", "ElementByteOrderMSB"]:
        writer.by_hand(f"{key}.mha", header(shape, **turn, **{key: "True"}), big,
                       keep=key == "ElementByteOrderMSB")
    for alias in ["Offset", "Position", "Origin"]:
        writer.by_hand(f"{alias}.mha", header(shape, **turn, **{alias: "1 2 3"}), raw)
    for alias in ["Orientation", "Rotation"]:
        lines = header(shape, **{alias: "0 1 0 0 0 1 1 0 0"}, ElementSpacing="1 2 3")
        writer.by_hand(f"{alias}.mha", lines, raw)
    writer.by_hand("skip.mhd", header(shape, local="skip.bin", HeaderSize=7, **turn), b"",
                   [("skip.bin", b"1234567" + raw)])
    writer.by_hand("end.mhd", header(shape, local="end.bin", HeaderSize=-1, **turn), b"",
                   [("end.bin", b"any length" + raw)], keep=True)
    sized = header(shape, CompressedData="True", CompressedDataSize=len(zlib.compress(raw)), **turn)
    writer.by_hand("sized.mha", sized, zlib.compress(raw))
    slabs = [(f"slab{i}.bin", values[i].tobytes()) for i in range(2)]
    lines = header(shape, local="LIST", **turn) + [name for name, _ in slabs]
    writer.by_hand("list.mhd", lines, b"", slabs, keep=True)
    volume = {"values": values[None].astype("f4"), "kind": "volume", "spacing": [2.5, 0.7, 0.8]}
    bare = header(shape, ElementSpacing="0.8 0.7 2.5")
    unknown = volume | {"codes": ["orientation_unknown"]}
    writer.by_hand("bare.mha", bare, raw, volumes=[unknown], keep=True)
    text = " ".join(map(str, values.ravel())).encode()
    writer.by_hand("text.mha", header(shape, BinaryData="False", ElementSpacing="0.8 0.7 2.5"),
                   text, volumes=[unknown])
    frames = volume | {"kind": "video", "spacing": [None, 0.7, 0.8]}
    tracked = header(shape, Kinds="domain domain list", ElementSpacing="0.8 0.7 1")
    writer.by_hand("tracked.mha", tracked, raw, volumes=[frames])


def main():
    writer = Writer(sys.argv[1], "--small" in sys.argv)
    written(writer)
    by_hand(writer)
    writer.out.close()


if __name__ == "__main__":
    main()
