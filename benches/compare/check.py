#!/usr/bin/env python3
"""Times `m3ret check` on 1,000 small DICOM files against pydicom loops, all in one run.

Needs pydicom and numpy. CPU time (user + system) of whole processes for m3ret, and of the loop
alone, without starting the interpreter and importing, for Python: that favours Python.

Usage: benches/compare/check.py [--files 1000] [--repeats 5] [--binary PATH]
"""

import argparse
import hashlib
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

ROOT = pathlib.Path(__file__).parents[2]


def make(folder, n_files):
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    pixels = dataset.pixel_array
    for index in range(n_files):
        dataset.SeriesInstanceUID = generate_uid()
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.PixelData = (pixels + index % 1000).astype("<i2").tobytes()
        dataset.save_as(folder / f"{index:05}.dcm")


def decode(path):
    return pydicom.dcmread(path).pixel_array


def as_check_does(path):
    dataset = pydicom.dcmread(path)
    slope, intercept = float(dataset.RescaleSlope), float(dataset.RescaleIntercept)
    values = (dataset.pixel_array * slope + intercept).astype(np.float32)
    statistics_of = (values.min(), values.max(), values.mean(), values.std())
    return statistics_of, hashlib.blake2b(values.tobytes(), digest_size=16).digest()


def loop(work, paths):
    start = time.process_time()
    for path in paths:
        work(path)
    return time.process_time() - start


def check(binary, folder):
    before = os.times()
    done = subprocess.run([binary, "check", folder, "--json"], check=True, capture_output=True)
    after = os.times()
    summary = json.loads(done.stdout.splitlines()[-1])["summary"]
    seconds = after.children_user + after.children_system
    return seconds - before.children_user - before.children_system, summary["n_ok"]


def build():
    command = ["cargo", "build", "--release", "-p", "m3ret", "--message-format=json"]
    built = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    messages = [json.loads(line) for line in built.stdout.splitlines()]
    return next(m["executable"] for m in messages if m.get("executable"))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--binary", help="a release build of m3ret; built here by default")
    args = parser.parse_args()
    binary = args.binary or build()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        make(folder, args.files)
        paths = sorted(folder.iterdir())
        ours, decoded, checked = [], [], []
        for _ in range(args.repeats):
            seconds, n_ok = check(binary, folder)
            assert n_ok == args.files, n_ok
            ours.append(seconds)
            decoded.append(loop(decode, paths))
            checked.append(loop(as_check_does, paths))
    ours, decoded, checked = (statistics.median(runs) for runs in (ours, decoded, checked))
    print("| reader | CPU seconds | m3ret / it |\n|---|---|---|")
    print(f"| m3ret check, whole process | {ours:.2f} | 1 |")
    print(f"| pydicom: pixel_array | {decoded:.2f} | {ours / decoded:.2f} |")
    print(f"| pydicom + numpy: rescale, statistics, hash | {checked:.2f} | {ours / checked:.2f} |")


if __name__ == "__main__":
    main()
