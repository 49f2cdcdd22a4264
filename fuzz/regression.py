"""Turn a fuzzer's artifact into a file of testdata/regressions, which plain tests read.

    python fuzz/regression.py TARGET ARTIFACT NAME

Artifacts of `frame`, `jpeg2000` and `jpeg_ls` are wrapped into DICOM as their targets do; all others are kept as they
are. Those of `gallery`, `model` and `parquet` are choices, not files: write a test for them.
"""

import pathlib
import struct
import sys

from seeds import ROOT, SYNTAXES


def short(group, element, vr, value):
    return struct.pack("<HH2sH", group, element, vr, len(value)) + value


def us(element, value):
    return short(0x28, element, b"US", struct.pack("<H", value))


def file(uid, sides, depth, samples, photometric, stream):
    stored, is_signed = depth
    uid = uid.encode() + b"\0" * (len(uid) % 2)
    photometric = photometric.encode() + b" " * (len(photometric) % 2)
    allocated = 8 if stored <= 8 else 16
    stored = min(max(stored, 1), allocated)
    return b"".join([
        b"\0" * 128, b"DICM", short(2, 0x10, b"UI", uid), us(2, samples), short(0x28, 4, b"CS", photometric),
        us(0x10, max(sides[0], 1)), us(0x11, max(sides[1], 1)), us(0x100, allocated), us(0x101, stored),
        us(0x102, stored - 1), us(0x103, int(is_signed)),
        struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF), struct.pack("<HHI", 0xFFFE, 0xE000, 0),
        struct.pack("<HHI", 0xFFFE, 0xE000, len(stream)), stream, struct.pack("<HHI", 0xFFFE, 0xE0DD, 0),
    ])


def of_frame(artifact):
    syntax, rows, columns, depth, colour = artifact[:5]
    samples, photometric = [(1, "MONOCHROME2"), (3, "RGB"), (3, "YBR_FULL")][colour % 3]
    return file(SYNTAXES[syntax % len(SYNTAXES)], (rows, columns), (depth % 33, depth >= 128), samples, photometric,
                artifact[5:])


def of_jpeg_2000(artifact):
    way, stream = artifact[0], artifact[1:]
    if way % 3 == 0:
        return stream
    way //= 3
    size = stream[stream.index(b"\xff\x4f\xff\x51") + 6:]
    x1, y1, x0, y0 = struct.unpack_from(">4I", size, 2)
    samples, depth = struct.unpack_from(">HB", size, 34)
    photometric = ["RGB", "YBR_RCT", "YBR_ICT", "YBR_FULL"][way // 5 % 4] if samples == 3 else "MONOCHROME2"
    uid = "1.2.840.10008.1.2.4." + ["90", "91", "201", "202", "203"][way % 5]
    return file(uid, (y1 - y0, x1 - x0), ((depth & 0x7F) + 1, depth >= 128), samples, photometric, stream)


def of_jpeg_ls(artifact):
    way, stream = artifact[0], artifact[1:]
    depth, rows, columns, samples = struct.unpack_from(">BHHB", stream, stream.index(b"\xff\xf7") + 4)
    photometric = ["RGB", "YBR_FULL"][way >> 2 & 1] if samples == 3 else "MONOCHROME2"
    uid = "1.2.840.10008.1.2.4." + ["80", "81"][way % 2]
    return file(uid, (rows, columns), (depth, way & 2 != 0), samples, photometric, stream)


WRAPPED = {"frame": of_frame, "jpeg2000": of_jpeg_2000, "jpeg_ls": of_jpeg_ls}


def main(target, artifact, name):
    content = pathlib.Path(artifact).read_bytes()
    folder = ROOT / "testdata" / "regressions"
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(WRAPPED.get(target, bytes)(content))


if __name__ == "__main__":
    main(*sys.argv[1:])
