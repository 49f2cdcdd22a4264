"""Writes the demo's manifests.

    python3 tools/demo/manifest.py ct OUT     OUT/ct.csv: the CT volumes that are projected to radiographs
    python3 tools/demo/manifest.py all OUT    OUT/manifest.csv: every image of the gallery

Only images that are there are listed: of testdata/real, of OUT/cache, and of OUT/radiographs and OUT/disturbed, which
`m3ret simulate radiographs OUT/ct.csv --out ...` made, the latter with --disturb.
"""

import csv
import os
import pathlib
import shutil
import sys

import sources
import volumes

COLUMNS = ["path", "modality", "body_part", "patient_id", "source", "split", "dims", "license", "trained_on"]
YES = {True: "yes", False: ""}


def read(path):
    """Reads a manifest; of one that is not there, no row."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path, rows):
    """Writes a manifest whole or not at all."""
    part = path.with_name(path.name + ".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    part.replace(path)


def row(image, path):
    """Makes a row of an image or of a part of a volume."""
    return {"path": path, "modality": image.modality, "body_part": image.body_part, "patient_id": image.patient_id,
            "source": image.source, "split": "gallery", "dims": image.dims, "license": sources.SOURCES[image.source].license,
            "trained_on": YES[image.trained_on]}


def of_testdata(out):
    """Rows of the images that lie in the repository."""
    folder = pathlib.Path(sources.ROOT_OF_TESTDATA)
    above = pathlib.PurePath(os.path.relpath(folder, out))
    return [{**image, "path": str(above / image["path"]), "split": "gallery",
             "trained_on": YES[image["source"] in sources.TRAINED_SOURCES]}
            for image in read(folder / "manifest.csv")]


def of_cache(cache):
    """Rows of single images of the packages."""
    return [row(image, f"cache/{image.path}")
            for image in sources.IMAGES if cache.joinpath(image.path).exists()]


def of_volumes(cache):
    """Rows of volumes and their halves."""
    paths = [(whole, volumes.part_path(cache, whole, part)) for whole in sources.WHOLES for part in volumes.PARTS]
    return [row(whole, f"cache/{path.name}") for whole, path in paths if path.exists()]


def of_radiographs(folder):
    """Rows of simulated radiographs, which get the names of their CT volumes instead of numbers."""
    trained = {whole.patient_id: whole.trained_on for whole in sources.WHOLES}
    made = read(folder / "manifest.csv")
    ct_of = {image["pair_id"]: pathlib.PurePath(image["path"]).stem for image in made if image["modality"] == "CT"}
    rows = []
    for image in made:
        if image["modality"] != "DX":
            continue
        view = image["finding"].removeprefix("drr-")
        name = f"{ct_of[image['pair_id']]}-{view}.png"
        shutil.copyfile(folder / image["path"], folder / name)  # a move could not be done twice
        rows.append({**{column: image.get(column, "") for column in COLUMNS}, "path": f"{folder.name}/{name}",
                     "trained_on": YES[trained[image["patient_id"]]]})
    return rows


def main(what, out):
    """Writes one of the manifests and tells what is in it."""
    out = pathlib.Path(out)
    cache = out / "cache"
    if what == "ct":
        write(out / "ct.csv", [image for image in of_volumes(cache) if image["modality"] == "CT"])
        return
    radiographs = of_radiographs(out / "radiographs") + of_radiographs(out / "disturbed")
    rows = of_testdata(out) + of_cache(cache) + of_volumes(cache) + radiographs
    write(out / "manifest.csv", rows)
    patients = len({image["patient_id"] for image in rows})
    print(f"  {len(rows)} images of {patients} patients: {out}/manifest.csv")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
