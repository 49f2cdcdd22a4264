"""Makes the baseline of raw pixels without m3ret, for `m3ret evaluate --embeddings`.

    python thumbnails.py MANIFEST.csv OUT.npy
    m3ret evaluate MANIFEST.csv --embeddings thumbnails=OUT.npy --out OUT

Each row becomes the 32 x 32 mean of areas of its central slice or frame, grey, with the mean removed and
unit length; rows that cannot be read are NaN. Volumes are shown as they are stored (columns of NIfTI run
to the patient's right or left as the file has them), between the 0.5 and 99.5 percentiles.
Needs numpy, pillow, nibabel, pydicom with its codecs, and ffmpeg.
"""

import csv
import json
import pathlib
import subprocess
import sys

import nibabel
import numpy as np
import pydicom
from PIL import Image
from pydicom.pixels import convert_color_space


def windowed(plane, whole):
    low, high = np.percentile(whole, [0.5, 99.5])
    return np.clip((plane - low) / max(high - low, 1e-6), 0, 1)


def grey(rgb):
    return rgb.astype(np.float32).mean(-1)


def dicom(path):
    image = pydicom.dcmread(path)
    values = image.pixel_array
    if values.ndim == 4 or (values.ndim == 3 and values.shape[-1] != 3):
        values = values[len(values) // 2]
    if values.ndim == 3:
        try:
            values = convert_color_space(values, image.PhotometricInterpretation, "RGB")
        except NotImplementedError:
            # The codec has done it.
            pass
        return grey(values)
    values = values.astype(np.float32)
    if image.PhotometricInterpretation == "MONOCHROME1":
        values = values.max() - values
    return windowed(values, values)


def series(folder):
    slices = [pydicom.dcmread(path) for path in folder.iterdir()]
    slices.sort(key=lambda image: float(image.ImagePositionPatient[2]))
    return windowed(slices[len(slices) // 2].pixel_array, np.stack([image.pixel_array for image in slices]))


def nifti(path):
    volume = np.asarray(nibabel.load(path).dataobj, np.float32)
    return windowed(np.rot90(volume[:, :, volume.shape[2] // 2]), volume)


def video(path):
    probe = ["ffprobe", "-v", "error", "-show_streams", "-of", "json", path]
    stream = json.loads(subprocess.run(probe, capture_output=True, check=True).stdout)["streams"][0]
    decode = ["ffmpeg", "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(decode, capture_output=True, check=True).stdout
    frames = np.frombuffer(raw, np.uint8).reshape(-1, stream["height"], stream["width"], 3)
    return grey(frames[len(frames) // 2])


def plane(path):
    if path.is_dir():
        return series(path)
    if path.name.endswith(".nii.gz"):
        return nifti(path)
    if path.suffix == ".mp4":
        return video(path)
    if path.suffix == ".dcm":
        return dicom(path)
    return grey(np.asarray(Image.open(path).convert("RGB")))


def main():
    manifest, out = map(pathlib.Path, sys.argv[1:])
    rows = list(csv.DictReader(manifest.open()))
    vectors = np.full((len(rows), 1024), np.nan, np.float32)
    for vector, row in zip(vectors, rows):
        try:
            image = Image.fromarray(np.ascontiguousarray(plane(manifest.parent / row["path"]), np.float32))
        except Exception as error:
            print(f"{row['path']}: {type(error).__name__}")
            continue
        values = np.asarray(image.resize((32, 32), Image.BOX), np.float64).ravel()
        values -= values.mean()
        if np.linalg.norm(values) > 0:
            vector[:] = values / np.linalg.norm(values)
    np.save(out, vectors)


main()
