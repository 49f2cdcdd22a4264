"""Write synthetic DICOM files of every pixel layout, codec and geometry, and what must be read of them.

    python make_dicom.py OUT                 everything; OUT/index.json lists it
    python make_dicom.py OUT --ship DIR      and copies the small ones that testdata/dicom holds

Expected values come from the arrays that were written, never from a decoder; lossy codecs alone are
compared with what imagecodecs decodes. Without imagecodecs and pyjpegls their rows are left out.
"""

import argparse
import hashlib
import json
import pathlib
import shutil
import tempfile

from dicom_cases import common, geometry, layouts, series, videos


def ship(out, folder, rows):
    """Copies small cases with values; the list stays readable."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    kept = [row for row in rows if row["ship"]]
    for row in kept:
        source, target = out / row["path"], folder / row["path"]
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
        for volume in (volume for item in row["objects"] for volume in item["volumes"]):
            shutil.copy(out / volume["values"], folder / volume["values"])
    lines = ",\n".join(json.dumps(row) for row in kept)
    (folder / "index.json").write_text(f"[\n{lines}\n]\n")
    listed = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}" for path in listed]
    (folder / "SHA256SUMS").write_text("\n".join(sums) + "\n")
    print(f"{len(kept)} cases, {sum(path.stat().st_size for path in listed)} bytes in {folder}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", nargs="?", type=pathlib.Path)
    parser.add_argument("--ship", type=pathlib.Path)
    options = parser.parse_args()
    out = options.out or pathlib.Path(tempfile.mkdtemp())
    out.mkdir(parents=True, exist_ok=True)
    cases = common.Cases(out)
    for part in (layouts, geometry, series, videos):
        part.add(cases)
    try:
        from dicom_cases import codecs
    except ModuleNotFoundError as missing:
        print(f"left out: compressed files, for want of {missing.name}")
    else:
        codecs.add(cases)
    cases.finish()
    print(f"{len(cases.rows)} cases in {out}")
    if options.ship:
        ship(out, options.ship, cases.rows)


if __name__ == "__main__":
    main()
