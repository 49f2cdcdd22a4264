"""Turn a fuzzer's artifact into a file of testdata/regressions, which plain tests read.

    python fuzz/regression.py TARGET ARTIFACT NAME

An artifact of `frame` is wrapped into DICOM as its target does; all others are kept as they are.
"""

import pathlib
import struct
import sys

from seeds import ROOT, SYNTAXES


def short(group, element, vr, value):
    return struct.pack("<HH2sH", group, element, vr, len(value)) + value


def wrapped(artifact):
    syntax, rows, columns, depth, colour = artifact[:5]
    stream = artifact[5:]
    uid = SYNTAXES[syntax % len(SYNTAXES)].encode()
    uid += b"\0" * (len(uid) % 2)
    samples, photometric = [(1, b"MONOCHROME2 "), (3, b"RGB "), (3, b"YBR_FULL")][colour % 3]
    allocated = 8 if depth % 33 <= 8 else 16
    stored = min(max(depth % 33, 1), allocated)
    us = lambda element, value: short(0x28, element, b"US", struct.pack("<H", value))
    return b"".join([
        b"\0" * 128, b"DICM", short(2, 0x10, b"UI", uid), us(2, samples), short(0x28, 4, b"CS", photometric),
        us(0x10, max(rows, 1)), us(0x11, max(columns, 1)), us(0x100, allocated), us(0x101, stored),
        us(0x102, stored - 1), us(0x103, int(depth >= 128)),
        struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF), struct.pack("<HHI", 0xFFFE, 0xE000, 0),
        struct.pack("<HHI", 0xFFFE, 0xE000, len(stream)), stream, struct.pack("<HHI", 0xFFFE, 0xE0DD, 0),
    ])


def main(target, artifact, name):
    content = pathlib.Path(artifact).read_bytes()
    folder = ROOT / "testdata" / "regressions"
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(wrapped(content) if target == "frame" else content)


if __name__ == "__main__":
    main(*sys.argv[1:])
