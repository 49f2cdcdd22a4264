"""Repeats the rows of a manifest to any number, for measuring start-up time and memory.

python tools/large_manifest.py MANIFEST.csv N_ROWS OUT.csv

Paths become absolute, so OUT.csv may lie anywhere; every fourth row begins a new patient.
"""

import csv
import itertools
import os
import sys


def main() -> None:
    source, n_rows, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    folder = os.path.dirname(os.path.abspath(source))
    with open(source, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with open(out, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        for i, row in enumerate(itertools.islice(itertools.cycle(rows), n_rows)):
            row = dict(row, path=os.path.join(folder, row["path"]))
            row["patient_id"] = f"synthetic-{i // 4:08}"
            writer.writerow(row)


if __name__ == "__main__":
    main()
