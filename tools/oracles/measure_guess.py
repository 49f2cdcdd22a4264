#!/usr/bin/env python3
"""Counts which modality m3ret guesses for labelled images, and how often the guess is the label.

    measure_guess.py M3RET FOLDER...

Each FOLDER holds images and a manifest.csv with the columns path and modality. Files that state their modality, such
as DICOM, are counted apart: they have no guess. Prints the confusion table and the precision of each guess, and exits
with 1 if one is below 0.95.
"""

import collections
import csv
import json
import os
import subprocess
import sys


def guesses(m3ret, folder):
    """Yields the path below a folder, the kind, the stated and the guessed modality of each image."""
    command = [m3ret, "check", folder, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            report = json.loads(line)
            if "kind" in report:
                path = os.path.relpath(report["path"], folder)
                yield path, report["kind"], report["modality"], report.get("modality_guess")


def main():
    m3ret, folders = sys.argv[1], sys.argv[2:]
    table, n_stated = collections.Counter(), 0
    for folder in folders:
        with open(os.path.join(folder, "manifest.csv"), newline="") as file:
            labels = {os.path.normpath(row["path"]): row["modality"] for row in csv.DictReader(file)}
        for path, kind, stated, guess in guesses(m3ret, folder):
            if stated is not None:
                n_stated += 1
            elif path in labels:
                table[kind, labels[path], guess] += 1
    print(f"{sum(table.values())} images without a stated modality, {n_stated} with one")
    names = sorted({guess for _, _, guess in table if guess})
    print("| kind | label |", " | ".join(names), "| no guess |")
    for kind, label in sorted({key[:2] for key in table}):
        cells = [table[kind, label, guess] for guess in [*names, None]]
        print(f"| {kind} | {label} |", " | ".join(map(str, cells)), "|")
    worst = 1.0
    for name in names:
        n_all = sum(n for (_, _, guess), n in table.items() if guess == name)
        n_right = sum(n for (_, label, guess), n in table.items() if guess == label == name)
        worst = min(worst, n_right / n_all)
        print(f"{name}: {n_right} of {n_all} are right, {n_right / n_all:.4f}")
    return int(worst < 0.95)


if __name__ == "__main__":
    sys.exit(main())
