"""Fill fuzz/corpus from testdata: whole files, series as one input, bare codestreams for `frame`.

    python fuzz/seeds.py
"""

import io
import pathlib
import struct
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
CORPUS = ROOT / "fuzz" / "corpus"
SYNTAXES = ["1.2.840.10008.1.2.5"] + ["1.2.840.10008.1.2.4." + n for n in "50 51 70 80 90 201 110".split()]
SYNTAXES.append("1.2.840.10008.1.2.8.1")


def put(target, name, content):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def us(content, element, default):
    at = content.find(struct.pack("<HH", 0x28, element) + b"US")
    return struct.unpack_from("<H", content, at + 8)[0] if at > 0 else default


def first_frame(content):
    at = content.find(b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff")
    if at < 0:
        return None
    at += 12
    at += 8 + struct.unpack_from("<I", content, at + 4)[0]
    n = struct.unpack_from("<I", content, at + 4)[0]
    return content[at + 8:at + 8 + n]


def main():
    for path in sorted((ROOT / "testdata" / "dicom").glob("*.dcm")):
        content = path.read_bytes()
        put("dicom", path.name, content)
        frame = first_frame(content)
        syntax = next((i for i, uid in enumerate(SYNTAXES) if (uid + "\0" * (len(uid) % 2)).encode() in content), None)
        if frame and syntax is not None:
            colour = 0 if us(content, 2, 1) == 1 else 1
            depth = us(content, 0x101, 8) + 132 * us(content, 0x103, 0)
            head = bytes([syntax, us(content, 0x10, 1), us(content, 0x11, 1), depth, colour])
            put("frame", path.name, head + frame)
    for folder in (ROOT / "testdata" / "dicom").iterdir():
        if folder.is_dir():
            files = [path.read_bytes() for path in sorted(folder.iterdir())][:4]
            put("series", folder.name, b"//next//".join(files))
    for target in ("mgh", "nifti", "nrrd", "metaimage", "npy", "raster", "manifest"):
        for path in (ROOT / "testdata" / target).glob("*"):
            if path.suffix not in (".json", ".f32", ".md"):
                put("npy" if path.suffix == ".npy" else target, path.name, path.read_bytes())
    for name, method in (("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", method) as archive:
            for path in (ROOT / "testdata" / "dicom" / "series_axial").iterdir():
                archive.write(path, f"a/{path.name}")
            archive.write(ROOT / "testdata" / "raster" / "grey16.png", "b/grey16.png")
            archive.writestr("README", "text")
        put("zip", name, packed.getvalue())
    put("manifest", "plain.csv", b"path,modality,split\na.dcm,CT,query\n\"b,c\",MR,gallery\n")
    put("npy", "empty", b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }")


if __name__ == "__main__":
    main()
