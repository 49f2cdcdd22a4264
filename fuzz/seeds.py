"""Fill a folder of corpora from testdata: whole files, series as one input, bare codestreams.

    python fuzz/seeds.py [FOLDER]

FOLDER is fuzz/corpus where none is given. codec_seeds.py adds streams of encoders that are installed. The targets
`gallery`, `model` and `parquet` make or hold their good files themselves: their input is only what to patch.
"""

import io
import pathlib
import struct
import sys
import zipfile

import codec_seeds

ROOT = pathlib.Path(__file__).resolve().parents[1]
CORPUS = ROOT / "fuzz" / "corpus"
SYNTAXES = ["1.2.840.10008.1.2.5"] + ["1.2.840.10008.1.2.4." + n for n in "50 51 70 80 90 201 110".split()]
SYNTAXES.append("1.2.840.10008.1.2.8.1")


# Where the targets `jpeg2000` and `jpeg_ls` take the stream from, by place in SYNTAXES.
CODECS = {4: ("jpeg_ls", 0), 5: ("jpeg2000", 1), 6: ("jpeg2000", 7)}


def put(target, name, content):
    folder = pathlib.Path(*sys.argv[1:2] or [CORPUS]) / target
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
            if syntax in CODECS:
                codec, way = CODECS[syntax]
                put(codec, path.name, bytes([way]) + frame)
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
    for path in (ROOT / "testdata" / "raster").glob("*.j*2*"):
        put("jpeg2000", path.name, b"\0" + path.read_bytes())
    for target, name, content in codec_seeds.all_seeds():
        put(target, name, content)
        if target == "jpeg_ls":
            put("frame", "ls_" + name, bytes([4, 19, 23, int(name.split("_")[0]), int("_3_" in name)]) + content[1:])
        elif name.endswith("_frame") and not len(content) > 1500:
            syntax = 6 if name.startswith("ht") else 5
            depth, n = name.removeprefix("ht_").split("_")[:2]
            put("frame", "2000_" + name, bytes([syntax, 27, 35, int(depth), int(n == "3")]) + content[1:])
    for path in [*(ROOT / "configs").glob("*.toml"), *(ROOT / "weights").glob("*/training/*.toml")]:
        put("config", path.name, path.read_bytes())
    put("config", "changes", b"out = \"a\"\nmanifests = [\"m.csv\"]\n--set\ntrain.batch=32\nmodel.preset=tiny\n")
    for target in ("gallery", "model", "parquet", "series_headers", "enhanced"):
        for number in range(24):
            put(target, f"choices{number}", bytes((number * 37 + i * (2 * number + 1)) % 256 for i in range(48)))
    put("manifest", "plain.csv", b"path,modality,split\na.dcm,CT,query\n\"b,c\",MR,gallery\n")
    put("npy", "empty", b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }")


if __name__ == "__main__":
    main()
