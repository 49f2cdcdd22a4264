"""Writes NRRD files with pynrrd (and by hand what pynrrd cannot write), and what they mean.

usage: make_nrrd.py FOLDER [--small]     (needs pynrrd, nibabel and numpy)
"""

import gzip
import itertools
import sys

import nrrd
import numpy as np
from expect import Expectations, canonical, spacing_of
from make_nifti import SCALARS, numbers, rotation

NAMES = {"i1": "int8", "u1": "uint8", "i2": "int16", "u2": "uint16", "i4": "int32", "u4": "uint32",
         "i8": "int64", "u8": "uint64", "f4": "float", "f8": "double"}
SIGNS = {"left-posterior-superior": (1, 1, 1), "right-anterior-superior": (-1, -1, 1),
         "LPS": (1, 1, 1), "RAS": (-1, -1, 1), "left-anterior-superior": (1, -1, 1)}
DIRECTIONS = np.array([[0.8, 0, 0], [0, 0.7, 0], [0, 0, 2.5]])
ORIGIN = np.array([12.5, -7.25, 3.0])


def affine_lps(space, directions, origin):
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(directions).T
    affine[:3, 3] = origin
    return np.diag([*SIGNS[space], 1]) @ affine


class Writer:
    def __init__(self, folder, small):
        self.out = Expectations(folder)
        self.small = small
        self.rng = np.random.default_rng(21)

    def volume(self, name, array, space=None, directions=None, keep=False, **options):
        """A scalar volume [x, y, z] by pynrrd."""
        if self.small and not keep:
            return
        header = {"encoding": options.get("encoding", "raw"), "endian": options.get("endian")}
        header = {k: v for k, v in header.items() if v}
        if space:
            header |= {"space": space, "space directions": directions, "space origin": ORIGIN}
            header |= {"kinds": ["domain"] * 3}
        if "spacings" in options:
            header["spacings"] = options["spacings"]
        path = str(self.out.folder / name)
        nrrd.write(path, array, header, detached_header=name.endswith(".nhdr"))
        read, _ = nrrd.read(path)
        assert read.dtype.itemsize == array.dtype.itemsize
        if space:
            values, affine = canonical(read, affine_lps(space, directions, ORIGIN))
            spacing = spacing_of(affine)
        else:
            values, affine = read.transpose(2, 1, 0), None
            spacing = [float(s) for s in options["spacings"][::-1]] if "spacings" in options else [None] * 3
        self.out.add(name, [{"values": values[None].astype(np.float32), "kind": "volume",
                             "affine": affine, "spacing": spacing,
                             "codes": options.get("codes", [])}])

    def by_hand(self, name, fields, payload, volumes, keep=False, files=()):
        """Any header and bytes, with what they mean."""
        if self.small and not keep:
            return
        text = "NRRD0005\n# by hand\n" + "".join(f"{line}\n" for line in fields) + "\n"
        (self.out.folder / name).write_bytes(text.encode() + payload)
        for file, content in files:
            (self.out.folder / file).write_bytes(content)
        self.out.add(name, volumes)


def every_type(writer):
    for code, encoding, endian in itertools.product(
        SCALARS, ["raw", "gzip"], ["little", "big"]
    ):
        values = numbers(writer.rng, code, (4, 3, 2))
        if endian == "big":
            values = values.astype(values.dtype.newbyteorder(">"))
        name = f"{NAMES[code]}_{encoding}_{endian}"
        keep = name in {"int16_gzip_big", "float_raw_little"}
        writer.volume(f"{name}.nrrd", values, "left-posterior-superior", DIRECTIONS, keep,
                      encoding=encoding, endian=endian)
        writer.volume(f"{name}_det.nhdr", values, "left-posterior-superior", DIRECTIONS,
                      name == "int16_gzip_big", encoding=encoding, endian=endian)
    for code in SCALARS:
        values = numbers(writer.rng, code, (4, 3, 2))
        lines = "\n".join(" ".join(repr(v) for v in row) for row in values.T.reshape(-1, 4).tolist())
        expected = [{"values": values.transpose(2, 1, 0)[None].astype(np.float32),
                     "kind": "volume"}]
        # A type wider than a byte needs no endian here.
        header = [line for line in fields(values.shape, code, "ascii") if "endian" not in line]
        writer.by_hand(f"{NAMES[code]}_ascii.nrrd", header, lines.encode(), expected,
                       keep=code == "i2")


def orientations(writer):
    values = numbers(writer.rng, "i2", (4, 3, 2))
    for space in SIGNS:
        for i, order in enumerate(itertools.permutations(range(3))):
            directions = DIRECTIONS[list(order)] * np.array([1, -1, 1])[:, None]
            writer.volume(f"{space}_{i}.nrrd", values, space, directions, (space, i) == ("RAS", 4))
        oblique = (rotation(10, -20, 70) @ DIRECTIONS.T).T
        writer.volume(f"{space}_oblique.nrrd", values, space, oblique)
    codes = ["orientation_unknown", "stack_axis_unknown"]
    writer.volume("spacings.nrrd", values, spacings=[0.5, 0.6, 0.7], codes=codes, keep=True)
    writer.volume("bare.nrrd", values, codes=[*codes, "spacing_unknown"])


def fields(shape, code="u1", encoding="raw", **more):
    lines = [f"type: {NAMES[code]}", f"dimension: {len(shape)}", "sizes: " + " ".join(map(str, shape)),
             f"encoding: {encoding}", "endian: little"]
    return lines + [f"{key.replace('_', ' ')}: {value}" for key, value in more.items()]


def axes(writer):
    """Colour, time and lists at every place. Arrays are [x, y, z, ...], fastest first."""
    lps = "space directions: ", "left-posterior-superior"
    vectors = ["(0.8,0,0)", "(0,0.7,0)", "(0,0,2.5)"]
    affine = affine_lps("LPS", DIRECTIONS, [0, 0, 0])
    spacing = [2.5, 0.7, 0.8]
    for kind, n in [("RGB-color", 3), ("vector", 3), ("RGBA-color", 4), ("3-color", 3)]:
        for place in range(4):
            values = writer.rng.integers(0, 256, (4, 3, 2, n)).astype("u1")
            stored = np.moveaxis(values, 3, place)
            kinds = ["domain"] * 3
            kinds.insert(place, kind)
            directions = vectors.copy()
            directions.insert(place, "none")
            header = fields(stored.shape, kinds=" ".join(kinds), space=lps[1])
            header.append(lps[0] + " ".join(directions))
            expected = values[..., :3].transpose(3, 2, 1, 0)
            codes = ["alpha_dropped"] if n == 4 else []
            writer.by_hand(f"{kind}_{place}.nrrd", header, stored.tobytes("F"),
                           [{"values": expected, "kind": "volume", "affine": affine,
                             "spacing": spacing, "codes": codes}],
                           keep=(kind, place) in {("RGB-color", 0), ("vector", 3)})
    for kind, label in [("time", "t"), ("list", "list")]:
        for place in (0, 3):
            values = writer.rng.integers(0, 256, (4, 3, 2, 5)).astype("<i2")
            stored = np.moveaxis(values, 3, place)
            kinds, directions = ["domain"] * 3, vectors.copy()
            kinds.insert(place, kind)
            directions.insert(place, "none")
            header = fields(stored.shape, "i2", "gzip", kinds=" ".join(kinds), space=lps[1])
            header.append(lps[0] + " ".join(directions))
            volumes = [{"values": values[..., i].transpose(2, 1, 0)[None], "kind": "volume",
                        "affine": affine, "spacing": spacing, "part": f"{label}={i}"}
                       for i in range(5)]
            writer.by_hand(f"{kind}_{place}.nrrd", header, gzip.compress(stored.tobytes("F"), mtime=0),
                           volumes, keep=(kind, place) == ("list", 0))
    values = writer.rng.integers(0, 256, (4, 3, 6)).astype("u1")
    header = fields(values.shape, kinds="domain domain time", spacings="0.8 0.7 40")
    header.append('units: "mm" "mm" "ms"')
    writer.by_hand("video.nrrd", header, values.tobytes("F"),
                   [{"values": values.transpose(2, 1, 0)[None], "kind": "video",
                     "spacing": [0.04, 0.7, 0.8]}], keep=True)
    rgb = writer.rng.integers(0, 256, (3, 4, 5, 6)).astype("u1")
    header = fields(rgb.shape, kinds="RGB-color domain domain time")
    writer.by_hand("video_rgb.nrrd", header, rgb.tobytes("F"),
                   [{"values": rgb.transpose(0, 3, 2, 1), "kind": "video"}])
    flat = values[..., 0]
    writer.by_hand("image.nrrd", fields(flat.shape, spacings="0.8 NaN"), flat.tobytes("F"),
                   [{"values": flat.T[None, None], "kind": "image", "spacing": [None, None, 0.8],
                     "codes": ["spacing_unknown"]}])
    parts = [{"values": values[..., i].T[None, None], "kind": "image", "part": f"list={i}",
              "spacing": [None] * 3} for i in range(6)]
    writer.by_hand("images.nrrd", fields(values.shape, kinds="domain domain list"),
                   values.tobytes("F"), parts)


def places(writer):
    """Skips, hex, and detached lists."""
    values = writer.rng.integers(-9999, 9999, (4, 3, 2)).astype("<i2")
    raw = values.tobytes("F")
    volume = [{"values": values.transpose(2, 1, 0)[None], "kind": "volume", "spacing": [None] * 3}]

    def detached(name, payload, encoding="raw", keep=False, **more):
        header = fields(values.shape, "i2", encoding, data_file=f"./{name}.bin", **more)
        writer.by_hand(f"{name}.nhdr", header, b"", volume, keep, [(f"{name}.bin", payload)])

    detached("lines", b"one\ntwo\n" + raw, line_skip=2)
    detached("bytes", b"12345" + raw, byte_skip=5)
    detached("both", b"one\n12345" + raw, line_skip=1, byte_skip=5, keep=True)
    detached("from_end", b"any header" + raw, byte_skip=-1)
    detached("gz_bytes", gzip.compress(b"12345" + raw), "gz", byte_skip=5)
    detached("gz_lines", b"one\n" + gzip.compress(raw), "gzip", line_skip=1)
    detached("hex", raw.hex(" ").encode(), "hex", keep=True)
    for encoding in ("raw", "gz"):
        slabs = [values[..., i].tobytes("F") for i in range(2)]
        if encoding == "gz":
            slabs = [gzip.compress(slab) for slab in slabs]
        files = [(f"list_{encoding}_{i}.bin", slab) for i, slab in enumerate(slabs)]
        header = fields(values.shape, "i2", encoding, data_file="LIST")
        header += [name for name, _ in files]
        writer.by_hand(f"list_{encoding}.nhdr", header, b"", volume, encoding == "raw", files)
    text = "NRRD0004\r\n" + "".join(f"{line}\r\n" for line in fields(values.shape, "i2"))
    if not writer.small:
        (writer.out.folder / "crlf.nrrd").write_bytes(text.encode() + b"key:=a: b\r\n\r\n" + raw)
        writer.out.add("crlf.nrrd", volume)
    segments = fields(values.shape, "i2") + ["Segment0_ID:=Segment_1"]
    labelled = [volume[0] | {"codes": ["label_map"]}]
    writer.by_hand("segments.seg.nrrd", segments, raw, labelled)


def main():
    writer = Writer(sys.argv[1], "--small" in sys.argv)
    every_type(writer)
    orientations(writer)
    axes(writer)
    places(writer)
    writer.out.close()


if __name__ == "__main__":
    main()
