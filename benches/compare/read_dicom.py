"""CPU time of m3ret and of pydicom + numpy for one CT series folder, alternating in one run.

usage: read_dicom.py [--rounds 7] [--reads 3] [--slices 128] [--side 512]

Writes a synthetic series (explicit little endian, 16 bit, shuffled names) to a temporary folder.
Needs pydicom and numpy, and `cargo build --release -p m3ret-imaging --example read_bench`.
Python's work: dcmread of every file, sort by position, stack, rescale, cast to float32.
"""

import argparse
import pathlib
import random
import statistics
import sys
import tempfile

from read_formats import m3ret_read, run

PYTHON = """
import pathlib, resource, sys
import numpy as np, pydicom

def read(folder):
    sets = [pydicom.dcmread(path) for path in pathlib.Path(folder).iterdir()]
    sets.sort(key=lambda ds: float(ds.ImagePositionPatient[2]))
    stack = np.stack([ds.pixel_array for ds in sets]).astype(np.float32)
    return stack * np.float32(sets[0].RescaleSlope) + np.float32(sets[0].RescaleIntercept)

cpu = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
read(sys.argv[1])
start = cpu()
for _ in range(int(sys.argv[2])):
    read(sys.argv[1])
print((cpu() - start) / int(sys.argv[2]))
"""


def write_series(folder, n_slices, side):
    import numpy as np
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    rng = np.random.default_rng(0)
    series = generate_uid()
    names = [f"{number:04}.dcm" for number in range(n_slices)]
    random.Random(0).shuffle(names)
    for number, name in enumerate(names):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = CTImageStorage
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
        ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.Modality = series, series, "CT"
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.ImagePositionPatient = [-180, -180, 2.5 * number]
        ds.PixelSpacing, ds.SliceThickness = [0.7, 0.7], 2.5
        ds.Rows = ds.Columns = side
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
        ds.PixelData = rng.integers(0, 2000, (side, side), dtype=np.int16).tobytes()
        ds.save_as(folder / name, enforce_file_format=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--reads", type=int, default=3)
    parser.add_argument("--slices", type=int, default=128)
    parser.add_argument("--side", type=int, default=512)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_series(folder, options.slices, options.side)
        pairs = []
        for _ in range(options.rounds):
            ours = m3ret_read(folder, options.reads)
            theirs = run([sys.executable, "-c", PYTHON, str(folder), str(options.reads)])
            pairs.append((ours, theirs))
    ours, theirs = (statistics.median(side) * 1e3 for side in zip(*pairs))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"m3ret {ours:.0f} ms, pydicom + numpy {theirs:.0f} ms, ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
