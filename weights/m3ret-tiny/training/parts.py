"""Divides pools of images into a training part and a validation part, by patient.

    python3 parts.py POOL/manifest.csv [POOL2/manifest.csv ...] OUT

A patient who is in several pools is in one part. The manifests need the columns path, modality, body_part, finding, patient_id, source, dims, license,
ship and pair_id. Written are

  OUT/train.csv       what the shipped weights may be trained on: rows with ship = yes, less every
                      sixth patient of the sources with many patients
  OUT/validation.csv  those held-out patients, and every row with ship = no: never trained on, used to
                      choose between runs; at most 300 rows of a source, 48 of clips, which take
                      long to read. A row without a pair_id comes twice, as a query and in
                      the gallery: every image asks for all others of other patients.
  OUT/data.csv        the training rows with the SHA-256 of each file, for the record

The parts follow from patient_id alone, so they are the same on every machine.
"""

import collections
import csv
import hashlib
import os
import sys

HELD_OUT_OF = 6
FEW_PATIENTS = 50
MOST_ROWS = {"2d": 300, "3d": 300, "video": 48}


def drawn(text, purpose):
    """A whole number that follows from a text."""
    return int.from_bytes(hashlib.sha256(f"{purpose}:{text}".encode()).digest()[:8], "big")


def sha256(path):
    """The SHA-256 of a file; of a folder, that of its files' names and hashes."""
    if os.path.isdir(path):
        names = sorted(os.listdir(path))
        text = "".join(f"{name}\0{sha256(os.path.join(path, name))}\n" for name in names)
        return hashlib.sha256(text.encode()).hexdigest()
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def write(path, rows, columns):
    """Writes a CSV file."""
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def chosen(rows):
    """At most MOST_ROWS of each source, the same whenever this is run."""
    taken = collections.Counter()
    kept = []
    for row in sorted(rows, key=lambda row: drawn(row["stored"], "chosen")):
        taken[row["source"]] += 1
        if taken[row["source"]] <= MOST_ROWS[row["dims"]]:
            kept.append(row)
    return sorted(kept, key=lambda row: row["stored"])


def pool_of(manifest, is_alone):
    """The rows of a pool: `path` absolute, `stored` as the record names it, with the pool where there are several."""
    folder = os.path.dirname(os.path.abspath(manifest))
    prefix = "" if is_alone else os.path.basename(folder) + "/"
    with open(manifest, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "pretrain"]
    return [dict(row, path=os.path.join(folder, row["path"]), stored=prefix + row["path"]) for row in rows]


def main(*manifests, out):
    """Writes the three files."""
    rows = [row for manifest in manifests for row in pool_of(manifest, len(manifests) == 1)]
    patients = collections.defaultdict(set)
    for row in rows:
        patients[row["source"]].add(row["patient_id"])
    # A patient who is in two sources is in one part: one row that asks for training decides.
    in_training = set()
    for row in rows:
        has_few = len(patients[row["source"]]) < FEW_PATIENTS
        is_held_out = drawn(row["patient_id"], "held out") % HELD_OUT_OF == 0 and not has_few
        if row["ship"] == "yes" and not is_held_out:
            in_training.add(row["patient_id"])
    train, held_out = [], []
    for row in rows:
        trained = row["patient_id"] in in_training
        if trained and row["ship"] != "yes":
            continue  # another picture of a trained patient: in neither part
        (train if trained else held_out).append(row)
    validation = []
    for row in chosen(held_out):
        splits = ["gallery"] if row["pair_id"] else ["gallery", "query"]
        validation += [dict(row, split=split) for split in splits]
    os.makedirs(out, exist_ok=True)
    columns = ["path", "modality", "body_part", "finding", "patient_id", "source", "split", "dims",
               "license", "pair_id"]
    write(os.path.join(out, "train.csv"), train, columns)
    write(os.path.join(out, "validation.csv"), validation, columns)
    record = [
        {**row, "path": row["stored"], "sha256": sha256(row["path"])} for row in train
    ]
    write(os.path.join(out, "data.csv"), record, ["path", "source", "license", "sha256"])
    print(f"{len(train)} rows to train on, {len(validation)} to choose by")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:-1], out=sys.argv[-1])
