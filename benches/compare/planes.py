"""Reads the central slice or frame of an image without m3ret, for baselines made elsewhere.

`read(path)` returns values from 0 to 1: `[H, W]` for grey, `[H, W, 3]` for colour. Volumes are shown as
they are stored (columns of NIfTI run to the patient's right or left as the file has them), between the 0.5
and 99.5 percentiles. Needs numpy, pillow, nibabel, pydicom with its codecs, and ffmpeg.
"""

import json
import subprocess

import nibabel
import numpy as np
import pydicom
from PIL import Image
from pydicom.pixels import convert_color_space


def windowed(plane, whole):
    low, high = np.percentile(whole, [0.5, 99.5])
    return np.clip((plane - low) / max(high - low, 1e-6), 0, 1)


def shares(rgb):
    return rgb.astype(np.float32) / 255


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
        return shares(values)
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
    return shares(frames[len(frames) // 2])


def read(path):
    if path.is_dir():
        return series(path)
    if path.name.endswith(".nii.gz"):
        return nifti(path)
    if path.suffix == ".mp4":
        return video(path)
    if path.suffix == ".dcm":
        return dicom(path)
    return shares(np.asarray(Image.open(path).convert("RGB")))
