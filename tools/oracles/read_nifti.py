"""Says what nibabel reads of each NIfTI file of a folder: FILE.json beside it."""

import json
import sys
from pathlib import Path

import nibabel
import numpy

for file in sorted(Path(sys.argv[1]).glob("*.nii.gz")):
    image = nibabel.load(file)
    told = {
        "shape": list(image.shape),
        "affine": image.affine.tolist(),
        "zooms": [float(zoom) for zoom in image.header.get_zooms()],
        "dtype": str(image.get_data_dtype()),
        "values": image.get_fdata(dtype=numpy.float32).ravel(order="F").tolist(),
    }
    Path(f"{file}.json").write_text(json.dumps(told))
