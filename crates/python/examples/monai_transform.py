"""m3ret as a transform of MONAI: an image of LoadImage becomes a unit vector.

    python monai_transform.py image.nii.gz
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from monai.transforms import Compose, LoadImage, Transform

import m3ret


class Embed(Transform):  # type: ignore[misc]
    """Turns a MetaTensor [W, H, D] (or [C, W, H, D] with C = 1), whose affine is RAS, into a vector [width]."""

    def __init__(self, model: str = "m3ret-tiny") -> None:
        self.encoder = m3ret.load(model)

    def __call__(self, image: Any) -> torch.Tensor:
        array = image[0] if image.ndim == 4 and image.shape[0] == 1 else image
        volume = m3ret.Volume.from_array(
            array.as_tensor(), spacing=None, affine=image.affine, space="RAS", order="WHD"
        )
        return torch.from_numpy(self.encoder.embed(volume).numpy()[0])


if __name__ == "__main__":
    transform = Compose([LoadImage(image_only=True), Embed()])
    for path in sys.argv[1:]:
        vector = transform(path)
        by_path = m3ret.load().embed(path).numpy()[0]
        print(f"{path}: {tuple(vector.shape)}, largest difference to the file {abs(vector.numpy() - by_path).max():.1e}")
